"""Carlini and Wagner's attack against models whose nearest misclassified image is known."""

import pytest
import torch
from tiny import rng
from torch import Tensor, nn

from robcomp.attacks.base import norms
from robcomp.attacks.cw import CW, CWMargin
from robcomp.attacks.pgd import PGD
from robcomp.errors import UserError

SHAPE, PIXELS = (3, 4, 4), 48
QUICK = {"lr": 0.05, "steps": 60}


class Linear(nn.Module):
    """Logits W x + b on flattened images, equal at grey; counts the images it has seen."""

    def __init__(self, classes: int, scale: float = 1.0) -> None:
        super().__init__()
        self.w = nn.Parameter(scale * torch.randn(classes, PIXELS, generator=rng(1)))
        self.images = 0

    def forward(self, x: Tensor) -> Tensor:
        self.images += len(x)
        return (x.flatten(1) - 0.5) @ self.w.T


def images(count: int, spread: float = 0.2) -> Tensor:
    return (0.5 + spread * (torch.rand(count, *SHAPE, generator=rng(2)) - 0.5)).clamp(0, 1)


def prediction(model: nn.Module, x: Tensor) -> Tensor:
    with torch.no_grad():
        return model(x).argmax(1)


def exact_distances(model: Linear, x: Tensor, y: Tensor) -> Tensor:
    """The least L2 distance to the boundary with another class, far from the bounds of the pixels: [N]."""
    w, z = model.w.detach(), model(x).detach()
    across = (w[None] - w[y][:, None]).norm(dim=2)
    return ((z.gather(1, y[:, None]) - z) / across).nan_to_num(torch.inf).amin(1)


@pytest.mark.slow
@pytest.mark.parametrize("classes", [2, 10])
@pytest.mark.parametrize("scale", [0.1, 10.0])
def test_linear_models_are_attacked_at_the_exact_distance(classes: int, scale: float) -> None:
    """c has to differ by orders of magnitude between these scales. Of ten classes the nearest need not be likeliest."""
    model, x = Linear(classes, scale), images(20)
    y = prediction(model, x)
    x_adv, distance = CW(0.1, steps=300, lr=0.003, searches=12).find(model, x, y, rng())
    exact = exact_distances(model, x, y)
    assert torch.allclose(norms(x_adv - x, "L2"), distance)
    assert (prediction(model, x_adv) != y).all()
    assert (distance >= exact * (1 - 1e-4)).all()
    assert (distance / exact).median() <= 1.01
    if classes == 2:
        far = exact > 0.015  # within fewer strides of Adam it overshoots
        assert far.sum() > 10
        assert (distance <= exact * 1.05)[far].all()


def test_pixels_at_the_bounds_can_move() -> None:
    model, x = Linear(3), images(20, spread=2.5)
    assert ((x == 0) | (x == 1)).float().mean() > 0.3
    y = prediction(model, x)
    x_adv, distance = CW(0.1, lr=0.1).find(model, x, y, rng())
    assert torch.isfinite(x_adv).all()
    assert 0 <= x_adv.min() <= x_adv.max() <= 1
    assert distance.isfinite().all()
    assert (prediction(model, x_adv) != y).all()


def test_images_that_are_near_enough_stop_at_once() -> None:
    model, x = Linear(10), images(20)
    y = prediction(model, x)
    model.images = 0
    _, distance = CW(0.1, **QUICK, searches=4).find(model, x, y, rng())
    everything, model.images = model.images, 0
    assert everything == 20 * (1 + 60 * 4)
    broken = prediction(model, CW(distance.median().item(), **QUICK, searches=4)(model, x, y, rng())) != y
    assert torch.equal(broken, distance <= distance.median())
    assert model.images < 0.9 * everything


def test_misclassified_images_are_at_distance_zero() -> None:
    model, x = Linear(3), images(6)
    y = prediction(model, x)
    y[::2] = (y[::2] + 1) % 3
    x_adv, distance = CW(0.1, **QUICK).find(model, x, y, rng())
    assert torch.equal(distance == 0, torch.tensor([True, False] * 3))
    assert torch.equal(x_adv[::2], x[::2])
    model.images = 0
    assert torch.equal(CW(0.1).find(model, x[::2], y[::2], rng())[0], x[::2])
    assert model.images == 3


def test_a_constant_model_is_out_of_reach() -> None:
    x = images(3)
    x_adv, distance = CW(0.1, steps=3).find(Linear(3, scale=0), x, torch.zeros(3, dtype=torch.int64), rng())
    assert torch.equal(x_adv, x)
    assert distance.isinf().all()


def test_an_image_does_not_depend_on_its_batch() -> None:
    model, x = Linear(4), images(4)
    y = prediction(model, x)
    together, distances = CW(0.1, **QUICK).find(model, x, y, rng())
    for i in range(4):
        alone, distance = CW(0.1, **QUICK).find(model, x[i : i + 1], y[i : i + 1], rng())
        assert torch.allclose(alone[0], together[i], atol=1e-3)
        assert torch.allclose(distance[0], distances[i], rtol=1e-3)


def test_confidence_asks_for_a_margin() -> None:
    model, x = Linear(4), images(10)
    y = prediction(model, x)
    x_adv, distance = CW(0.1, **QUICK, confidence=2.0).find(model, x, y, rng())
    z = model(x_adv).detach()
    other = z.scatter(1, y[:, None], -torch.inf).amax(1)
    assert (other - z.gather(1, y[:, None])[:, 0] >= 2.0 - 1e-5).all()
    assert (distance > CW(0.1, **QUICK).find(model, x, y, rng())[1]).all()


@pytest.mark.parametrize("target", ["least_likely", "second", "random", "+1"])
def test_a_target_draws_images_to_its_class(target: str) -> None:
    model, x = Linear(3), images(20)
    y = prediction(model, x)
    x_adv, distance = CW(0.1, **QUICK, target=target).find(model, x, y, rng())
    assert (prediction(model, x_adv) != y).all()
    assert (distance >= exact_distances(model, x, y) * (1 - 1e-4)).all()
    if target == "second":
        assert torch.equal(prediction(model, x_adv), model(x).detach().topk(2).indices[:, 1])


@pytest.mark.parametrize("norm", ["Linf", "L2"])
def test_cw_margin_is_pgd_on_the_margin(norm: str) -> None:
    model, x = Linear(10), images(8)
    y = prediction(model, x)
    settings = {"eps": 0.05, "norm": norm, "steps": 5}
    attack = CWMargin(**settings)
    assert torch.equal(attack(model, x, y, rng()), PGD(**settings, loss="margin")(model, x, y, rng()))
    assert attack.settings()["name"] == "cw_margin"


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"norm": "Linf"}, "norm='Linf' is not for cw, which minimises L2; cw_margin"),
        ({"steps": 0}, "steps=0 is out of range"),
        ({"searches": 0}, "searches=0 is out of range"),
        ({"lr": 0}, "lr=0 is out of range"),
        ({"initial_c": 0}, "initial_c=0"),
        ({"confidence": -1}, "confidence=-1 is out of range"),
        ({"target": "nearest"}, "target='nearest' is not a rule"),
    ],
)
def test_settings_without_a_sense_are_refused(settings: dict, said: str) -> None:
    with pytest.raises(UserError, match=said):
        CW(0.1, **settings)


def test_cost_counts_passes() -> None:
    assert CW(0.1, steps=10, searches=3).cost == 1 + 2 * 10 * 3
