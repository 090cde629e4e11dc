"""A defence of the zoo whose accuracy comes out more than 5 points too high is flagged; an honest network is not."""

import copy
import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
import torch
from tiny import CLASSES, SHAPE, images, rng
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import prune

from robcomp.attacks.pgd import PGD
from robcomp.data import Split, to_float
from robcomp.evaluation import verdict
from robcomp.library.suites import chosen_suite

pytestmark = pytest.mark.slow

EPS, PIXELS = 0.06, 256
SUITE = chosen_suite("quick", EPS, None, None, 40)
LENGTHS = {"STEPS": verdict.STEPS, "QUERIES": verdict.QUERIES}  # a user's, which tests make shorter


def scripts_module(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, Path(__file__).parents[2] / "scripts" / f"{name}.py")
    module = sys.modules[name] = importlib.util.module_from_spec(spec)  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


zoo = scripts_module("defences")


def faint(count: int, seed: int) -> Split:
    """`tiny.images` with a quarter of the contrast and a fine pattern for each class, which natural training relies on.

    PGD finds the pattern's opposite at EPS, and Square needs thousands of queries for it.
    """
    split = images(count, seed)
    signs = 2 * torch.randint(0, 2, (CLASSES, *SHAPE), generator=rng(5)) - 1
    return Split((split.images * 0.25 + 96 + 8 * signs[split.labels]).to(torch.uint8), split.labels)


def layers(*widths: int, between: Callable[[int], nn.Module] | None = None) -> Callable[[int], list[nn.Module]]:
    """Linear layers from the pixels to the classes; `between` makes what follows a hidden one of that width."""

    def build(channels: int) -> list[nn.Module]:
        sizes = [channels * PIXELS, *widths]
        hidden = [nn.Sequential(nn.Flatten(), nn.Linear(i, o)) for i, o in zip(sizes, widths, strict=False)]
        if between:
            hidden = [nn.Sequential(layer, between(width)) for layer, width in zip(hidden, widths, strict=True)]
        return [*hidden, nn.Linear(sizes[-1], CLASSES)]

    return build


@pytest.fixture(scope="module")
def workshop() -> zoo.Workshop:
    made = zoo.Workshop(nn.Identity(), faint(240, 1), faint(60, 9), layers(48), steps=60, batch=240)
    made.network = made.member(0)
    return made


WELL_ATTACKED = {  # on these images their accuracy is at most a few points too high
    "median input",
    "thermometer encoding",
    "random resizing",
    "noise off the grid",
    "random noise",
    "logits x 1000",
    "softmax output",
    "softmax x 10",
    "random number format",
    "random choice of 2",
    "random choice of 5",
    "defensive distillation",
    "winners take all",
    "stochastic activation pruning",
}


SLOW = {"majority under noise", "majority of 5", "jpeg input", "nearest neighbours", "nearest training image"}


