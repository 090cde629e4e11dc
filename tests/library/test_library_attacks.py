"""`rc.attacks`: every attack on what users have, as one call; and what cannot be attacked gets one sentence."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from tiny import CLASSES, images, rng
from torch import Tensor, nn

import robcomp as rc
from robcomp.attacks import ATTACKS
from robcomp.attacks.base import Attack

QUICK: dict[str, dict[str, Any]] = {
    "cw": {"steps": 3, "searches": 2},
    "square": {"queries": 20},
    "wrm": {"gamma": 0.3, "steps": 2},
    "fgsm": {},
}


def network(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(1, 3, 5, 3), nn.BatchNorm2d(3), nn.ReLU(), nn.Dropout(), nn.Flatten(), nn.Linear(48, CLASSES)
    )


def batch(count: int = 6) -> tuple[Tensor, Tensor]:
    split = images(count, 4)
    return split.images.float() / 255, split.labels


@pytest.fixture(params=list(ATTACKS))
def attack(request: pytest.FixtureRequest) -> Attack:
    """Each registered attack, by the name under which the library has it."""
    cls = getattr(rc.attacks, ATTACKS[request.param].__name__)
    assert cls is ATTACKS[request.param]
    return cls("8/255", **QUICK.get(request.param, {"steps": 3}))


def test_every_registered_attack_is_exported() -> None:
    assert {cls.__name__ for _, cls in ATTACKS.items()} <= set(rc.attacks.__all__)


def test_eps_is_the_first_argument_as_text_or_number() -> None:
    assert rc.attacks.PGD("8/255", steps=20).eps == rc.attacks.PGD(8 / 255).eps == 8 / 255


def test_the_seed_decides_and_stands_for_a_generator(attack: Attack) -> None:
    model, (x, y) = network(), batch()
    first = attack(model, x, y, seed=3)
    assert torch.equal(attack(model, x, y, seed=3), first)
    assert torch.equal(attack(model, x, y), attack(model, x, y, seed=0))
    torch.manual_seed(5)
    state = torch.get_rng_state()
    attack(model, x, y, rng(7))
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(attack(model, x, y, generator=rng(7)), attack(model, x, y, rng(7)))


def test_a_network_in_training_comes_back_as_it_was(attack: Attack) -> None:
    model, (x, y) = network().train(), batch()
    model[0].weight.requires_grad_(False)
    model[5].weight.grad = torch.ones_like(model[5].weight)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    attack(model, x, y, seed=0)
    assert all(module.training for module in model.modules())
    assert not model[0].weight.requires_grad
    assert torch.equal(model[5].weight.grad, torch.ones_like(model[5].weight))
    assert all(p.grad is None for p in (model[0].weight, model[0].bias, model[5].bias))
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


class Named(nn.Module):
    """Logits under a name, as a dict or an object has them."""

    def __init__(self, wrap: Callable[..., Any]) -> None:
        super().__init__()
        self.net, self.wrap = network(), wrap

    def forward(self, x: Tensor) -> Any:
        return self.wrap(logits=self.net(x))


def test_kinds_of_networks_and_images_that_mean_the_same_give_the_same(attack: Attack) -> None:
    model, (x, y) = network().eval(), batch()
    wanted = attack(model, x, y, seed=1)
    bytes_ = images(6, 4).images
    for other, given, labels in [
        (lambda z: model(z), x, y),
        (model, x.numpy(), y.numpy()),
        (model, bytes_, y.int()),
        (model, bytes_.numpy(), y.tolist()),
        (Named(dict).eval(), x, y.to(torch.uint8)),
        (Named(SimpleNamespace), x, y),
    ]:
        assert torch.equal(attack(other, given, labels, seed=1), wanted)
    double = attack(network().double(), x.double(), y, seed=1)
    assert double.dtype == torch.float64
    assert double.shape == x.shape
    assert attack(network().double(), x, y, seed=1).dtype == torch.float32
    assert attack(network().half(), x.half(), y, seed=1).isfinite().all()


class Returns(nn.Module):
    def __init__(self, what: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.net, self.what = network().eval(), what

    def forward(self, x: Tensor) -> Any:
        return self.what(self.net(x))


def give(x: Any = None, y: Any = None, model: Any = None, **more: Any) -> dict[str, Any]:
    images_, labels = batch()
    return {"model": model or network(), "x": images_ if x is None else x, "y": labels if y is None else y, **more}


X, Y = batch()
WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "normalised": (give(X * 4 - 2), r"x lies in \[-2, .*normalisation belongs into the network"),
    "grey levels as floats": (give(X * 255), "divide grey levels by 255"),
    "nan": (give(X * torch.nan), "x holds NaN or infinity"),
    "whole numbers": (give((X * 255).long()), r"x is torch\.int64; give uint8"),
    "grey without channels": (give(X[:, 0]), r"x\[:, None\] for grey images"),
    "channels last": (give(X.permute(0, 2, 3, 1)), r"channels last; .*x\.permute\(0, 3, 1, 2\)"),
    "one image": (give(X[0], Y[:1]), r"x\[None\] for a single one"),
    "flat": (give(X.flatten(1)), r"x has the shape \[6, 256\]; give images \[N, C, H, W\]"),
    "a path": (give("photos"), "x holds strings; give images"),
    "other channels": (give(torch.rand(6, 3, 16, 16)), r"cannot take images \[6, 3, 16, 16\] .*expected input"),
    "float labels": (give(y=Y.float()), r"y is torch\.float32; give whole class numbers"),
    "one-hot": (give(y=nn.functional.one_hot(Y)), r"y has the shape \[6, 3\].*y\.argmax\(1\)"),
    "a column": (give(y=Y[:, None]), r"y\[:, 0\]"),
    "too few labels": (give(y=Y[:4]), r"y has the shape \[4\] for 6 images"),
    "names": (give(y=["ash"] * 6), r"y holds strings; give class numbers"),
    "names in an array": (give(y=np.array(["ash"] * 6)), "y holds strings"),
    "negative": (give(y=Y - 1), "y holds -1; classes are numbered from 0 on"),
    "too high": (give(y=Y + 1), "the labels go up to 3 and the network has 3 classes, 0 to 2"),
    "one logit": (give(y=Y % 2, model=Returns(lambda z: z[:, :1])), "one number an image .*torch.stack"),
    "one number": (give(y=Y % 2, model=Returns(lambda z: z[:, 0])), "one number an image"),
    "a tuple": (give(model=Returns(lambda z: (z, z))), r"returns a tuple; .*lambda x: model\(x\)\[0\]"),
    "a dict": (give(model=Returns(lambda z: {"out": z})), r"returns a dict of \['out'\]"),
    "decisions": (give(model=Returns(lambda z: z.argmax(1))), r"returns torch\.int64; its logits"),
    "a picture": (give(model=Returns(lambda z: z[:, :, None])), r"returns shape \[6, 3, 1\] for 6 images"),
    "an array": (give(model=lambda x: np.zeros((len(x), 3))), "returns a ndarray"),
    "a bug": (give(model=lambda x: x.nothing), "cannot take images .*AttributeError: 'Tensor' object has no attribute"),
    "a state dict": (give(model=network().state_dict()), "of type OrderedDict; .*a state dict has to be loaded"),
    "a data set": (give(torch.utils.data.TensorDataset(X, Y)), "x is of type TensorDataset and no array of numbers"),
    "a loader": (give(torch.utils.data.DataLoader(Y)), "x is of type DataLoader and no array of numbers"),
    "ragged lists": (give([[1.0], [1.0, 2.0]]), "x is of type list and no array of numbers"),
    "meta images": (give(X.to("meta")), "x is on the meta device"),
    "a class": (give(model=nn.Linear), "the network is the class Linear"),
    "no network": (give(model="resnet18"), "the network is of type str"),
    "a positional seed": (give(generator=0), "0 is no torch.Generator; give a seed by its name: seed=0"),
    "both": (give(generator=rng(), seed=0), "a generator and a seed are both given"),
    "a seed in words": (give(seed="zero"), "seed='zero' is not a whole number"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_cannot_be_attacked_gets_one_sentence(case: str) -> None:
    given, sentence = WRONG[case]
    with pytest.raises(rc.UserError, match=sentence) as caught:
        rc.attacks.PGD(0.1, steps=1)(**given)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"steps": 2.5}, r"^steps=2\.5 has the wrong type; a whole number is allowed"),
        ({"steps": "20"}, "^steps='20' has the wrong type"),
        ({"steps": True}, "^steps=True has the wrong type"),
        ({"random_start": 1}, "^random_start=1 has the wrong type; true or false"),
        ({"momentum": "1"}, "^momentum='1' has the wrong type; a number"),
        ({"norm": 2}, "^norm=2 has the wrong type; a string"),
        ({"step_size": "small"}, "^step_size='small' is not a number"),
    ],
)
def test_settings_of_a_wrong_type_get_a_sentence(settings: dict[str, Any], sentence: str) -> None:
    with pytest.raises(rc.UserError, match=sentence):
        rc.attacks.PGD(0.1, **settings)
    assert rc.attacks.PGD(0.1, steps=np.int64(3)).settings() == rc.attacks.PGD(0.1, steps=3).settings()


def test_targets_past_the_classes_get_a_sentence() -> None:
    with pytest.raises(rc.UserError, match="targets=100"):
        rc.attacks.APGDT(0.1, targets=100)(network(), *batch())


def test_distances_take_the_same() -> None:
    model, (x, y) = network(), batch()
    found = rc.attacks.FAB(0.1, steps=3).find(model, images(6, 4).images.numpy(), y.tolist(), seed=1)
    wanted = rc.attacks.FAB(0.1, steps=3).find(model, x, y, seed=1)
    assert all(torch.equal(a, b) for a, b in zip(found, wanted, strict=True))
    with pytest.raises(rc.UserError, match="class numbers"):
        rc.attacks.FAB(0.1).find(model, x, y.float())
