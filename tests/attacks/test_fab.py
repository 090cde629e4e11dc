"""FAB against models whose nearest misclassified image is known."""

import pytest
import torch
from tiny import rng
from torch import Tensor, nn

from robcomp.attacks.base import norms
from robcomp.attacks.fab import FAB, FABT, nearest_boundary
from robcomp.errors import UserError

SHAPE, PIXELS = (3, 4, 4), 48
BOTH = pytest.mark.parametrize("attack", [FAB, FABT])
NORMS = pytest.mark.parametrize("norm", ["Linf", "L2"])


class Counted(nn.Module):
    """Logits of `inner` on flattened images; counts the images it has seen, and in how many calls."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner, self.images, self.calls = inner, 0, 0

    def forward(self, x: Tensor) -> Tensor:
        self.images, self.calls = self.images + len(x), self.calls + 1
        return self.inner(x.flatten(1))


class Wedge(nn.Module):
    """Logits (0, max of two affine functions of disjoint halves of the pixels), as one hidden ReLU: u + relu(v - u)."""

    def __init__(self) -> None:
        super().__init__()
        half = (torch.arange(PIXELS) < PIXELS // 2).float()
        w = torch.randn(2, PIXELS, generator=rng(5))
        self.w = nn.Parameter(w * torch.stack([half, 1 - half]))
        self.b = -self.w.detach().sum(1) / 2

    def forward(self, x: Tensor) -> Tensor:
        u, v = (x @ self.w.T + self.b).unbind(1)
        return torch.stack([torch.zeros_like(u), u + (v - u).relu()], dim=1)


class Constant(nn.Module):
    """The same logits for every image."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.tensor([1.0, 0, 0]).expand(len(x), 3)


def linear(classes: int) -> nn.Linear:
    model = nn.Linear(PIXELS, classes)
    model.weight.data = torch.randn(classes, PIXELS, generator=rng(1))
    model.bias.data = -model.weight.data.sum(1) / 2
    return model


def images(count: int, spread: float) -> Tensor:
    return (0.5 + spread * (torch.rand(count, *SHAPE, generator=rng(2)) - 0.5)).clamp(0, 1)


def prediction(model: nn.Module, x: Tensor) -> Tensor:
    with torch.no_grad():
        return model(x).argmax(1)


def exact_distances(model: nn.Linear, x: Tensor, y: Tensor, norm: str) -> Tensor:
    """The least distance to the boundary with any other class inside [0, 1], by bisection in float64: [N]."""
    w, z, x = model.weight.detach().double(), model(x.flatten(1)).detach().double(), x.flatten(1).double()
    best = torch.full((len(x),), torch.inf, dtype=torch.float64)
    for k in range(len(w)):
        across, gap = w[k] - w[y], z.gather(1, y[:, None])[:, 0] - z[:, k]
        room = torch.where(across > 0, 1 - x, x)
        low, high = torch.zeros_like(gap), torch.full_like(gap, 1e4)
        for _ in range(100):
            level = (low + high) / 2
            enough = (stretch(level, across, room, norm) * across.abs()).sum(1) >= gap
            low, high = torch.where(enough, low, level), torch.where(enough, level, high)
        size = norms(stretch(high, across, room, norm), norm)
        best = torch.where((y != k) & (high < 1e4), best.minimum(size), best)
    return best


def stretch(level: Tensor, across: Tensor, room: Tensor, norm: str) -> Tensor:
    """How far each pixel moves: as far as every other one, or in proportion to its weight; no farther than its room."""
    slope = (across != 0).double() if norm == "Linf" else across.abs()
    return torch.minimum(level[:, None] * slope, room)


def check(model: nn.Module, x: Tensor, y: Tensor, x_adv: Tensor, distance: Tensor, norm: str) -> None:
    """What holds of every result: true distances of misclassified images in [0, 1]."""
    found = distance.isfinite()
    assert 0 <= x_adv.min() <= x_adv.max() <= 1
    assert torch.allclose(norms(x_adv - x, norm)[found], distance[found])
    assert (prediction(model, x_adv) != y)[found].all()
    assert torch.equal(x_adv[~found], x[~found])


@BOTH
@NORMS
@pytest.mark.parametrize("classes", [2, 10])
@pytest.mark.parametrize("spread", [0.2, 2.0], ids=["inside", "at_the_bounds"])
def test_linear_models_are_attacked_at_the_exact_distance(
    attack: type[FAB], norm: str, classes: int, spread: float
) -> None:
    inner, x = linear(classes), images(20, spread)
    model = Counted(inner)
    y = prediction(model, x)
    x_adv, distance = attack(0.1, norm, steps=40).find(model, x, y, rng())
    exact = exact_distances(inner, x, y, norm)
    check(model, x, y, x_adv, distance, norm)
    assert (distance >= exact * (1 - 1e-4)).all()
    assert (distance <= exact * 1.01).all()


