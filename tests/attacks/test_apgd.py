"""Auto-PGD against optima known in closed form, a plain second implementation, and a count of its passes."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from tiny import images, rng
from torch import Tensor, nn
from torch.nn import functional as F

from robcomp.attacks import ATTACKS
from robcomp.attacks.apgd import APGD, APGDCE, APGDDLR, APGDT, checkpoints
from robcomp.attacks.base import Attack
from robcomp.attacks.pgd import PGD
from robcomp.data import to_float
from robcomp.errors import UserError

KINDS = [(APGDCE, "Linf"), (APGDCE, "L2"), (APGDDLR, "Linf"), (APGDDLR, "L2"), (APGDT, "Linf"), (APGDT, "L2")]
every_kind = pytest.mark.parametrize(("kind", "norm"), KINDS, ids=lambda value: getattr(value, "__name__", value))


@dataclass(eq=False)
class Watched(nn.Module):
    """logits(x), with the points it was asked for and the passes it made, backward ones included."""

    logits: Callable[[Tensor], Tensor]
    seen: list[Tensor] = field(default_factory=list)
    passes: int = 0

    def __post_init__(self) -> None:
        super().__init__()

    def forward(self, x: Tensor) -> Tensor:
        self.seen.append(x.detach().clone())
        self.passes += len(x)
        result = self.logits(x)
        if result.requires_grad:
            result.register_hook(self._backward)
        return result

    def _backward(self, slope: Tensor) -> None:
        self.passes += len(slope)


def two_classes(*weights: Tensor, offset: float = 0.0) -> Watched:
    """Logits (0, m), m the least of the linear forms w.(x - 0.5): class 1 holds while all of them are above 0."""

    def logits(x: Tensor) -> Tensor:
        least = torch.stack([(x.flatten(1) - 0.5) @ w for w in weights]).amin(0) + offset
        return torch.stack([torch.zeros_like(least), least], dim=1)

    return Watched(logits)


def near(w: Tensor, margins: Tensor, shape: tuple[int, ...] = (3, 4, 4)) -> Tensor:
    """Images around 0.5, away from the ends of the range, where w.(x - 0.5) takes the given values."""
    x = 0.02 * torch.randn(len(margins), w.numel(), generator=rng(3))
    x += ((margins - x @ w) / w.square().sum())[:, None] * w
    return (x + 0.5).view(-1, *shape)


def dual(w: Tensor, norm: str) -> Tensor:
    return w.abs().sum() if norm == "Linf" else w.norm()


def ones(x: Tensor) -> Tensor:
    return torch.ones(len(x), dtype=torch.int64)


def held(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    with torch.no_grad():
        return model(x).argmax(1) == y


def trained() -> tuple[nn.Module, Tensor, Tensor]:
    """A small convolutional network after some training, and images that it classifies correctly."""
    torch.manual_seed(0)
    split = images(60, 1)
    x, y = to_float(split.images), split.labels
    model = nn.Sequential(
        nn.Conv2d(1, 8, 3, stride=2), nn.ReLU(), nn.Conv2d(8, 8, 3, stride=2), nn.ReLU(), nn.Flatten(), nn.Linear(72, 3)
    )
    optimiser = torch.optim.Adam(model.parameters(), lr=0.01)
    for _ in range(40):
        optimiser.zero_grad()
        F.cross_entropy(model(x), y).backward()
        optimiser.step()
    correct = held(model, x, y)
    return model.requires_grad_(False), x[correct], y[correct]


def test_checkpoints_worked_out_by_hand() -> None:
    assert list(checkpoints(100)) == [22, 41, 57, 70, 80, 87, 93, 99]
    assert list(checkpoints(100).values()) == [22, 19, 16, 13, 10, 7, 6, 6]
    assert checkpoints(1) == {1: 1}
    assert list(checkpoints(10)) == [2, 3, 4, 5, 6, 7, 8, 9, 10]


@every_kind
def test_robust_exactly_where_a_linear_margin_says(kind: type[APGD], norm: str) -> None:
    w = torch.randn(48, generator=rng(2))
    margins = torch.linspace(0.021, 1.999, 60) * 0.05 * dual(w, norm)  # half of them breakable at eps 0.05
    x = near(w, margins)
    model = two_classes(w)
    x_adv = kind(0.05, norm, steps=30)(model, x, ones(x), rng())
    assert torch.equal(held(model, x_adv, ones(x)), margins > 0.05 * dual(w, norm))


@every_kind
def test_robust_exactly_where_two_linear_pieces_say(kind: type[APGD], norm: str) -> None:
    """The least of two forms can fall by eps of its dual norm: the image is robust where neither reaches 0."""
    w = torch.randn(2, 48, generator=rng(4))
    w = torch.stack([piece / dual(piece, norm) for piece in w])
    margins = torch.cartesian_prod(*[torch.tensor([0.01, 0.03, 0.045, 0.055, 0.07, 0.09])] * 2)  # [36, 2]
    x = 0.02 * torch.randn(36, 48, generator=rng(5))
    x = (x + (margins - x @ w.T) @ torch.linalg.pinv(w).T + 0.5).view(-1, 3, 4, 4)
    x_adv = kind(0.05, norm, steps=20, restarts=5)(two_classes(*w), x, ones(x), rng())
    assert torch.equal(held(two_classes(*w), x_adv, ones(x)), (margins > 0.05).all(1))


@pytest.mark.parametrize("norm", ["Linf", "L2"])
def test_the_greatest_loss_of_a_linear_model_is_reached(norm: str) -> None:
    w = torch.randn(48, generator=rng(2)) / 4
    margins = torch.linspace(1.1, 2, 10) * 0.05 * dual(w, norm)
    x, model = near(w, margins), two_classes(w)
    x_adv = APGDCE(0.05, norm)(model, x, ones(x), rng())
    loss = F.cross_entropy(model(x_adv), ones(x), reduction="none")
    assert torch.allclose(loss, F.softplus(0.05 * dual(w, norm) - margins), atol=1e-3)


@pytest.mark.parametrize(("norm", "eps"), [("Linf", 0.02), ("L2", 0.2)])
def test_no_worse_than_pgd_of_as_many_steps(norm: str, eps: float) -> None:
    model, x, y = trained()
    found = {}
    for attack in (PGD(eps, norm, steps=20), APGDCE(eps, norm, steps=20)):
        x_adv = attack(model, x, y, rng())
        assert held(model, x_adv, y).all(), "fooled images would leave APGD early"
        found[type(attack)] = F.cross_entropy(model(x_adv), y).item()
    assert found[APGDCE] >= found[PGD] * (1 - 1e-4)
    assert found[APGDCE] > F.cross_entropy(model(x), y)


@every_kind
def test_the_best_point_seen_is_returned(kind: type[APGD], norm: str) -> None:
    """Wavy logits, out of reach of a fooling: only the best point of every image can be what comes back."""
    model, x = wavy(), torch.rand(7, 2, 3, 3, generator=rng(1))
    x_adv = kind(0.4, norm, steps=25)(model, x, ones(x), rng())
    points = torch.stack(model.seen[1:] if kind is APGDT else model.seen)  # apgd_t first asks for x itself
    losses = torch.stack([-model(point)[:, 1] for point in points])
    best = losses.argmax(0)
    assert torch.equal(x_adv, points[best, torch.arange(7)])
    assert (best < len(points) - 1).any()


def wavy(scale: float = 4) -> Watched:
    """Logits (0, 20 + waves): never fooled, and a loss that rises and falls along any path."""
    w = scale * torch.randn(18, 12, generator=rng(7))

    def logits(x: Tensor) -> Tensor:
        waves = 20 + (x.flatten(1) @ w.to(x.dtype)).sin().sum(1)
        return torch.stack([torch.zeros_like(waves), waves], dim=1)

    return Watched(logits)


@every_kind
def test_an_image_that_withstands_costs_what_cost_says(kind: type[APGD], norm: str) -> None:
    model, x = wavy(), torch.rand(3, 2, 3, 3, generator=rng(1))
    settings = {"targets": 1} if kind is APGDT else {}
    attack = kind(0.1, norm, steps=11, restarts=2, **settings)
    attack(model, x, ones(x), rng())
    assert model.passes == 3 * attack.cost
    assert attack.cost == 2 * (2 * 11 + 1) + (kind is APGDT)


@pytest.fixture
def one_run_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("robcomp.attacks.active_set.ROWS", 1)


@every_kind
@pytest.mark.usefixtures("one_run_at_a_time")
def test_fooled_images_cost_no_further_pass(kind: type[APGD], norm: str) -> None:
    w = torch.randn(48, generator=rng(2))
    wanted = torch.tensor([-3.0, 3, -3, 3, -3]) * 0.05 * dual(w, norm)
    model, x = two_classes(w), near(w, wanted)
    attack = kind(0.05, norm, steps=10, restarts=2, **({"targets": 1} if kind is APGDT else {}))
    attack(model, x, ones(x), rng())
    assert model.passes == 2 * attack.cost + 3 * (2 + (kind is APGDT))
    model.passes = 0
    attack(model, x[::2], ones(x[::2]), rng())  # all wrong from the start
    assert model.passes == 3 * (2 + (kind is APGDT))


@every_kind
def test_runs_side_by_side_fool_the_same_images(kind: type[APGD], norm: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of images that no run fools the same point is returned, that of the highest loss over all runs."""
    model, x, y = trained()
    attack = kind(0.18 if norm == "Linf" else 2, norm, steps=20, restarts=3)
    together = attack(model, x, y, rng())
    monkeypatch.setattr("robcomp.attacks.active_set.ROWS", 1)
    one_by_one = attack(model, x, y, rng())
    left = held(model, together, y)
    assert 0 < left.sum() < len(x)
    assert torch.equal(left, held(model, one_by_one, y))
    assert torch.allclose(together[left], one_by_one[left], atol=1e-3)


