"""When rewiring happens, how many weights it leaves, and the final weights."""

import math
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from rewiring_nets import active, channels_net
from tiny import clones, dataset, rng, train_stage, train_state, two_layers
from torch import nn

from robcomp.models.parameterisation import weights
from robcomp.trainers.compressor import capture
from robcomp.trainers.compressors.rewiring import Rewiring, rewirings
from robcomp.trainers.objectives import Natural
from robcomp.trainers.stage import Schedule, Stage
from robcomp.trainers.state import TrainState

# When


@pytest.mark.parametrize(("epochs", "steps"), [(1, 40), (5, 13), (20, 1), (20, 391), (21, 5), (30, 5), (200, 391)])
def test_there_are_at_least_twenty_rewirings_and_none_at_the_end(epochs: int, steps: int) -> None:
    at, total = rewirings(epochs, steps), epochs * steps
    assert len(at) >= min(20, total - 1)
    assert at[0] > 0
    assert at[-1] < total
    gaps = np.diff([0, *at, total])
    assert gaps.min() >= 1
    assert gaps.max() - gaps.min() <= 1
    if epochs > 20:
        assert at == [steps * epoch for epoch in range(1, epochs)]


@pytest.mark.parametrize(
    ("epochs", "steps", "expected"), [(1, 3, [1, 2]), (1, 1, []), (0, 9, []), (4, 2, [*range(1, 8)])]
)
def test_the_shortest_stages(epochs: int, steps: int, expected: list[int]) -> None:
    assert rewirings(epochs, steps) == expected


@pytest.mark.parametrize(("epochs", "expected"), [(1, 20), (5, 20), (30, 29)])
def test_a_stage_is_rewired_that_often(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, epochs: int, expected: int
) -> None:
    state, rates, original = train_state(two_layers(), data=dataset(48), batch=2, epochs=epochs), [], Rewiring.rewire

    def rewire(self: Rewiring, state: TrainState) -> None:
        rates.append((state.step + 1, state.compression.done))
        original(self, state)

    monkeypatch.setattr(Rewiring, "rewire", rewire)
    train_stage(Stage("rewired", Natural(), Schedule(epochs, lr=0.01), Rewiring(0.1)), state, tmp_path)
    assert [number for _, number in rates] == list(range(expected))
    assert [step for step, _ in rates] == rewirings(epochs, 24)
    assert capture(state.compression)["done"] == expected


# How many


def odd_net(random: np.random.Generator) -> nn.Sequential:
    """Layers of very different sizes, single weights among them."""
    sizes = [int(n) for n in random.choice([1, 2, 3, 7, 40], size=random.integers(2, 7))]
    return nn.Sequential(*(nn.Linear(a, b) for a, b in pairwise(sizes)))


@pytest.mark.parametrize("seed", range(60))
def test_irregular_density_is_exact_at_every_rewiring(seed: int) -> None:
    """Over odd densities and layers, with momenta that would put everything into one layer or are all zero."""
    random, noise = np.random.default_rng(seed), rng(seed)
    model = odd_net(random)
    total = sum(w.numel() for w in weights(model).values())
    budget = int(random.integers(1, total + 1))
    compressor = Rewiring((budget + 0.5) / (total + 0.5) if budget < total else 1.0)
    state = train_state(model, epochs=3)
    budget = math.floor(compressor.ratio * total)
    state.compression = compressor.start(state)
    assert sum(active(state)) == budget
    factors = [float(random.choice([0, 1e-6, 1, 1e6])) for _ in state.weights]
    state.momentum = lambda: [
        f * torch.randn(w.shape, generator=noise) for f, w in zip(factors, state.weights, strict=True)
    ]
    for step in range(state.total_steps):
        state.step = step
        before = [mask.clone() for mask in state.compression.masks]
        with torch.no_grad():
            for w in state.weights:
                w.copy_(torch.randn(w.shape, generator=noise))
        drawn = clones(state.weights)
        compressor.after_step(state)
        assert sum(active(state)) == budget
        held = state.compression
        for w, new, old, value, z in zip(state.weights, held.masks, before, drawn, held.copies, strict=True):
            assert not w[~new].any()
            assert not w[new & ~old].any(), "regrown weights start at 0"
            stayed = w != 0
            assert torch.equal(w[stayed], value[stayed])
            if state.step + 1 in held.events:
                assert torch.equal(z, w)
                assert stayed.any() or not old.any(), "a layer lost all that it had"
    assert state.compression.done == len(state.compression.events) == 14


