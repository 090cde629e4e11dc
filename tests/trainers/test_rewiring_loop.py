"""Rewiring inside the real loop, step by step, against a loop written here; its regulariser; stopped and resumed."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from rewiring_nets import channels_net
from tiny import Killed, Recording, Watched, clones, kill_at, train_stage, train_state, two_layers
from torch import Tensor
from torch.nn import functional as F

from robcomp.attacks.pgd import PGD
from robcomp.trainers.compressors.rewiring import Rewiring, RewiringState
from robcomp.trainers.loop import stage_store
from robcomp.trainers.objectives import Adversarial, NaturalWarmup
from robcomp.trainers.stage import Schedule, Stage
from robcomp.trainers.state import TrainState

RATIO, BETA, RHO, WARMUP, RATE = 0.07, 0.25, 0.8, 0.2, 0.5
EPOCHS, STEPS = 6, 5  # 30 steps: rewirings after 1, 2, 4, 5, 7, ...
SGD = Schedule(EPOCHS, lr=0.05, momentum=0.9, weight_decay=0.01, decay="constant")


def held(state: TrainState) -> dict[str, list[Tensor]]:
    return {
        "parameters": clones(list(state.model.parameters())),
        "momentum": clones(state.momentum()) if state.step else [],
        "masks": clones(state.compression.masks),
        "z": clones(state.compression.copies),
    }


def reference_rewiring(p: list[np.ndarray], v: list[np.ndarray], M: list[np.ndarray], rate: float) -> None:
    """Algorithm 1, lines 17 to 25, in place, by sorting lists of places."""
    share = np.array([np.abs(m[mask]).mean() for m, mask in zip(v, M, strict=True)])
    share /= share.sum()
    removed = 0
    for w, mask in zip(p, M, strict=True):
        places = sorted(np.argwhere(mask).tolist(), key=lambda at: abs(w[tuple(at)]))
        gone = min(math.ceil(rate * len(places)), len(places) - 1)
        removed += gone
        for at in places[:gone]:
            mask[tuple(at)], w[tuple(at)] = False, 0
    exact = share * removed
    counts = np.floor(exact).astype(int)
    if counts.sum() < removed:  # two layers: one weight is left over, for the larger remainder
        counts[np.argmax(exact - counts)] += 1
    for i, (m, mask) in enumerate(
        zip(v, M, strict=True)
    ):  # what finds no place with a momentum goes to the other layer
        room = int((~mask & (m != 0)).sum())
        counts[1 - i] += max(0, counts[i] - room)
        counts[i] = min(counts[i], room)
    for m, mask, count in zip(v, M, counts, strict=True):
        for at in sorted(np.argwhere(~mask).tolist(), key=lambda at: -abs(m[tuple(at)]))[:count]:
            mask[tuple(at)] = True


@pytest.mark.parametrize("scaled", [True, False])
@pytest.mark.parametrize("rho", [RHO, 0.0])
def test_the_loop_follows_algorithm_1(tmp_path: Path, rho: float, scaled: bool) -> None:
    model, objective, trace = two_layers(), Recording(), []
    compressor = Rewiring(RATIO, rate=RATE, rho=rho, beta=BETA, warmup=WARMUP, scaled=scaled)
    state = train_state(model, batch=8, epochs=EPOCHS)
    start = clones(state.weights)
    stage = Stage("rewired", objective, SGD, Watched(compressor, lambda state: trace.append(held(state))))
    final = train_stage(stage, state, tmp_path).tensors
    assert state.steps_per_epoch == STEPS
    assert state.compression.events == [30 * (i + 1) // 21 for i in range(20)]

    M = [mask.numpy().copy() for mask in trace[0]["masks"]]
    assert sum(int(mask.sum()) for mask in M) == math.floor(RATIO * (256 * 12 + 12 * 3)) == 217
    assert abs(int(M[0].sum()) - RATIO * 256 * 12) < 1.5
    p = [value.numpy().copy() for value in trace[0]["parameters"]]
    for weight, mask, given in zip((p[0], p[2]), M, start, strict=True):
        scale = math.sqrt(mask.size / mask.sum()) if scaled else 1.0  # to the variance of a dense layer
        assert np.allclose(weight, given.numpy() * mask * scale, rtol=1e-6, atol=0)
    z, v, done = [p[0].copy(), p[2].copy()], [np.zeros_like(value) for value in p], 0
    moved = 0
    for step, (x, y) in enumerate(objective.batches):
        leaves = [torch.tensor(value, requires_grad=True) for value in p]
        hidden = torch.relu(x.flatten(1) @ leaves[0].T + leaves[1])
        loss = F.cross_entropy(hidden @ leaves[2].T + leaves[3], y)
        g = [gradient.numpy().copy() for gradient in torch.autograd.grad(loss, leaves)]
        for i, j in ((0, 0), (1, 2)):
            if step >= 6:  # WARMUP * 30
                g[j] += BETA * rho * (p[j] * M[i] - z[i])
        for value, momentum, gradient in zip(p, v, g, strict=True):
            momentum *= 0.9
            momentum += gradient + 0.01 * value
            value -= 0.05 * momentum
        for i, j in ((0, 0), (1, 2)):
            p[j] *= M[i]
        if step + 1 in [30 * (i + 1) // 21 for i in range(20)]:
            before = [mask.copy() for mask in M]
            reference_rewiring([p[0], p[2]], [v[0], v[2]], M, RATE * (1 - done / 20))
            moved += sum(int((a != b).sum()) for a, b in zip(before, M, strict=True))
            done += 1
            z = [p[0].copy(), p[2].copy()]
        elif step == 5:
            z = [p[0].copy(), p[2].copy()]
        got = trace[step + 1]
        for name, ours in (("parameters", p), ("momentum", [v[0], v[2]] if step else []), ("z", z)):
            for a, b in zip(got[name], ours, strict=True):
                np.testing.assert_allclose(a.numpy(), b, rtol=1e-4, atol=1e-6, err_msg=f"{name} at step {step}")
        for a, b in zip(got["masks"], M, strict=True):
            assert np.array_equal(a.numpy(), b), f"masks at step {step}"
        p = [value.numpy().copy() for value in got["parameters"]]  # the last bit may decide what is largest
        if step:
            v[0], v[2] = (value.numpy().copy() for value in got["momentum"])
    assert done == 20
    assert moved > 300
    assert np.array_equal(final["1.weight"].numpy(), p[0])
    assert int(final["1.weight"].count_nonzero() + final["3.weight"].count_nonzero()) == 217


# The regulariser and the warm-up


@pytest.mark.parametrize(
    ("beta", "rho", "strength"), [(0.5, 1e-2, 5e-3), (1.0, 1e-2, 1e-2), (0.5, 0.0, 0), (0.0, 1.0, 0)]
)
@pytest.mark.parametrize("scheme", ["irregular", "channel"])
def test_the_regulariser_pulls_to_the_weights_of_the_last_rewiring(
    beta: float, rho: float, strength: float, scheme: str
) -> None:
    state, compressor = train_state(channels_net(), epochs=10), Rewiring(0.5, scheme, rho=rho, beta=beta, warmup=0.1)
    state.compression = compressor.start(state)
    z = dict(zip(state.compression.names, clones(state.compression.copies), strict=True))
    with torch.no_grad():
        for name, w in zip(state.names, state.weights, strict=True):
            w.mul_(1.5)
            w.grad = torch.ones_like(w)
            assert name not in z or torch.equal(z[name] * 1.5, w)
    for state.step in (0, 4, 5, 49):  # the warm-up is 5 of 50 steps
        for w in state.weights:
            w.grad.fill_(1)
        compressor.regularise(state)
        for name, w in zip(state.names, state.weights, strict=True):
            pull = strength * 0.5 * z[name] if name in z and state.step >= 5 else torch.zeros_like(w)
            assert torch.allclose(w.grad, 1 + pull, rtol=0, atol=1e-6)
    assert (scheme == "channel") == (state.names[0] not in z)


# Stopped and resumed


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
@pytest.mark.parametrize("scheme", ["irregular", "channel"])
def test_resumed_is_as_if_uninterrupted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, scheme: str, optimizer: str
) -> None:
    schedule = Schedule(5, lr=0.01, optimizer=optimizer)
    objective = NaturalWarmup(Adversarial(PGD(0.1, steps=1), 0.5), 0.2)

    def trained(folder: Path) -> tuple[dict[str, Tensor], RewiringState]:
        stage = Stage("rewired", objective, schedule, Rewiring(0.5, scheme, rho=0.3, warmup=0.2))
        state = train_state(channels_net(), epochs=5)
        return train_stage(stage, state, folder).tensors, state.compression

    whole, first = trained(tmp_path / "whole")
    monkeypatch.setattr(stage_store, "CHECKPOINT_SECONDS", -1.0)
    for step in (3, 13, 17):  # within the warm-up, between rewirings, and right after one
        with monkeypatch.context() as patch:
            kill_at(patch, "sparse", step)
            with pytest.raises(Killed):
                trained(tmp_path / "stopped")
    again, second = trained(tmp_path / "stopped")
    assert first.done == second.done == 20
    assert whole.keys() == again.keys()
    assert all(torch.equal(whole[name], again[name]) for name in whole)
    for name in ("masks", "copies"):
        assert all(torch.equal(a, b) for a, b in zip(getattr(first, name), getattr(second, name), strict=True))