@BOTH
@NORMS
def test_a_boundary_with_a_kink(attack: type[FAB], norm: str) -> None:
    model = Counted(Wedge())
    x = images(60, 0.3)
    u_v = (x.flatten(1) @ model.inner.w.T + model.inner.b).detach().clamp_min(0)
    of_each = u_v / model.inner.w.detach().norm(p=1 if norm == "Linf" else 2, dim=1)  # both must fall to 0
    exact = norms(of_each, norm)
    y = torch.ones(len(x), dtype=torch.int64)
    x_adv, distance = attack(0.1, norm).find(model, x, y, rng())
    check(model, x, y, x_adv, distance, norm)
    assert ((of_each > 0).all(1)).sum() > 5  # images whose nearest point is the kink itself
    assert (distance >= exact * (1 - 1e-4)).all()
    assert (distance <= exact * 1.01 + 1e-6).all()


@NORMS
def test_the_boundary_is_that_of_the_nearest_class(norm: str) -> None:
    model, x = linear(10), images(20, 0.2).flatten(1)
    y = prediction(model, x)
    gap, slope = nearest_boundary(model, x, y, norm)
    w, z = model.weight.detach(), model(x).detach()
    across, gaps = w[None] - w[y][:, None], z - z.gather(1, y[:, None])
    ratio = gaps.abs() / across.norm(p=1 if norm == "Linf" else 2, dim=2)
    k = ratio.nan_to_num(torch.inf).argmin(1)
    rows = torch.arange(20)
    assert torch.allclose(gap, gaps[rows, k], atol=1e-5)
    assert torch.allclose(slope, across[rows, k], atol=1e-5)
    assert len(k.unique()) > 2