@pytest.mark.parametrize("spare", [True, False])
def test_a_nearly_full_layer_with_most_of_the_momentum_may_be_spared(spare: bool) -> None:
    """What comes back starts at 0, so that the zeros among the active weights are as many as were removed."""
    state, compressor = train_state(two_layers()), Rewiring(0.9, spare=spare)
    state.compression = compressor.start(state)
    counts = active(state)
    state.momentum = lambda: [torch.full_like(w, f) for f, w in zip((2.0, 1.0), state.weights, strict=True)]
    compressor.after_step(state)
    zeros = sum(int((mask & (w == 0)).sum()) for mask, w in zip(state.compression.masks, state.weights, strict=True))
    rate = 1 - counts[0] / 3072 if spare else 0.5
    assert zeros == math.ceil(rate * counts[0]) + math.ceil(0.5 * counts[1])


@pytest.mark.parametrize("layers", ["all", "conv"])
@pytest.mark.parametrize("ratio", [0.35, 0.4, 0.55, 0.731, 1.0])
def test_channels_fill_the_budget_as_far_as_they_fit(layers: str, ratio: float) -> None:
    model, noise = channels_net(), rng(3)
    state, compressor = train_state(model, epochs=4), Rewiring(ratio, "channel", layers)
    state.compression = compressor.start(state)
    names, masked = ["0.conv", "3.conv", "6.conv", "10"], ["3.conv", "6.conv", *(["10"] if layers == "all" else [])]
    assert list(weights(model)) == [f"{name}.weight" for name in names]
    assert state.compression.names == [f"{name}.weight" for name in masked]
    total = 54 + 270 + 180 + (48 if layers == "all" else 0)
    sizes = [5 * 9, 4 * 9, 3][: len(masked)]
    state.momentum = lambda: [torch.randn(w.shape, generator=noise) for w in state.weights]
    seen = set()
    for step in range(state.total_steps):
        state.step = step
        with torch.no_grad():
            for w in state.weights:
                w.copy_(torch.randn(w.shape, generator=noise))
        compressor.after_step(state)
        kept = [mask[0].reshape(mask.shape[1], -1)[:, 0] for mask in state.compression.masks]
        counts = [int(flags.sum()) for flags in kept]
        for mask, flags in zip(state.compression.masks, kept, strict=True):
            assert torch.equal(mask, flags.view(1, -1, *[1] * (mask.ndim - 2)).expand_as(mask))
        assert min(counts) >= 1
        left = math.floor(ratio * total + 1e-9) - 54 - sum(n * size for n, size in zip(counts, sizes, strict=True))
        assert left >= 0
        assert all(size > left or n == len(flags) for n, size, flags in zip(counts, sizes, kept, strict=True)), (
            "one more channel would have fitted"
        )
        seen.add(str([flags.tolist() for flags in kept]))
    assert state.compression.done == 19
    assert len(seen) > 1 or ratio == 1
    assert model[0].conv.weight.all()
    assert layers == "all" or model[10].weight.all()


# The final weights


def test_another_seed_draws_other_masks() -> None:
    drawn = []
    for seed in (0, 0, 1):
        drawn.append(Rewiring(0.3).start(train_state(two_layers(), seed=seed)).masks)
    assert torch.equal(drawn[0][0], drawn[1][0])
    assert not torch.equal(drawn[0][0], drawn[2][0])


def test_the_final_weights_are_masked_whatever_the_model_holds() -> None:
    state, compressor = train_state(channels_net()), Rewiring(0.4, layers="conv")
    state.compression = compressor.start(state)
    with torch.no_grad():
        for w in state.weights:
            w.fill_(2.0)
    final = compressor.compressed(state)
    assert list(final) == state.names
    assert all(bool((w == 2).all()) for w in state.weights), "the model was touched"
    assert sum(int(final[name].count_nonzero()) for name in state.names[:3]) == math.floor(0.4 * (54 + 270 + 180))
    assert final["10.weight"].all()


def test_channels_last_networks_keep_their_layout() -> None:
    state = train_state(channels_net().to(memory_format=torch.channels_last), epochs=1)
    compressor = Rewiring(0.4)
    state.compression = compressor.start(state)
    state.momentum = lambda: [torch.ones_like(w) for w in state.weights]
    compressor.after_step(state)
    assert state.compression.done == 1
    for mask, w in zip(state.compression.masks, state.weights, strict=True):
        assert mask.stride() == w.stride()


@pytest.mark.parametrize("ratio", [0.01, 0.1])
def test_a_sparse_start_passes_on_a_signal_of_the_strength_of_a_dense_one(ratio: float) -> None:
    """Three layers of 400: without the scale the outputs would be ratio^1.5 as strong."""
    torch.manual_seed(0)
    model = torch.nn.Sequential(*(torch.nn.Linear(400, 400, bias=False) for _ in range(3)))
    x = torch.randn(64, 400, generator=rng(1))
    dense = model(x).std().item()
    for scaled, expected in ((True, dense), (False, dense)):
        copy = torch.nn.Sequential(*(torch.nn.Linear(400, 400, bias=False) for _ in range(3)))
        copy.load_state_dict(model.state_dict())
        Rewiring(ratio, scaled=scaled).start(train_state(copy))
        got = copy(x).std().item()
        assert (0.6 < got / expected < 1.6) == scaled
