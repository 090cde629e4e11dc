"""W = U V + C: exact at the start, as many non-zeros, and built once where it is used often."""

from copy import deepcopy
from pathlib import Path

import pytest
import torch
from tiny import train_stage, train_state
from torch import nn
from torch.nn import functional as F

from robcomp.attacks.pgd import PGD
from robcomp.models.layers import Factored
from robcomp.models.lenet import LeNetConfig
from robcomp.models.parameterisation import (
    Dense,
    FactoredForm,
    dense_weight_count,
    effective_weight,
    effective_weights,
    form_of,
    from_spec,
    parameterise,
    to_spec,
    weight_layers,
    weights,
)
from robcomp.models.resnet import ResNetConfig
from robcomp.trainers.compressors.sparsity import GlobalL0
from robcomp.trainers.loop.graphs import make_gradients
from robcomp.trainers.objectives import Adversarial
from robcomp.trainers.stage import Schedule, Stage

WIDE, TALL, SQUARE = nn.Conv2d(4, 6, 3, 2, 1, bias=False), nn.Conv2d(2, 30, 3, padding=1), nn.Linear(7, 7)
LAYERS = {"wide": (WIDE, False), "tall": (TALL, True), "square": (SQUARE, True), "linear": (nn.Linear(20, 5), False)}


def sparse(layer: nn.Module, density: float = 0.2) -> nn.Module:
    """A copy of `layer` with that fraction of its weights."""
    torch.manual_seed(1)
    copy = deepcopy(layer)
    with torch.no_grad():
        copy.weight.mul_(torch.rand(copy.weight.shape) < density)
    return copy


def nonzero(layer: Factored) -> int:
    return sum(int(t.count_nonzero()) for t in (layer.U, layer.V, layer.C))


@pytest.mark.parametrize("identity", [True, False])
@pytest.mark.parametrize(("layer", "square_v"), LAYERS.values(), ids=LAYERS)
def test_the_weight_is_kept_exactly(layer: nn.Module, square_v: bool, identity: bool) -> None:
    dense = sparse(layer)
    factored = Factored(dense, identity)
    out, inputs = dense.weight.flatten(1).shape
    rank = min(out, inputs)
    assert (factored.U.shape, factored.V.shape, factored.C.shape) == ((out, rank), (rank, inputs), (out, inputs))
    assert (factored.V.shape[0] == factored.V.shape[1]) == square_v
    assert torch.equal(factored.weight(), dense.weight)
    x = torch.randn(3, *([dense.in_features] if isinstance(dense, nn.Linear) else [dense.in_channels, 8, 8]))
    assert torch.equal(factored(x), dense(x))


@pytest.mark.parametrize(("layer", "square_v"), LAYERS.values(), ids=LAYERS)
def test_the_identity_costs_nothing_and_its_absence_one_entry_a_row_in_use(layer: nn.Module, square_v: bool) -> None:
    dense = sparse(layer, 0.05)
    matrix = dense.weight.flatten(1)
    used = int((matrix != 0).any(0 if square_v else 1).sum())
    assert 0 < used < min(matrix.shape)
    assert nonzero(Factored(dense, True)) == matrix.count_nonzero()
    assert nonzero(Factored(dense, False)) == matrix.count_nonzero() + used


@pytest.mark.parametrize(("layer", "square_v"), LAYERS.values(), ids=LAYERS)
def test_gradients_at_the_start(layer: nn.Module, square_v: bool) -> None:
    """With the identity the factor that holds W gets the gradient G of a dense weight, as does C; the other one, G
    times what W is."""
    dense = sparse(layer)
    x = torch.randn(4, *([dense.in_features] if isinstance(dense, nn.Linear) else [dense.in_channels, 8, 8]))
    (dense(x) ** 2).sum().backward()
    factored = Factored(dense, True)
    (factored(x) ** 2).sum().backward()
    G, W = dense.weight.grad.flatten(1), dense.weight.detach().flatten(1)
    held, other, expected = (factored.U, factored.V, W.T @ G) if square_v else (factored.V, factored.U, G @ W.T)
    assert torch.equal(held.grad, factored.C.grad)
    for got, wanted in ((held.grad, G), (other.grad, expected)):
        assert torch.allclose(got, wanted, rtol=1e-4, atol=1e-4 * G.abs().max().item())


