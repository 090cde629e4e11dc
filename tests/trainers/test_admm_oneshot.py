"""One-shot ADMM inside the real loop, step by step, against a loop written here in plain torch."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import torch
from tiny import Killed, Recording, Watched, clones, dataset, kill_at, rng, train_stage, train_state, two_layers
from torch import Tensor, nn
from torch.nn import functional as F

from robcomp.models.parameterisation import weights
from robcomp.projections import funnel, redundant
from robcomp.trainers.compressor import capture
from robcomp.trainers.compressors.admm_oneshot import ADMMOneShotCompressor
from robcomp.trainers.loop import stage_store
from robcomp.trainers.objectives import Loss, Natural
from robcomp.trainers.stage import Schedule, Stage
from robcomp.trainers.state import TrainState

RATIO, RHO, PHI, EPOCHS, STEPS = 0.1, 0.3, 0.95, 2, 5
TOTAL = 256 * 12 + 12 * 3
SCHEDULE = Schedule(EPOCHS, lr=0.5, momentum=0.9, weight_decay=0.01, milestones=[1])
# Of 10 steps the parts begin with steps 0, floor(10 / 3) and floor(20 / 3).
THIRDS = [0.1 ** (1 / 3)] * 3 + [0.1 ** (2 / 3)] * 3 + [0.1] * 4


def network() -> nn.Sequential:
    """Two layers, of whose filters some nearly repeat one another."""
    model = two_layers()
    with torch.no_grad():
        for copy in (3, 7):
            noise = torch.randn(256, generator=rng(copy))
            model[1].weight[copy] = model[1].weight[copy - 1] + 0.004 * noise
    return model


@dataclass
class Trace:
    """After each step: all parameters, theta' and u; and the final weights."""

    batches: list[tuple[Tensor, Tensor]] = field(default_factory=list)
    parameters: list[list[Tensor]] = field(default_factory=list)
    copies: list[list[Tensor]] = field(default_factory=list)
    duals: list[list[Tensor]] = field(default_factory=list)
    final: list[Tensor] = field(default_factory=list)


def observed(compressor: ADMMOneShotCompressor, folder: Path) -> Trace:
    """Train the network for EPOCHS of STEPS steps and look after each."""
    trace, objective = Trace(), Recording()

    def look(state: TrainState) -> None:
        if not state.compression.copies:  # the start, before any theta'
            return
        trace.parameters.append(clones(list(state.model.parameters())))
        trace.copies.append(clones(state.compression.copies))
        trace.duals.append(clones(capture(state.compression)["duals"]))

    stage = Stage("oneshot", objective, SCHEDULE, Watched(compressor, look))
    result = train_stage(stage, train_state(network(), epochs=EPOCHS), folder)
    trace.final, trace.batches = [result.tensors[name] for name in ("1.weight", "3.weight")], objective.batches
    assert len(trace.parameters) == EPOCHS * STEPS
    return trace


def keep_largest(tensors: Sequence[Tensor], k: int) -> list[Tensor]:
    """All but the k largest magnitudes of all tensors together become 0, by a full sort."""
    threshold = torch.cat([t.abs().flatten() for t in tensors]).sort(descending=True).values[k - 1]
    return [torch.where(t.abs() < threshold, 0.0, t) for t in tensors]


def into(name: str, tensors: Sequence[Tensor], ratio: float) -> list[Tensor]:
    """The projection onto the set of that name."""
    k = math.floor(ratio * TOTAL)
    if name == "funnel":
        return funnel(tensors, k)
    sparse = keep_largest(tensors, k)
    return redundant(sparse, PHI) if name == "redundant" else sparse


def counts(tensors: Sequence[Tensor]) -> list[int]:
    return [int(t.count_nonzero()) for t in tensors]


def densities_fall(tensors: Sequence[Tensor]) -> bool:
    """Whether the pruned fraction strictly grows with depth: whole numbers, cross-multiplied."""
    pruned, sizes = [int((t == 0).sum()) for t in tensors], [t.numel() for t in tensors]
    return all(pruned[i] * sizes[i + 1] < pruned[i + 1] * sizes[i] for i in range(len(sizes) - 1))


def nearest_filters(tensor: Tensor) -> float:
    """The least distance of two non-zero filters, relative to the longer of the two."""
    rows = [row.double() for row in tensor if row.any()]
    pairs = [(a, b) for i, a in enumerate(rows) for b in rows[:i]]
    return min((float((a - b).norm() / max(a.norm(), b.norm())) for a, b in pairs), default=math.inf)


def assert_close(got: Sequence[Tensor], expected: Sequence[Tensor], step: int) -> None:
    for a, b in zip(got, expected, strict=True):
        assert torch.allclose(a, b, rtol=1e-5, atol=2e-6), f"step {step}: off by {(a - b).abs().max():.2e}"


