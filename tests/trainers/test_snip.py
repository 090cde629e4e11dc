"""SNIP: its sensitivities against gradients computed here, exact counts, and the mask in training."""

import copy
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from rewiring_nets import channels_net
from tiny import CLASSES, Killed, Watched, clones, dataset, kill_at, rng, train_stage, train_state, two_layers
from torch import Tensor, nn
from torch.nn import functional as F

from robcomp.errors import UserError
from robcomp.models.base import Dropout
from robcomp.settings.compose import compose_config
from robcomp.trainers.compressors.snip import Snip, sensitivities
from robcomp.trainers.compressors.sparsity import MaskState
from robcomp.trainers.loop import stage_store
from robcomp.trainers.objectives import Natural
from robcomp.trainers.stage import Schedule, Stage
from robcomp.trainers.state import TrainState

RATIO = 0.1


def whole_set_saliency(model: nn.Module, x: Tensor, y: Tensor) -> list[Tensor]:
    """|dL/dc| at c = 1 for the network with weights c * w (equation 5), L the cross-entropy summed over x."""
    switches = {name: torch.ones_like(p, requires_grad=True) for name, p in model.named_parameters() if p.ndim > 1}
    parameters = {
        name: p.detach() * switches[name] if name in switches else p.detach() for name, p in model.named_parameters()
    }
    logits = torch.func.functional_call(model, parameters, (x,))
    loss = F.cross_entropy(logits, y, reduction="sum")
    return [g.abs() for g in torch.autograd.grad(loss, list(switches.values()))]


@pytest.mark.parametrize("batch", [8, 13, 40])
def test_sensitivity_is_the_gradient_of_the_switches(batch: int) -> None:
    """Of all 40 images, however they are batched; the crops and flips of training have no part in it."""
    state = train_state(two_layers(), batch=batch, pad=2, flip=True)
    x, y = state.data.train.images.float() / 255, state.data.train.labels
    expected = whole_set_saliency(copy.deepcopy(state.model), x, y)
    for got, wanted in zip(sensitivities(state, 1000), expected, strict=True):
        assert torch.allclose(got, wanted, rtol=1e-4, atol=1e-6)
        assert got.max() > 0.1


def test_batch_norm_sees_the_statistics_of_the_batch() -> None:
    state = train_state(channels_net(), batch=40)
    x, y = state.data.train.images.float() / 255, state.data.train.labels
    expected = whole_set_saliency(copy.deepcopy(state.model).train(), x, y)
    state.model.eval()
    for got, wanted in zip(sensitivities(state, 40), expected, strict=True):
        assert torch.allclose(got, wanted, rtol=1e-3, atol=1e-5)


def test_as_many_images_as_asked_for_and_others_for_another_seed(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Tensor] = []
    forward = TrainState.forward
    monkeypatch.setattr(TrainState, "forward", lambda state, x: (seen.append(x), forward(state, x))[1])
    drawn = []
    for seed in (0, 0, 1):
        seen.clear()
        sensitivities(train_state(two_layers(), batch=8, seed=seed), 17)
        assert [len(x) for x in seen] == [6, 6, 5]
        drawn.append(torch.cat(seen))
        assert len(torch.unique(drawn[-1].flatten(1), dim=0)) == 17, "an image was drawn twice"
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])


def test_scoring_leaves_no_trace() -> None:
    model = nn.Sequential(*channels_net()[:-1], Dropout(0.5), nn.Linear(16, CLASSES))
    state = train_state(model)
    model.train()
    model[3].eval()
    modes = [module.training for module in model.modules()]
    before, random = copy.deepcopy(model.state_dict()), state.random.get_state()
    everywhere = torch.get_rng_state()
    first, second = sensitivities(state, 20), sensitivities(state, 20)
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert all(p.grad is None for p in model.parameters())
    assert [module.training for module in model.modules()] == modes
    assert torch.equal(state.random.get_state(), random)
    assert torch.equal(torch.get_rng_state(), everywhere)


