"""Every attack against every contract. A new attack is one row in ROWS."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from tiny import rng
from torch import Tensor, nn
from torch.nn import functional as F

from robcomp.attacks import ATTACKS
from robcomp.attacks.base import Attack, ThreatModel
from robcomp.attacks.pgd import PGD
from robcomp.errors import UserError


@dataclass
class Row:
    """One attack as a suite would name it, and what it promises beyond the contracts of all."""

    name: str
    norm: str
    settings: dict[str, Any] = field(default_factory=dict)
    random: bool = False  # whether its result depends on the generator
    patient: dict[str, Any] = field(default_factory=dict)  # settings that let it reach a linear model's optimum
    lazy: bool = False  # is content with a misclassified point, and leaves images alone that are wrong already
    bounded: bool = True
    slack: float = 1e-3  # of the reach of the best attack on a linear model: what a lazy attack may miss

    def build(self, eps: float | str, **changes: Any) -> Attack:
        return ATTACKS[self.name](**{"eps": eps, "norm": self.norm, **self.settings, **changes})


MANY = {"steps": 60, "step_size": 0.1}
ROWS = {
    "fgsm": Row("fgsm", "Linf"),
    "fgsm_l2": Row("fgsm", "L2"),
    "pgd": Row("pgd", "Linf", {"steps": 4}, random=True, patient=MANY),
    "pgd_l2": Row("pgd", "L2", {"steps": 4}, random=True, patient=MANY),
    "pgd_from_x": Row("pgd", "Linf", {"steps": 4, "random_start": False, "relative_step": 1.25}, patient=MANY),
    "pgd_restarts": Row("pgd", "Linf", {"steps": 3, "restarts": 3}, random=True, patient=MANY),
    "pgd_l2_restarts": Row("pgd", "L2", {"steps": 3, "restarts": 3}, random=True, patient=MANY),
    "pgd_momentum": Row("pgd", "Linf", {"steps": 4, "momentum": 1.0}, random=True, patient=MANY),
    "pgd_momentum_l2": Row("pgd", "L2", {"steps": 4, "momentum": 0.5}, random=True, patient=MANY),
    "pgd_margin": Row("pgd", "Linf", {"steps": 4, "loss": "margin"}, random=True, patient=MANY),
    "pgd_dlr": Row("pgd", "L2", {"steps": 4, "loss": "dlr"}, random=True, patient=MANY),
    "pgd_targeted": Row("pgd", "Linf", {"steps": 4, "target": "second"}, random=True, patient=MANY),
    "fgsm_least_likely": Row("fgsm", "Linf", {"target": "least_likely"}),
    "cw_margin": Row("cw_margin", "Linf", {"steps": 4}, random=True, patient=MANY),
    "cw_margin_l2": Row("cw_margin", "L2", {"steps": 4}, random=True, patient=MANY),
    "apgd_ce": Row("apgd_ce", "Linf", {"steps": 12}, random=True, lazy=True),
    "apgd_ce_l2": Row("apgd_ce", "L2", {"steps": 12}, random=True, lazy=True),
    "apgd_dlr": Row("apgd_dlr", "Linf", {"steps": 12, "restarts": 2}, random=True, lazy=True),
    "apgd_t": Row("apgd_t", "Linf", {"steps": 12}, random=True, lazy=True),
    "apgd_t_l2": Row("apgd_t", "L2", {"steps": 12}, random=True, lazy=True),
    "fab": Row("fab", "Linf", {"steps": 8}, lazy=True),
    "fab_l2": Row("fab", "L2", {"steps": 8}, lazy=True),
    "fab_restarts": Row("fab", "Linf", {"steps": 8, "restarts": 3}, lazy=True),
    "fab_t": Row("fab_t", "Linf", {"steps": 8}, lazy=True),
    "fab_t_l2": Row("fab_t", "L2", {"steps": 8}, lazy=True),
    "cw": Row(
        "cw", "L2", {"steps": 40, "searches": 6, "lr": 0.05}, lazy=True, patient={"steps": 200, "lr": 0.01}, slack=0.01
    ),
    "square": Row("square", "Linf", {"queries": 60}, random=True, lazy=True, patient={"queries": 400}),
    "square_l2": Row("square", "L2", {"queries": 60}, random=True, lazy=True, patient={"queries": 400}, slack=0.35),
    "wrm": Row("wrm", "L2", {"gamma": 0.2, "steps": 5}, bounded=False),
}


@pytest.fixture(params=ROWS.values(), ids=ROWS.keys())
def row(request: pytest.FixtureRequest) -> Row:
    return request.param


@pytest.fixture(params=[row for row in ROWS.values() if row.bounded], ids=[n for n, row in ROWS.items() if row.bounded])
def in_ball(request: pytest.FixtureRequest) -> Row:
    return request.param


@pytest.fixture(params=["eval", "train"])
def bn_mode(request: pytest.FixtureRequest) -> str:
    return request.param


def network(seed: int = 0) -> nn.Sequential:
    """Two batch norms of either kind of running average, far from the statistics of the data."""
    torch.manual_seed(seed)
    model = nn.Sequential(
        nn.Conv2d(2, 6, 3),
        nn.BatchNorm2d(6),
        nn.ReLU(),
        nn.Conv2d(6, 4, 3),
        nn.BatchNorm2d(4, momentum=None),
        nn.Flatten(),
        nn.Linear(36, 3),
    )
    model[1].running_mean += 0.2
    model[4].running_var *= 2
    return model


def batch(count: int = 10) -> tuple[Tensor, Tensor]:
    """Images with pixels at both ends of the range, and their labels."""
    x = torch.rand(count, 2, 7, 7, generator=rng(1)) * 1.4 - 0.2
    return x.clamp(0, 1), torch.arange(count) % 3


class TwoClasses(nn.Module):
    """Logits (0, w.x - b): for images of class 1 the loss grows straight along -w, so the best attack is known."""

    def __init__(self, w: Tensor, b: float = 0.0) -> None:
        super().__init__()
        self.w, self.b = nn.Parameter(w), b

    def forward(self, x: Tensor) -> Tensor:
        margin = x.flatten(1) @ self.w - self.b
        return torch.stack([torch.zeros_like(margin), margin], dim=1)


def two_classes(count: int = 40) -> tuple[TwoClasses, Tensor, Tensor]:
    """All images classified correctly, at distances to the boundary that an eps between 0 and 0.1 tells apart."""
    w = torch.randn(12, generator=rng(2))
    x = 0.5 + 0.02 * torch.randn(count, 3, 2, 2, generator=rng(3))
    margins = x.flatten(1) @ w
    wanted = torch.linspace(0.01, 1, count)
    x = x + ((wanted - margins) / w.square().sum()).view(-1, 1, 1, 1) * w.view(1, 3, 2, 2)
    return TwoClasses(w), x, torch.ones(count, dtype=torch.int64)


def total_loss(model: nn.Module, x: Tensor, y: Tensor) -> float:
    model.eval()
    with torch.no_grad():
        return F.cross_entropy(model(x), y, reduction="sum").item()


def robust(model: nn.Module, attack: Attack, x: Tensor, y: Tensor) -> int:
    return int((model(attack(model, x, y, rng())).argmax(1) == y).sum())


def test_every_registered_attack_has_a_row() -> None:
    assert {row.name for row in ROWS.values()} == set(ATTACKS)


def test_shape_dtype_and_constraint(row: Row, bn_mode: str) -> None:
    (x, y), before = batch(), batch()[0]
    x_adv = row.build("8/255", bn_mode=bn_mode)(network(), x, y, rng())
    assert (x_adv.shape, x_adv.dtype, x_adv.requires_grad) == (x.shape, x.dtype, False)
    assert 0 <= x_adv.min() <= x_adv.max() <= 1
    delta = (x_adv - x).flatten(1)
    size = delta.abs().amax(1) if row.norm == "Linf" else delta.norm(dim=1)
    assert (size <= 8 / 255 + 1e-6).all() or not row.bounded
    assert (size > 1 / 255).all() or row.lazy or not row.bounded
    assert torch.equal(x, before)


def test_the_generator_decides_and_nothing_else(row: Row, bn_mode: str) -> None:
    attack, (x, y), model = row.build(0.1, bn_mode=bn_mode), batch(), network()
    first = attack(model, x, y, rng(5))
    torch.manual_seed(99)
    assert torch.equal(attack(model, x, y, rng(5)), first)
    assert torch.equal(attack(model, x, y, rng(6)), first) != row.random


def test_the_model_comes_back_as_it_was(row: Row, bn_mode: str) -> None:
    model = network()
    model.train()
    model[1].eval()  # a mix of modes, as in fine-tuning with frozen statistics
    model[6].weight.requires_grad_(False)
    model[0].weight.grad = torch.ones_like(model[0].weight)
    tensors = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    modes = [module.training for module in model.modules()]
    momenta = [module.momentum for module in model if isinstance(module, nn.BatchNorm2d)]

    row.build(0.1, bn_mode=bn_mode)(model, *batch(), rng())

    assert [module.training for module in model.modules()] == modes
    assert [m.momentum for m in model if isinstance(m, nn.BatchNorm2d)] == momenta
    assert [p.requires_grad for p in model.parameters()] == [p is not model[6].weight for p in model.parameters()]
    assert torch.equal(model[0].weight.grad, torch.ones_like(model[0].weight))
    assert all(p.grad is None for p in model.parameters() if p is not model[0].weight)
    for name, tensor in model.state_dict().items():  # running statistics and num_batches_tracked among them
        assert torch.equal(tensor, tensors[name]), name


def test_bn_mode_chooses_the_statistics(row: Row) -> None:
    (x, y), model = batch(), network()
    by_mode = [
        row.build(0.1, bn_mode=mode)(model.train(training), x, y, rng())
        for mode in ("eval", "train")
        for training in (True, False)
    ]
    assert torch.equal(by_mode[0], by_mode[1])
    assert torch.equal(by_mode[2], by_mode[3])
    assert not torch.equal(by_mode[0], by_mode[2])


def test_the_loss_rises(row: Row) -> None:
    (x, y), model = batch(), network()
    far = 1.0 if row.norm == "Linf" else 8.0
    for eps in (0.01, 0.05, far):
        before, after = total_loss(model, x, y), total_loss(model, row.build(eps)(model, x, y, rng()), y)
        assert after > before or (row.lazy and after == before and eps < far)


def test_no_gradient_mode_of_the_caller_matters(row: Row) -> None:
    (x, y), model, attack = batch(), network(), row.build(0.1)
    outside = attack(model, x, y, rng())
    with torch.no_grad():
        assert torch.equal(attack(model, x, y, rng()), outside)


def test_eps_zero_returns_the_images(in_ball: Row) -> None:
    x, y = batch()
    assert torch.equal(in_ball.build(0)(network(), x, y, rng()), x)


def test_an_empty_batch_is_an_empty_batch(row: Row) -> None:
    x, y = batch()
    assert row.build(0.1)(network(), x[:0], y[:0], rng()).shape == x[:0].shape


@pytest.mark.slow
def test_robust_accuracy_falls_with_eps(in_ball: Row) -> None:
    model, x, y = two_classes()
    correct = [robust(model, in_ball.build(eps, **in_ball.patient), x, y) for eps in (0, 0.01, 0.02, 0.04, 0.08, 0.6)]
    assert correct == sorted(correct, reverse=True)
    assert correct[0] == len(x)
    assert correct[-1] <= len(x) * in_ball.slack / 10
    assert len(set(correct)) >= 4


def test_robust_accuracy_falls_with_steps() -> None:
    """At a fixed step size and from x, n + 1 steps on a linear model reach at least as far as n."""
    model, x, y = two_classes()
    for norm, eps in (("Linf", 0.05), ("L2", 0.15)):
        correct = [
            robust(model, PGD(eps, norm, steps=n, step_size=eps / 6, random_start=False), x, y) for n in (1, 2, 4, 6, 9)
        ]
        assert correct == sorted(correct, reverse=True)
        assert correct[0] > correct[3] == correct[4]


def test_a_linear_model_is_attacked_to_its_known_optimum(in_ball: Row) -> None:
    model, x, y = two_classes()
    eps, w = 0.07, model.w.detach()
    best = eps * (w.sign() if in_ball.norm == "Linf" else w / w.norm()).view(1, 3, 2, 2)
    x_adv = in_ball.build(eps, **in_ball.patient)(model, x, y, rng())
    if in_ball.lazy:
        margins = model(x)[:, 1] - model(x)[:, 0]
        reach = (best.flatten() @ w).abs()
        broken = model(x_adv).argmax(1) == 0
        assert broken[margins < reach * (1 - in_ball.slack)].all()
        assert not broken[margins > reach * (1 + 1e-5)].any()
        assert 0 < broken.sum() < len(x)
    else:
        assert torch.allclose(x_adv, x - best, atol=1e-5)


def test_a_linear_model_at_the_border_of_the_pixel_range(in_ball: Row) -> None:
    model, x, y = two_classes()
    x = (x > x.median()).float()
    x_adv = in_ball.build(0.07, **in_ball.patient)(model, x, y, rng())
    inward = torch.where(x == 0, -1, 1) * model.w.detach().view(1, 3, 2, 2) > 0
    if in_ball.lazy:
        corner = torch.where(inward, x - 0.07 * model.w.detach().view(1, 3, 2, 2).sign(), x)
        reachable = model(corner).argmax(1) == 0
        broken = model(x_adv).argmax(1) == 0
        assert torch.equal(broken, reachable) if in_ball.norm == "Linf" else not broken[~reachable].any()
        assert 0 < broken.sum() < len(x)
    else:
        assert torch.equal(x_adv != x, inward)


def test_the_penalty_form_is_attacked_to_its_known_optimum() -> None:
    """gamma * CE on a linear model is concave in the step along w: the ascent ends where gamma * p * |w| = step."""
    model, x, y = two_classes()
    gamma = 0.05
    x_adv = ATTACKS["wrm"](gamma=gamma, steps=400)(model, x, y, rng())
    wrong = model(x_adv).softmax(1)[:, 0]  # the gradient of CE along -w is the probability of the wrong class
    wanted = -gamma * wrong[:, None] * model.w.detach()
    assert torch.allclose((x_adv - x).flatten(1), wanted, atol=1e-4)


def test_restarts_keep_the_worst_case_of_each_image() -> None:
    (x, y), model = batch(), network().eval()
    once = PGD(0.2, steps=1, restarts=1)
    draws, random = [], rng(4)
    for _ in range(5):
        draws.append(once(model, x, y, random))
    losses = torch.stack([F.cross_entropy(model(x_adv), y, reduction="none") for x_adv in draws])
    together = PGD(0.2, steps=1, restarts=5)(model, x, y, rng(4))
    assert torch.allclose(F.cross_entropy(model(together), y, reduction="none"), losses.amax(0))
    assert len(losses.argmax(0).unique()) > 1


def test_restarts_lose_no_misclassified_image_to_a_higher_loss() -> None:
    """Logits (0, a, -a) by the sign of the first pixel's move: one side is wrong by a hair, the other correct at more.

    Correct at 1/3 against 1/3 costs log 3, wrong at 0.45 against 0.55 only 0.8: the loss alone takes the correct one.
    """

    class Sides(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            t = (x[:, 0, 0, 0] - 0.5).sign()[:, None]
            level, won = torch.tensor([[0.01, 0.0, 0.0]]), torch.tensor([[0.45, 0.55, 1e-6]]).log()
            return torch.where(t > 0, level, won) + 0 * x.flatten(1).sum(1, keepdim=True)

    x, y = torch.full((12, 1, 2, 2), 0.5), torch.zeros(12, dtype=torch.int64)
    x_adv = PGD(0.1, steps=1, step_size=1e-9, restarts=20)(Sides(), x, y, rng())
    assert (Sides()(x_adv).argmax(1) == 1).all()


def test_images_out_of_range_are_refused_by_name(row: Row) -> None:
    x, y = batch()
    for wrong in (x + 0.5, x - 0.5, x * torch.nan):
        with pytest.raises(ValueError, match="normalisation belongs into the network"):
            row.build(0.1)(network(), wrong, y, rng())


def test_a_network_without_a_useful_gradient_is_attacked_without_an_error(row: Row) -> None:
    """A step function, one whose gradient is not finite, and one without a path from the input."""

    class Blind(nn.Module):
        def __init__(self, how: Callable[[Tensor], Tensor]) -> None:
            super().__init__()
            self.net, self.how = network(), how

        def forward(self, x: Tensor) -> Tensor:
            return self.net(self.how(x))

    x, y = batch()
    for how in (torch.round, torch.detach, lambda x: x + 0 * (x - x.detach()).sqrt()):
        x_adv = row.build(0.1)(Blind(how), x, y, rng())
        assert x_adv.isfinite().all()


def test_probabilities_and_logits_without_an_end_are_attacked_without_an_error(row: Row) -> None:
    x, y = batch()
    for scale, end in ((1.0, nn.Softmax(1)), (1e6, nn.Identity())):
        model = nn.Sequential(network(), Scaled(scale), end)
        assert row.build(0.1)(model, x, y, rng()).isfinite().all()


class Scaled(nn.Module):
    def __init__(self, scale: float) -> None:
        super().__init__()
        self.scale = scale

    def forward(self, x: Tensor) -> Tensor:
        return x * self.scale


def test_one_step_from_x_is_fgsm() -> None:
    (x, y), model = batch(), network()
    pgd = PGD(0.05, steps=1, step_size=0.05, random_start=False)(model, x, y, rng())
    assert torch.equal(ATTACKS["fgsm"](0.05)(model, x, y, rng()), pgd)


@pytest.mark.parametrize("norm", ["Linf", "L2"])
def test_random_starts_fill_the_ball(norm: str) -> None:
    x = torch.full((400, 1, 2, 1), 0.5)
    delta = (PGD(0.2, norm).start(x, rng()) - x).flatten(1)
    radius = delta.abs().amax(1) if norm == "Linf" else delta.norm(dim=1)
    assert radius.max() <= 0.2 + 1e-6
    # uniform in two dimensions: half of the mass lies beyond 1 / sqrt(2) of the radius
    assert abs((radius > 0.2 / 2**0.5).float().mean() - 0.5) < 0.1
    assert (delta.mean(0).abs() < 0.02).all()


def test_step_sizes() -> None:
    assert PGD("8/255", steps=10).step_size == pytest.approx(2.5 * 8 / 255 / 10)
    assert PGD("4/255", steps=7, relative_step=1.25).step_size == pytest.approx(1.25 * 4 / 255 / 7)
    assert PGD(0.1, step_size="2/255", relative_step=9.0).step_size == pytest.approx(2 / 255)


# The harness must not believe an attack. These are not registered.


@dataclass
class Dishonest(Attack):
    """Returns whatever `result` makes of the images."""

    result: Callable[[Tensor], Tensor] = Tensor.clone

    def perturb(self, model: nn.Module, x: Tensor, y: Tensor, generator: torch.Generator) -> Tensor:
        return self.result(x)


@pytest.mark.parametrize("norm", ["Linf", "L2"])
@pytest.mark.parametrize(
    "result",
    [
        lambda x: x + torch.where(x < 0.5, 0.2, -0.2),
        lambda x: torch.cat([x[:-1], x[-1:].roll(1, -1)]),
        lambda x: x - 0.01,
        lambda x: x + 0.01,
        lambda x: x.index_fill(0, torch.tensor([3]), float("nan")),
        lambda x: x[:, :1],
        lambda x: x[:-1],
    ],
    ids=["far", "one_far", "below_0", "above_1", "nan", "channels", "images"],
)
def test_the_harness_refuses_what_no_attack_may_return(norm: str, result: Callable[[Tensor], Tensor]) -> None:
    model = network().train()
    with pytest.raises(ValueError, match=r"Dishonest (left|returned shape)"):
        Dishonest(0.1, norm, result=result)(model, *batch(), rng())
    assert all(module.training for module in model.modules())


def test_the_model_comes_back_as_it_was_after_an_error() -> None:
    def fail(x: Tensor) -> Tensor:
        raise RuntimeError("out of memory")

    model = network().train()
    with pytest.raises(RuntimeError, match="out of memory"):
        Dishonest(0.1, bn_mode="train", result=fail)(model, *batch(), rng())
    assert all(module.training for module in model.modules())
    assert all(p.requires_grad for p in model.parameters())
    assert (model[1].momentum, model[4].momentum) == (0.1, None)


def test_the_harness_accepts_the_very_border() -> None:
    x, y = batch()
    for result in (Tensor.clone, lambda x: (x + 0.1).clamp(0, 1)):
        Dishonest(0.1, result=result)(network(), x, y, rng())


@pytest.mark.parametrize(
    ("build", "said"),
    [
        (lambda: PGD(8), "did you mean 8/255"),
        (lambda: PGD("8"), "did you mean 8/255"),
        (lambda: PGD("eight"), "eps='eight' is not a number"),
        (lambda: PGD(-0.1), "eps=-0.1 is out of range"),
        (lambda: PGD(float("nan")), "eps=nan is out of range"),
        (lambda: PGD(0.1, "L1"), "choose from Linf, L2"),
        (lambda: PGD(0.1, steps=0), "steps=0 is out of range"),
        (lambda: PGD(0.1, restarts=0), "restarts=0 is out of range"),
        (lambda: PGD(0.1, step_size=-1), "step_size=-1 is out of range"),
        (lambda: PGD(0.1, bn_mode="test"), "choose eval or train"),
    ],
)
def test_settings_without_a_sense_are_refused(build: Callable[[], Attack], said: str) -> None:
    with pytest.raises(UserError, match=said.replace(".", r"\.")):
        build()


def test_an_l2_ball_may_be_larger_than_one() -> None:
    assert ThreatModel("L2", 2.5).eps == 2.5