@BOTH
def test_images_that_are_near_enough_stop_at_once(attack: type[FAB], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("robcomp.attacks.active_set.ROWS", 1)
    model, x = Counted(linear(10)), images(30, 0.2)
    y = prediction(model, x)
    model.images = 0
    _, exact = attack(0.1, steps=20).find(model, x, y, rng())
    everything, model.images = model.images, 0
    eps = exact.median().item()
    assert everything == 30 * (1 + 40 * (1 if attack is FAB else 9) + 5)  # 5: the final search
    attack(eps, steps=20)(model, x, y, rng())
    assert model.images < 0.6 * everything
    model.images = 0
    attack(1.0, steps=20)(model, x, y, rng())
    assert model.images <= 30 * (1 + 2 * 3)


def test_targets_side_by_side_find_the_same_images(monkeypatch: pytest.MonkeyPatch) -> None:
    """All the same without `enough`; with it, an image may be done by another target first, yet near enough."""
    model, x = Counted(linear(10)), images(30, 0.2)
    y = prediction(model, x)
    attack = FABT(0.1, steps=20)
    together = attack.find(model, x, y, rng())
    eps = together[1].median().item()
    within = FABT(eps, steps=20)(model, x, y, rng())
    monkeypatch.setattr("robcomp.attacks.active_set.ROWS", 1)
    one_by_one = attack.find(model, x, y, rng())
    assert torch.allclose(together[0], one_by_one[0], atol=1e-5)
    assert torch.allclose(together[1], one_by_one[1], atol=1e-5)
    fooled = FABT(eps, steps=20)(model, x, y, rng())
    assert torch.equal(prediction(model, within) == y, prediction(model, fooled) == y)


@BOTH
def test_the_final_search_comes_nearer_and_stays_misclassified(
    attack: type[FAB], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A step beyond the boundary by 5 % is taken back, nearly to it."""
    model, x = Counted(linear(10)), images(30, 0.2)
    y = prediction(model, x)
    found = attack(0.1, steps=4).find(model, x, y, rng())[1]
    x_adv, distance = attack(0.1, steps=4).find(model, x, y, rng())
    assert (prediction(model, x_adv) != y).all()
    monkeypatch.setattr(attack, "_refine", lambda *_: None)
    before = attack(0.1, steps=4).find(model, x, y, rng())[1]
    assert torch.equal(found, distance)
    assert (distance <= before).all()
    assert (distance < 0.995 * before).any()
    assert (distance >= exact_distances(linear(10), x, y, "Linf") * (1 - 1e-4)).all()


@BOTH
def test_misclassified_images_are_at_distance_zero(attack: type[FAB]) -> None:
    model, x = Counted(linear(3)), images(6, 0.2)
    y = prediction(model, x)
    y[::2] = (y[::2] + 1) % 3
    x_adv, distance = attack(0.1, steps=5).find(model, x, y, rng())
    assert torch.equal(distance == 0, torch.tensor([True, False] * 3))
    assert torch.equal(x_adv[::2], x[::2])

    model.images = 0
    x_adv, distance = attack(0.1, steps=5).find(model, x[::2], y[::2], rng())
    assert torch.equal(x_adv, x[::2])
    assert not distance.any()
    assert model.images == 3


@BOTH
@NORMS
def test_a_constant_model_is_out_of_reach(attack: type[FAB], norm: str) -> None:
    x = images(4, 1.0)
    x_adv, distance = attack(0.1, norm, steps=3, restarts=2).find(
        Constant(), x, torch.zeros(4, dtype=torch.int64), rng()
    )
    assert torch.equal(x_adv, x)
    assert distance.isinf().all()


@BOTH
@NORMS
def test_an_image_does_not_depend_on_its_batch(attack: type[FAB], norm: str) -> None:
    model, x = Counted(Wedge()), images(8, 0.5)
    y = prediction(model, x)
    together, distances = attack(0.1, norm, steps=15).find(model, x, y, rng())
    for i in range(8):
        alone, distance = attack(0.1, norm, steps=15).find(model, x[i : i + 1], y[i : i + 1], rng())
        assert torch.allclose(alone[0], together[i], atol=1e-4)
        assert torch.allclose(distance[0], distances[i], rtol=1e-3)


@BOTH
@NORMS
def test_distances_are_the_whole_curve(attack: type[FAB], norm: str) -> None:
    model, x = Counted(Wedge()), images(30, 0.5)
    y = prediction(model, x)
    _, distance = attack(0.0, norm, steps=10).find(model, x, y, rng())
    counts = []
    for eps in (0.0, 0.25 * distance.median().item(), distance.median().item(), 1.0):
        broken = prediction(model, attack(eps, norm, steps=10)(model, x, y, rng())) != y
        assert torch.equal(broken, distance <= eps)
        counts.append(int(broken.sum()))
    assert counts == sorted(counts)
    assert counts[0] == 0 < counts[2]


@NORMS
def test_restarts_are_never_farther_and_start_at_half_the_distance(norm: str) -> None:
    torch.manual_seed(0)
    model = Counted(nn.Sequential(nn.Linear(PIXELS, 30), nn.ReLU(), nn.Linear(30, 4)))
    x = images(20, 0.6)
    y = prediction(model, x)
    _, once = FAB(0.2, norm, steps=5).find(model, x, y, rng())
    x_adv, thrice = FAB(0.2, norm, steps=5, restarts=3).find(model, x, y, rng())
    check(model, x, y, x_adv, thrice, norm)
    assert (thrice <= once * 1.01).all()  # each ends a little short of the boundary
    assert (thrice < once * 0.99).any()


@pytest.mark.parametrize("attack", [FAB, FABT])
def test_restarts_spend_no_pass_where_all_are_done(attack: type[FAB]) -> None:
    model, x = Counted(linear(10)), images(6, 0.2)
    y = prediction(model, x)
    spent = []
    for restarts in (1, 4):
        model.images, calls = 0, model.calls
        attack(1.0, steps=5, restarts=restarts)(model, x, y, rng())
        spent.append((model.images, model.calls - calls))
    assert spent[0] == spent[1]


@pytest.mark.parametrize(
    ("build", "said"),
    [
        (lambda: FAB(0.1, steps=0), "steps=0 is out of range"),
        (lambda: FAB(0.1, restarts=0), "restarts=0 is out of range"),
        (lambda: FAB(0.1, alpha_max=1.5), r"alpha_max=1\.5 is out of range"),
        (lambda: FAB(0.1, beta=-1.0), "beta=-1 is out of range"),
        (lambda: FAB(0.1, eta=0.9), r"eta=0\.9 is out of range"),
        (lambda: FABT(0.1, targets=0), "targets=0 is out of range"),
    ],
)
def test_settings_without_a_sense_are_refused(build, said: str) -> None:
    with pytest.raises(UserError, match=said):
        build()


def test_cost_counts_passes() -> None:
    assert FAB(0.1, steps=10, restarts=2).cost == 1 + 2 * 10 * (1 + 9 + 1) + 5
    assert FABT(0.1, steps=10, targets=3).cost == 1 + 3 * 10 * 3 + 5