def test_the_largest_sensitivities_of_all_layers_stay() -> None:
    state, compressor = train_state(two_layers()), Snip(RATIO)
    start = clones(state.weights)
    flat = np.concatenate([s.numpy().ravel() for s in sensitivities(state, 1000)])
    state.compression = compressor.start(state)
    kept = np.concatenate([mask.numpy().ravel() for mask in state.compression.masks])
    assert kept.sum() == math.floor(RATIO * len(flat)) == 310
    assert flat[kept].min() > flat[~kept].max()
    assert 0 < int(state.compression.masks[1].sum()) < 36
    assert all(torch.equal(w, s * m) for w, s, m in zip(state.weights, start, state.compression.masks, strict=True))


def test_exactly_k_stay_where_most_weights_have_no_gradient() -> None:
    """Two thirds of each image are black: what reads them has no gradient, and fills the budget in order."""
    state, compressor = train_state(two_layers()), Snip(0.5)
    state.data.train.images[:, :, :10] = 0
    dead = torch.zeros(12, 256, dtype=torch.bool)
    dead[:, :160] = True
    state.compression = compressor.start(state)
    first, second = state.compression.masks
    assert int(first.sum() + second.sum()) == 1554 == math.floor(0.5 * 3108)
    live = [s > 0 for s in sensitivities(train_state(two_layers(), data=state.data), 1000)]
    assert not (live[0] & dead).any()
    assert bool(first[live[0]].all())
    spare = (first & ~live[0]).flatten()
    places = (~live[0]).flatten().nonzero().flatten()
    assert spare[places[: int(spare.sum())]].all(), "zeros in order, the earlier layer first"
    assert int(spare.sum()) == 1554 - int(live[0].sum() + live[1].sum()) > 300


def test_the_mask_is_fixed_from_then_on(tmp_path: Path) -> None:
    state, compressor = train_state(two_layers(), epochs=3), Snip(RATIO)
    supports = []
    watched = Watched(compressor, lambda state: supports.append([w != 0 for w in state.weights]))
    final = train_stage(Stage("snip", Natural(), Schedule(3, lr=0.1), watched), state, tmp_path).tensors
    assert len(supports) == 1 + 15
    for support in supports[1:]:
        assert all(not (s & ~m).any() for s, m in zip(support, state.compression.masks, strict=True))
    assert all(bool((m == s).all()) for s, m in zip(supports[0], state.compression.masks, strict=True))
    assert sum(int(final[name].count_nonzero()) for name in state.names) == 310
    with torch.no_grad():
        for w in state.weights:
            w.copy_(torch.randn(w.shape, generator=rng(1)))
    for value, mask in zip(compressor.compressed(state).values(), state.compression.masks, strict=True):
        assert torch.equal(value != 0, mask)


def test_resumed_is_as_if_uninterrupted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def trained(folder: Path) -> tuple[dict[str, Tensor], MaskState]:
        state = train_state(channels_net(), data=dataset(48), epochs=3)
        stage = Stage("snip", Natural(), Schedule(3, lr=0.05), Snip(0.3))
        return train_stage(stage, state, folder).tensors, state.compression

    whole, first = trained(tmp_path / "whole")
    monkeypatch.setattr(stage_store, "CHECKPOINT_SECONDS", -1.0)
    with monkeypatch.context() as patch:
        kill_at(patch, "sparse", 8)
        with pytest.raises(Killed):
            trained(tmp_path / "stopped")
    again, second = trained(tmp_path / "stopped")
    assert all(torch.equal(whole[name], again[name]) for name in whole)
    assert all(torch.equal(a, b) for a, b in zip(first.masks, second.masks, strict=True))


def test_the_stages() -> None:
    config = compose_config(["dataset=cifar10", "method=snip", "method.images=64"])
    (stage,) = config.method.stages(config.recipe_context())
    assert (stage.name, stage.objective, stage.compressor) == ("snip", Natural(), Snip(0.005, 64))
    assert (stage.schedule_name, stage.schedule.epochs) == ("dense", 200)
    config = compose_config(["dataset=cifar10", "method=snip", "objective=trades"])
    assert config.method.stages(config.recipe_context())[0].objective == config.recipe_context().chosen
    with pytest.raises(UserError, match=r"method\.images=0 .*at least 1"):
        compose_config(["method=snip", "method.images=0"])