@every_kind
@pytest.mark.usefixtures("one_run_at_a_time")
def test_no_image_depends_on_its_companions(kind: type[APGD], norm: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither on whether they stay, in the same batch, nor on there being any, from the same start."""
    model, x, y = trained()
    x, y = x[:9], y[:9]
    attack = kind(0.18 if norm == "Linf" else 2, norm, steps=20, restarts=2)
    together = attack(model, x, y, rng())
    assert 0 < held(model, together, y).sum() < 9
    wrong = torch.where(torch.arange(9) % 3 == 0, y, (y + 1) % 3)
    assert torch.allclose(attack(model, x, wrong, rng())[::3], together[::3], atol=1e-6)

    monkeypatch.setattr(kind, "start", lambda self, x, generator: self.threat.project(x + (50 * x).sin(), x))
    together = attack(model, x, y, rng())
    alone = torch.cat([attack(model, x[i : i + 1], y[i : i + 1], rng()) for i in range(9)])
    assert torch.allclose(alone, together, atol=1e-6)


@pytest.mark.parametrize("norm", ["Linf", "L2"])
@pytest.mark.parametrize(
    ("steps", "scale", "rho"), [(7, 4, 0.75), (40, 1, 0.75), (100, 1, 0.75), (100, 4, 0.75), (10, 4, 0)]
)
def test_the_same_points_as_a_plain_implementation(norm: str, steps: int, scale: float, rho: float) -> None:
    """Points in float64, so that both see the same rises of the float32 loss; long, wide waves and short ones."""
    model, x = wavy(scale), torch.rand(12, 2, 3, 3, generator=rng(6)).double()
    APGDDLR(0.3, norm, steps=steps, rho=rho)(model, x, ones(x), rng())
    seen = torch.stack(model.seen, 1)  # [12, steps + 1, 2, 3, 3]
    halvings = []
    for image, points in zip(x, seen, strict=True):
        plain, sizes = plain_apgd(model, image, points[0], 0.3, norm, steps, rho)
        assert torch.allclose(points, torch.stack(plain), atol=1e-6)
        halvings.append(len(sizes) - 1)
    assert sum(halvings) > 0


def plain_apgd(
    model: nn.Module, x: Tensor, start: Tensor, eps: float, norm: str, steps: int, rho: float
) -> tuple[list[Tensor], list[float]]:
    """Algorithm 1 for one image of class 1 out of two: the points looked at, and the step sizes that were in use."""

    def f(point: Tensor) -> tuple[float, Tensor]:
        point = point.clone().requires_grad_()
        logits = model(point[None])[0].float()
        loss = logits[0] - logits[1]
        loss.backward()
        return loss.item(), point.grad

    def project(point: Tensor) -> Tensor:
        if norm == "Linf":
            delta = (point - x).clamp(-eps, eps)
        else:
            delta = (point - x) * min(1.0, eps / max((point - x).norm().item(), 1e-12))
        return (x + delta).clamp(0, 1)

    def step(point: Tensor, size: float, slope: Tensor) -> Tensor:
        return project(point + size * (slope.sign() if norm == "Linf" else slope / slope.norm()))

    w, interval = [0], int(0.22 * steps) or 1
    while w[-1] < steps:
        w.append(w[-1] + interval)
        interval = max(interval - (int(0.03 * steps) or 1), int(0.06 * steps) or 1)

    points, losses, size, sizes = [start], [], 2 * eps, [2 * eps]
    loss, slope = f(start)
    losses.append(loss)
    previous, here = start, start
    best, best_loss, best_slope = start, loss, slope
    best_losses, size_at = {0: loss}, {0: size}  # at the checkpoints; the size that the interval after it started with
    rises = []
    for k in range(steps):
        z = step(here, size, slope)
        following = z if k == 0 else project(here + 0.75 * (z - here) + 0.25 * (here - previous))
        before = loss
        loss, slope = f(following)
        points.append(following)
        rises.append(loss > before)
        previous, here = here, following
        if loss > best_loss:
            best, best_loss, best_slope = here, loss, slope
        if k + 1 in w:
            last = w[w.index(k + 1) - 1]
            second_last = w[max(w.index(k + 1) - 2, 0)]
            few = sum(rises[last : k + 1]) <= rho * (k + 1 - last)
            unchanged = size_at[last] == size_at[second_last] and best_loss == best_losses[last]
            if few or unchanged:
                size /= 2
                sizes.append(size)
                here, loss, slope = best, best_loss, best_slope
            best_losses[k + 1], size_at[k + 1] = best_loss, size
    return points, sizes


def test_starts_lie_on_the_surface_of_the_ball() -> None:
    x = torch.full((50, 2, 3, 3), 0.5)
    for norm in ("Linf", "L2"):
        delta = (APGDCE(0.2, norm).start(x, rng()) - x).flatten(1)
        size = delta.abs().amax(1) if norm == "Linf" else delta.norm(dim=1)
        assert torch.allclose(size, torch.tensor(0.2))
        assert delta.mean().abs() < 0.02


def test_targets_are_aimed_at_in_turn() -> None:
    """The likeliest other class cannot be reached, the second can: one target fails, two succeed."""

    def logits(x: Tensor) -> Tensor:
        level = x.flatten(1).mean(1)
        return torch.stack([level * 0, level * 0 + 1, level * 0 + 0.9, 5 * level - 2, level * 0 - 1], dim=1)

    x = torch.full((4, 1, 2, 3), 0.5)  # level 0.5: logits 0, 1, 0.9, 0.5, -1
    for targets, robust in ((1, 4), (2, 0), (9, 0)):
        model = Watched(logits)
        x_adv = APGDT(0.2, steps=10, targets=targets)(model, x, ones(x), rng())
        assert held(model, x_adv, ones(x)).sum() == robust


def test_restarts_keep_the_worst_point() -> None:
    model, x = wavy(), torch.rand(7, 2, 3, 3, generator=rng(1))
    losses = [-model(APGDDLR(0.4, steps=5, restarts=n)(model, x, ones(x), rng()))[:, 1] for n in (1, 2, 4)]
    assert (losses[0] <= losses[1]).all()
    assert (losses[1] <= losses[2]).all()
    assert (losses[0] < losses[2]).any()


@every_kind
def test_images_of_any_shape(kind: type[APGD], norm: str) -> None:
    for shape in ((1, 1, 1, 1), (2, 1, 2, 5), (3, 3, 2, 2), (1, 2, 7, 3)):
        x, w = torch.rand(shape, generator=rng(1)), torch.randn(torch.Size(shape[1:]).numel(), generator=rng(2))
        assert kind(0.1, norm, steps=3)(two_classes(w, offset=0.1), x, ones(x), rng()).shape == x.shape


def test_a_flat_loss_moves_nothing_out_of_bounds() -> None:
    model, x = Watched(lambda x: x.new_tensor([[0.0, 1.0]]).expand(len(x), 2) + 0 * x.sum()), torch.rand(2, 1, 2, 2)
    for norm in ("Linf", "L2"):
        assert APGDCE(0.1, norm, steps=4)(model, x, ones(x), rng()).isfinite().all()


@pytest.mark.parametrize(
    ("name", "settings", "said"),
    [
        ("apgd_ce", {"steps": 0}, "steps=0 is out of range"),
        ("apgd_dlr", {"restarts": 0}, "restarts=0 is out of range"),
        ("apgd_ce", {"rho": 1.5}, r"rho=1.5 is out of range; allowed is \[0, 1\]"),
        ("apgd_t", {"targets": 0}, "targets=0 is out of range"),
    ],
)
def test_settings_without_a_sense_are_refused(name: str, settings: dict[str, Any], said: str) -> None:
    kind: type[Attack] = ATTACKS[name]
    with pytest.raises(UserError, match=said):
        kind(0.1, **settings)