@pytest.mark.parametrize("name", ["irregular", "funnel", "redundant"])
@pytest.mark.parametrize(
    ("levels", "expected"), [(None, THIRDS), ([0.4, 0.1], [0.4] * 5 + [0.1] * 5), ([0.1], [0.1] * 10)]
)
def test_every_iteration_is_that_of_algorithm_1(
    tmp_path: Path, name: str, levels: list[float] | None, expected: list[float]
) -> None:
    trace = observed(ADMMOneShotCompressor(RATIO, name, RHO, PHI, levels), tmp_path)
    model = network()
    ours = [p.detach().clone() for p in model.parameters()]
    velocity = [torch.zeros_like(p) for p in ours]
    u = [torch.zeros_like(ours[0]), torch.zeros_like(ours[2])]
    for step, (x, y) in enumerate(trace.batches):
        leaves = [p.clone().requires_grad_() for p in ours]
        logits = torch.relu(x.flatten(1) @ leaves[0].T + leaves[1]) @ leaves[2].T + leaves[3]
        primes = into(name, [ours[0] + u[0] / RHO, ours[2] + u[1] / RHO], expected[step])
        gradients = torch.autograd.grad(F.cross_entropy(logits, y), leaves)
        # The other two terms of the Lagrangian as they are written, by autograd; the momentum is the loss's alone.
        terms = 0
        for theta, prime, dual in zip((leaves[0], leaves[2]), primes, u, strict=True):
            terms = terms + (dual * (theta - prime)).sum() + RHO / 2 * (theta - prime).square().sum()
        slopes = torch.autograd.grad(terms, (leaves[0], leaves[2]))
        lr = 0.5 if step < STEPS else 0.05
        for p, v, g in zip(ours, velocity, gradients, strict=True):
            v.mul_(0.9).add_(g + 0.01 * p)
            p.sub_(lr * v)
        ours[0].sub_(lr * slopes[0])
        ours[2].sub_(lr * slopes[1])
        u = [u[0] + RHO * (ours[0] - primes[0]), u[1] + RHO * (ours[2] - primes[1])]
        assert_close(trace.parameters[step], ours, step)
        assert_close(trace.copies[step], primes, step)
        assert_close(trace.duals[step], u, step)
        if name == "irregular":
            assert sum(counts(trace.copies[step])) == math.floor(expected[step] * TOTAL), step
        # Go on from the loop's own numbers: at the edge of a set the last bit decides which weight is in it.
        ours, u = clones(trace.parameters[step]), clones(trace.duals[step])
    assert_close(trace.final, into(name, [ours[0], ours[2]], RATIO), len(trace.batches))


def test_the_sets_are_not_the_same(tmp_path: Path) -> None:
    """What the budget alone would leave is in neither of the other two sets, so the test above tells them apart."""
    for name in ("irregular", "funnel", "redundant"):
        trace = observed(ADMMOneShotCompressor(RATIO, name, RHO, PHI), tmp_path / name)
        budget_alone = keep_largest([trace.parameters[-1][0], trace.parameters[-1][2]], math.floor(RATIO * TOTAL))
        differs = any((a != b).any() for a, b in zip(trace.final, budget_alone, strict=True))
        assert differs == (name != "irregular"), name


@pytest.mark.parametrize("name", ["irregular", "funnel", "redundant"])
def test_the_final_weights_are_in_the_set_to_the_weight(tmp_path: Path, name: str) -> None:
    trace = observed(ADMMOneShotCompressor(RATIO, name, RHO, PHI), tmp_path)
    theta = [trace.parameters[-1][0], trace.parameters[-1][2]]
    k = math.floor(RATIO * TOTAL)
    kept = [w != 0 for w in trace.final]
    assert all(torch.equal(w[m], p[m]) for w, m, p in zip(trace.final, kept, theta, strict=True)), "theta, not theta'"
    assert 0 < sum(counts(trace.final)) <= k
    if name == "irregular":
        assert sum(counts(trace.final)) == k
        assert not densities_fall(trace.final)
    if name == "funnel":
        assert sum(counts(trace.final)) == k
        assert densities_fall(trace.final)
    if name == "redundant":
        assert nearest_filters(keep_largest(theta, k)[0]) < PHI <= min(nearest_filters(w) for w in trace.final)


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_theta_meets_its_copy(tmp_path: Path, momentum: float) -> None:
    """Without momentum equation 8 is plain SGD on the whole Lagrangian; with it the residual closes all the same."""
    residuals = []

    def look(state: TrainState) -> None:
        copies = state.compression.copies
        if not copies:  # the start, before any theta'
            return
        theta, prime = (torch.cat([w.flatten() for w in ws]).detach() for ws in (state.weights, copies))
        residuals.append(float((theta - prime).norm() / theta.norm()))

    schedule = Schedule(60, lr=0.05, momentum=momentum, decay="linear")
    stage = Stage("oneshot", Natural(), schedule, Watched(ADMMOneShotCompressor(RATIO, rho=2.0), look))
    train_stage(stage, train_state(network(), epochs=60), tmp_path)
    assert len(residuals) == 60 * STEPS
    assert max(residuals) > 0.3
    assert residuals[-1] < 0.25