@pytest.fixture(autouse=True)
def as_a_user(hasty_verdict: None, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, length in LENGTHS.items():
        monkeypatch.setattr(verdict, name, length)


@pytest.mark.parametrize("name", [name for name in zoo.DEFENCES if name not in WELL_ATTACKED | SLOW])
def test_a_defence_whose_accuracy_is_too_high_is_flagged(workshop: zoo.Workshop, name: str) -> None:
    judged = zoo.judge(zoo.DEFENCES[name](workshop), workshop.test, SUITE, queries=200)
    assert judged.gap > zoo.GAP
    assert judged.flags, judged


HONEST: dict[str, Callable[[zoo.Workshop], nn.Module]] = {
    "natural": lambda w: w.network,
    "adversarial, half of eps": lambda w: adversarial(w, "half", w.fresh(), EPS / 2),
    "adversarial, eps": lambda w: adversarial(w, "robust", w.fresh(), EPS),
    "TRADES": lambda w: trades(w),
    "batch norm": lambda w: adversarial(w, "bn", zoo.Layers(layers(48, between=nn.BatchNorm1d)(1)), EPS / 2),
    "dropout": lambda w: adversarial(w, "dropout", zoo.Layers(layers(48, between=lambda n: nn.Dropout(0.3))(1)), EPS),
    "deeper": lambda w: adversarial(w, "deeper", zoo.Layers(layers(32, 32, 32)(1)), EPS / 2),
    "wider": lambda w: w.trained("wider", zoo.Layers(layers(256)(1))),
    "pruned to 10 %": lambda w: pruned(w, 0.1),
    "pruned to 2 %": lambda w: pruned(w, 0.02),
    "weights of 4 bits": lambda w: changed(
        robust(w), lambda weight: zoo.rounded(7 / float(weight.abs().max()))(weight)
    ),
    "low rank": lambda w: changed(robust(w), low_rank),
    "centred logits": lambda w: zoo.Wrapped(robust(w), after=lambda z: z - z.mean(1, keepdim=True)),
    "tanh": lambda w: adversarial(w, "tanh", w.fresh(activation=torch.tanh), EPS / 2),
    "softplus": lambda w: adversarial(w, "softplus", w.fresh(activation=F.softplus), EPS / 2),
    "logits x 3": lambda w: zoo.Wrapped(w.member(1), after=lambda z: 3 * z),
    "normalised features": lambda w: adversarial(
        w, "normalised", w.fresh(activation=lambda z: 5 * F.normalize(F.relu(z))), EPS / 2
    ),
    "average of two": lambda w: zoo.Members([robust(w), w.member(1)], zoo.mean),
    "double precision": lambda w: zoo.Wrapped(copy.deepcopy(robust(w)).double(), Tensor.double, Tensor.float),
}


def adversarial(w: zoo.Workshop, name: str, model: nn.Module, eps: float) -> nn.Module:
    return w.trained(name, model, eps)


def robust(w: zoo.Workshop) -> nn.Module:
    return adversarial(w, "robust", w.fresh(), EPS)


def trades(w: zoo.Workshop) -> nn.Module:
    """Clean cross-entropy, and 6 times the divergence of the attacked outputs from the clean ones."""
    model, random, x, y = w.fresh(seed=3), rng(), to_float(w.train.images), w.train.labels
    optimizer = torch.optim.Adam(model.parameters(), lr=w.lr)
    for _ in range(w.steps):
        attacked = PGD(EPS / 2, steps=4, loss="kl")(model, x, y, random)
        clean = model(x)
        apart = F.kl_div(model(attacked).log_softmax(1), clean.softmax(1), reduction="batchmean")
        optimizer.zero_grad()
        (F.cross_entropy(clean, y) + 6 * apart).backward()
        optimizer.step()
    return model.eval()


def changed(model: nn.Module, change: zoo.Function) -> nn.Module:
    """A copy whose weight matrices are `change` of the model's."""
    other = copy.deepcopy(model)
    for parameter in other.parameters():
        if parameter.dim() > 1:
            parameter.copy_(change(parameter))
    return other


def pruned(w: zoo.Workshop, density: float) -> nn.Module:
    """The robust network with its largest weights alone, trained again."""
    model = copy.deepcopy(robust(w)).requires_grad_(True)
    linear = [(module, "weight") for module in model.modules() if isinstance(module, nn.Linear)]
    prune.global_unstructured(linear, prune.L1Unstructured, amount=1 - density)
    adversarial(w, f"density {density}", model, EPS / 2)
    for module, name in linear:
        prune.remove(module, name)
    return model


def low_rank(weight: Tensor, rank: int = 2) -> Tensor:
    u, s, v = torch.linalg.svd(weight, full_matrices=False)
    return u[:, :rank] @ torch.diag(s[:rank]) @ v[:rank]


@pytest.mark.parametrize("name", HONEST)
def test_an_honest_network_is_flagged_only_where_its_accuracy_is_too_high(workshop: zoo.Workshop, name: str) -> None:
    model = HONEST[name](workshop)
    judged = zoo.judge(zoo.Defended(model, model), workshop.test, SUITE, queries=200)
    assert judged.clean > 0.6
    assert not judged.wrong(honest=True), judged
