"""The final weights of ADMM pruning, and the compressor that keeps zeros at zero."""

import math
from pathlib import Path

import pytest
import torch
from tiny import Watched, convolutional, rng, train_stage, train_state

from robcomp.errors import UserError
from robcomp.models.parameterisation import weights
from robcomp.trainers.compressors.admm import ADMMCompressor
from robcomp.trainers.compressors.fixed_support import FixedSupport
from robcomp.trainers.compressors.layer_budgets import LayerBudgets
from robcomp.trainers.objectives import Natural
from robcomp.trainers.stage import Schedule, Stage
from robcomp.trainers.state import TrainState

SGD = Schedule(2, lr=0.1, momentum=0.9, weight_decay=0.01)


@pytest.mark.parametrize("scheme", ["irregular", "filter", "column", "bn_filter"])
def test_hard_pruning_counts_are_exact_with_ties(scheme: str) -> None:
    model = convolutional()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.where(parameter < 0, -0.5, 0.5))
    admm, state = ADMMCompressor(LayerBudgets(0.6, scheme)), train_state(model, epochs=1)
    state.compression = admm.start(state)
    counts = admm.budgets.counts(model)
    assert counts
    admm.finalise(state)
    for name, count in counts.items():
        matrix = model.get_submodule(name).weight.flatten(1)
        kept = {"irregular": matrix.flatten(), "column": matrix.any(0)}.get(scheme, matrix.any(1))
        assert kept.count_nonzero() == count
        assert (matrix.count_nonzero(1) == matrix.shape[1]).sum() == count or scheme in ("irregular", "column")
        if scheme == "bn_filter":
            assert model[2].bn.weight.count_nonzero() == count
    total = sum(int(weight.count_nonzero()) for weight in weights(model).values())
    assert sum(weight.numel() for weight in weights(model).values()) == 339
    assert total == 203 if scheme == "irregular" else total <= 203


@pytest.mark.parametrize("scheme", ["irregular", "filter", "column", "bn_filter"])
def test_a_look_at_the_final_weights_touches_nothing(scheme: str) -> None:
    model = convolutional()
    admm, state = ADMMCompressor(LayerBudgets(0.6, scheme)), train_state(model, epochs=1)
    state.compression = admm.start(state)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    first, second = admm.compressed(state), admm.compressed(state)
    assert all(torch.equal(p, before[name]) for name, p in model.named_parameters())
    assert all(torch.equal(value, second[name]) for name, value in first.items())
    assert set(first) == set(weights(model)) | ({"2.bn.weight"} if scheme == "bn_filter" else set())


def test_support_is_kept_in_weights_and_scales(tmp_path: Path) -> None:
    model = convolutional()
    state = train_state(model, epochs=2)
    ADMMCompressor(LayerBudgets(1.0, "bn_filter", {"2.conv": 0.4})).finalise(state)
    with torch.no_grad():
        model[6].weight[:, :20] = 0
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    names = ("0.weight", "2.conv.weight", "2.bn.weight", "6.weight")
    seen = []

    def look(state: TrainState) -> None:
        seen.append({name: state.model.get_parameter(name).detach().clone() for name in names})

    after = train_stage(Stage("retrain", Natural(), SGD, Watched(FixedSupport(), look)), state, tmp_path).tensors
    assert len(seen) == 1 + state.total_steps
    for name in names:
        assert not any(held[name][before[name] == 0].any() for held in seen), name
        assert torch.equal(after[name] != 0, before[name] != 0), name
        assert not torch.equal(after[name], before[name]), name
    shift = "2.bn.bias"
    assert (after[shift] != before[shift]).any(), "shifts are no part of the support"


def test_a_given_support_cuts_the_initial_values(tmp_path: Path) -> None:
    state = train_state(convolutional(), epochs=2)
    names = [*weights(state.model), "2.bn.weight"]
    masks = {n: torch.rand(p.shape, generator=rng(4)) < 0.5 for n, p in state.model.named_parameters() if n in names}
    state.support, keep = masks, FixedSupport()
    state.compression = keep.start(state)
    initial = dict(convolutional().named_parameters())
    for name, mask in masks.items():
        assert torch.equal(state.model.get_parameter(name), torch.where(mask, initial[name], 0.0))
    with torch.no_grad():
        for parameter in state.model.parameters():
            parameter += 1  # as an average of weights might be
    for name, value in keep.compressed(state).items():
        assert torch.equal(value, torch.where(masks[name], initial[name] + 1, 0.0))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"rho": -0.1}, "method.rho=-0.1 is out of range; at least 0"),
        ({"rho_growth": 0.9}, "method.rho_growth=0.9 is out of range; at least 1"),
        ({"periods": 0}, "method.periods=0 is out of range; at least 1"),
        ({"interval": 0.0}, "method.interval=0 is out of range; more than 0"),
        ({"interval": math.nan}, "method.interval=nan"),
    ],
)
def test_settings_out_of_range_are_refused(settings: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        ADMMCompressor(LayerBudgets(0.1), **settings)