def test_a_look_at_the_final_weights_touches_nothing() -> None:
    state, compressor = train_state(network()), ADMMOneShotCompressor(RATIO, "funnel")
    state.compression = compressor.start(state)
    for dual in state.compression.duals:
        dual.normal_(generator=rng(1))
    before, duals = clones(state.weights), clones(state.compression.duals)
    first, second = compressor.compressed(state), compressor.compressed(state)
    assert all(torch.equal(a, b) for a, b in zip(before, state.weights, strict=True))
    assert all(torch.equal(a, b) for a, b in zip(duals, state.compression.duals, strict=True))
    compressor.finalise(state)
    for name, weight in weights(state.model).items():
        assert torch.equal(first[name], second[name])
        assert torch.equal(first[name], weight)


def test_a_stage_of_no_epochs_ends_with_the_start_in_the_set(tmp_path: Path) -> None:
    stage = Stage("oneshot", Natural(), Schedule(0), ADMMOneShotCompressor(RATIO))
    result = train_stage(stage, train_state(network(), epochs=0), tmp_path)
    expected = keep_largest(list(weights(network()).values()), math.floor(RATIO * TOTAL))
    assert_close([result.tensors["1.weight"], result.tensors["3.weight"]], expected, 0)


class Contrived(Natural):
    """Natural training that gives out a fixed adversarial loss for each epoch."""

    def __init__(self, losses: list[float]) -> None:
        self.losses = losses

    def loss(self, state: TrainState, x: Tensor, y: Tensor) -> Loss:
        return super().loss(state, x, y)._replace(adversarial=torch.tensor(self.losses[state.epoch]))


@pytest.mark.parametrize(
    ("losses", "epochs"),
    [
        ([6, 5, 4, 3, 2, 1, 0], 6),  # falls on: up to the limit, half of 4 epochs more
        ([6, 5, 4, 3, 3.5, 1, 0], 5),
        ([6, 5, 4, 4.5, 2, 1, 0], 4),
        ([6, 5, 4, 4, 2, 1, 0], 4),
    ],
)
def test_the_stage_goes_on_while_the_adversarial_loss_falls(tmp_path: Path, losses: list[float], epochs: int) -> None:
    counted = []

    class Counting(ADMMOneShotCompressor):
        def regularise(self, state: TrainState) -> None:
            super().regularise(state)
            counted.append(sum(counts(state.compression.copies)))

    state = train_state(network(), data=dataset(24), batch=8, epochs=4)
    stage = Stage("oneshot", Contrived(losses), Schedule(4, lr=0.1), Counting(RATIO), limit=0.5)
    result = train_stage(stage, state, tmp_path)
    assert len(result.records) == epochs
    budgets = [math.floor(ratio * TOTAL) for ratio in (0.1 ** (1 / 3), 0.1 ** (2 / 3), 0.1)]
    assert counted == [budgets[0]] * 4 + [budgets[1]] * 4 + [budgets[2]] * (3 * epochs - 8)


@pytest.mark.parametrize("name", ["irregular", "funnel", "redundant"])
@pytest.mark.parametrize("step", [3, 7])
def test_a_stopped_stage_goes_on_to_the_bit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, step: int
) -> None:
    monkeypatch.setattr(stage_store, "CHECKPOINT_SECONDS", -1.0)

    def trained(folder: Path) -> tuple[dict[str, Tensor], list[Tensor]]:
        stage = Stage("oneshot", Natural(), SCHEDULE, ADMMOneShotCompressor(RATIO, name, RHO, PHI))
        state = train_state(network(), epochs=EPOCHS)
        return train_stage(stage, state, folder).tensors, state.compression.duals

    whole, duals = trained(tmp_path / "whole")
    with monkeypatch.context() as patch:
        kill_at(patch, "sparse", step)
        with pytest.raises(Killed):
            trained(tmp_path / "stopped")
    again, same_duals = trained(tmp_path / "stopped")
    assert all(torch.equal(tensor, again[key]) for key, tensor in whole.items())
    assert all(torch.equal(a, b) for a, b in zip(duals, same_duals, strict=True))
    assert any(dual.any() for dual in duals)