@pytest.mark.parametrize("identity", [True, False])
@pytest.mark.parametrize(
    "model",
    [LeNetConfig(width=0.1).build((1, 16, 16), 3), ResNetConfig(width=0.05).build((3, 16, 16), 3)],
    ids=["lenet", "resnet"],
)
def test_a_network_computes_the_same_in_either_form(model: nn.Module, identity: bool) -> None:
    model.eval()
    x = torch.rand(2, 1 if hasattr(model, "conv1") else 3, 16, 16)
    copy = deepcopy(model)
    before, count = model(x), dense_weight_count(model)
    parameterise(copy, FactoredForm(identity))
    assert torch.equal(copy(x), before)
    assert form_of(copy) == FactoredForm(identity)
    assert dense_weight_count(copy) == count
    assert len(weights(copy)) == 3 * len(weights(model))
    parameterise(copy, FactoredForm(identity))  # already so: nothing to do
    with pytest.raises(ValueError, match="only a dense network"):
        parameterise(copy, Dense())


@pytest.mark.parametrize("form", [Dense(), FactoredForm(True), FactoredForm(False)])
def test_a_form_survives_its_specification(form: Dense | FactoredForm) -> None:
    assert from_spec(to_spec(form)) == form


def test_grouped_convolutions_stay_dense() -> None:
    model = nn.Sequential(nn.Conv2d(4, 8, 3, groups=2), nn.Conv2d(8, 4, 3))
    parameterise(model, FactoredForm())
    assert isinstance(model[0], nn.Conv2d)
    assert isinstance(model[1], Factored)


@pytest.fixture
def built(monkeypatch: pytest.MonkeyPatch) -> list[Factored]:
    """Each call of Factored.weight enters its layer here."""
    calls: list[Factored] = []
    original = Factored.weight
    monkeypatch.setattr(Factored, "weight", lambda layer: (calls.append(layer), original(layer))[1])
    return calls


def factored_lenet() -> nn.Module:
    torch.manual_seed(0)
    model = LeNetConfig(width=0.1).build((1, 16, 16), 3)
    parameterise(model, FactoredForm())
    with torch.no_grad():
        for tensor in weights(model).values():
            tensor += 0.02 * torch.randn(tensor.shape)
    return model


def test_effective_weights_are_built_once_and_give_the_same_gradients(built: list[Factored]) -> None:
    model, x, y = factored_lenet(), torch.rand(2, 6, 1, 16, 16), torch.tensor([0, 1, 2, 0, 1, 2])
    F.cross_entropy(model(x[0]), y).backward()
    F.cross_entropy(model(x[1]), y).backward()
    separately = [p.grad.clone() for p in model.parameters()]
    assert len(built) == 8
    built.clear()
    model.zero_grad()
    with effective_weights(model):
        (F.cross_entropy(model(x[0]), y) + F.cross_entropy(model(x[1]), y)).backward()
        assert effective_weight(model.conv1) is effective_weight(model.conv1)
    assert [id(layer) for layer in built] == [id(layer) for layer in weight_layers(model).values()]
    for got, expected in zip((p.grad for p in model.parameters()), separately, strict=True):
        assert torch.allclose(got, expected, rtol=1e-4, atol=1e-6)


def test_effective_weights_are_forgotten_afterwards_and_after_an_error() -> None:
    model, x = factored_lenet(), torch.rand(1, 1, 16, 16)
    before = model(x)
    with pytest.raises(RuntimeError), effective_weights(model):
        raise RuntimeError
    with torch.no_grad():
        model.fc2.C += 1
    assert not torch.allclose(model(x), before)


def test_a_whole_adversarial_step_builds_each_weight_once(built: list[Factored]) -> None:
    state = train_state(factored_lenet())
    x, y = state.batch()
    built.clear()
    make_gradients(Adversarial(PGD(0.1, steps=3)), state)(x, y)
    assert len(built) == 4


def test_the_budget_counts_dense_weights_and_spans_all_factors(tmp_path: Path) -> None:
    state = train_state(factored_lenet(), batch=20, epochs=1)
    k = int(0.1 * dense_weight_count(state.model))
    train_stage(Stage("factored", Adversarial(PGD(0.1, steps=1)), Schedule(1, 0.05), GlobalL0(0.1)), state, tmp_path)
    stored = torch.cat([w.detach().flatten() for w in state.weights])
    assert stored.numel() > 2 * dense_weight_count(state.model)
    assert stored.count_nonzero() == k
