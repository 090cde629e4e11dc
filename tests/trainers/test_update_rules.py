"""The compressors inside the real loop, step by step, against loops written here in plain torch.

The loop's batches are recorded and replayed, so that only the arithmetic of a step is compared.
"""

import math
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from tiny import Recording, Watched, clones, rng, train_stage, train_state, two_layers
from torch import Tensor, nn
from torch.nn import functional as F

from robcomp.models.parameterisation import weights
from robcomp.projections import l0
from robcomp.projections.codebook import Codebook, project
from robcomp.trainers.compressor import Compressor, capture
from robcomp.trainers.compressors.codebook import FINAL_ITERATIONS, FIRST_ITERATIONS, WARM_ITERATIONS, QuantisedL0
from robcomp.trainers.compressors.sparsity import GlobalL0, MagnitudeMask
from robcomp.trainers.stage import Schedule, Stage
from robcomp.trainers.state import TrainState

RATIO, EPOCHS, STEPS = 0.02, 2, 5
SGD = Schedule(EPOCHS, lr=0.5, momentum=0.9, weight_decay=0.01, milestones=[1])


@dataclass
class Trace:
    """All parameters after the start and after each step, the run state's tensors of then, and the final weights."""

    batches: list[tuple[Tensor, Tensor]]
    parameters: list[list[Tensor]]
    held: list[dict]
    final: dict[str, Tensor]


def observed(compressor: Compressor, folder: Path, schedule: Schedule = SGD) -> Trace:
    """Train two layers for EPOCHS of STEPS steps and look after each."""
    model, objective, trace = two_layers(), Recording(), Trace([], [], [], {})
    state = train_state(model, batch=8, epochs=EPOCHS)
    assert state.steps_per_epoch == STEPS

    def look(state: TrainState) -> None:
        trace.parameters.append(clones(list(state.model.parameters())))
        held = capture(state.compression)
        trace.held.append({key: clones(value) for key, value in held.items() if isinstance(value, list)})

    trace.final = train_stage(Stage("sparse", objective, schedule, Watched(compressor, look)), state, folder).tensors
    trace.batches = objective.batches
    assert len(trace.parameters) == EPOCHS * STEPS + 1
    return trace


class Reference:
    """Two linear layers as bare tensors, with SGD written out: v := m v + (g + wd p), p := p - lr v."""

    def __init__(self, given: list[Tensor]) -> None:
        self.p = [t.clone() for t in given]
        self.v = [torch.zeros_like(t) for t in given]

    @property
    def weights(self) -> list[Tensor]:
        return [self.p[0], self.p[2]]

    def gradients(self, x: Tensor, y: Tensor) -> list[Tensor]:
        p = [t.clone().requires_grad_() for t in self.p]
        hidden = torch.relu(x.flatten(1) @ p[0].T + p[1])
        return list(torch.autograd.grad(F.cross_entropy(hidden @ p[2].T + p[3], y), p))

    def sgd(self, gradients: list[Tensor], step: int, schedule: Schedule = SGD) -> None:
        lr = schedule.lr * (0.1 if step >= STEPS else 1)  # the milestone at epoch 1
        for p, v, g in zip(self.p, self.v, gradients, strict=True):
            v.mul_(schedule.momentum).add_(g + schedule.weight_decay * p)
            p.sub_(lr * v)


def keep_largest(tensors: list[Tensor], k: int) -> None:
    """In place: all but the k largest magnitudes of all tensors together become 0, by a full sort."""
    threshold = torch.cat([t.abs().flatten() for t in tensors]).sort(descending=True).values[k - 1]
    for t in tensors:
        t[t.abs() < threshold] = 0


def assert_close(got: list[Tensor], expected: list[Tensor], step: int) -> None:
    for a, b in zip(got, expected, strict=True):
        assert torch.allclose(a, b, rtol=1e-5, atol=1e-6), f"step {step}: off by {(a - b).abs().max():.2e}"


def count(tensors: list[Tensor]) -> int:
    return sum(int(t.count_nonzero()) for t in tensors)


def dense_weights() -> list[Tensor]:
    return list(weights(two_layers()).values())


def test_no_compressor_is_plain_sgd(tmp_path: Path) -> None:
    trace = observed(Compressor(), tmp_path)
    ours = Reference(trace.parameters[0])
    for step, (x, y) in enumerate(trace.batches):
        ours.sgd(ours.gradients(x, y), step)
        assert_close(trace.parameters[step + 1], ours.p, step)


def test_adam_follows_torch(tmp_path: Path) -> None:
    schedule = Schedule(EPOCHS, lr=0.01, optimizer="adam", decay="constant", weight_decay=0.1)
    trace = observed(Compressor(), tmp_path, schedule)
    model = two_layers()
    adam = torch.optim.Adam(model.parameters(), 0.01, weight_decay=0.1)
    for step, (x, y) in enumerate(trace.batches):
        adam.zero_grad()
        F.cross_entropy(model(x), y).backward()
        adam.step()
        assert_close(trace.parameters[step + 1], list(model.parameters()), step)


def test_global_l0_is_iterative_hard_thresholding_with_unprojected_momentum(tmp_path: Path) -> None:
    trace = observed(GlobalL0(RATIO), tmp_path)
    k = math.floor(RATIO * (256 * 12 + 12 * 3))
    ours = Reference([p.detach() for p in two_layers().parameters()])
    keep_largest(ours.weights, k)
    assert_close(trace.parameters[0], ours.p, -1)
    supports = []
    for step, (x, y) in enumerate(trace.batches):
        ours.sgd(ours.gradients(x, y), step)
        keep_largest(ours.weights, k)
        got = trace.parameters[step + 1]
        assert_close(got, ours.p, step)
        assert count([got[0], got[2]]) == k
        supports.append(got[0] != 0)
    gone = supports[0] & ~torch.stack(supports[1:]).all(0)
    assert gone.any(), "no weight left the support: the test would not see a mask in the projection's place"
    returned = (~trace.parameters[0][0].bool() & supports[-1]).sum()
    assert returned > 0


def test_global_l0_differs_from_what_projected_momentum_gives(tmp_path: Path) -> None:
    """The reference above can tell the two apart."""
    trace = observed(GlobalL0(RATIO), tmp_path)
    ours = Reference(trace.parameters[0])
    k = count(ours.weights)
    for step, (x, y) in enumerate(trace.batches):
        ours.sgd(ours.gradients(x, y), step)
        keep_largest(ours.weights, k)
        for w, v in ((ours.p[0], ours.v[0]), (ours.p[2], ours.v[2])):
            v.mul_(w != 0)
    assert not torch.allclose(trace.parameters[-1][0], ours.p[0], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("scope", ["global", "layer"])
def test_a_magnitude_mask_is_chosen_once(tmp_path: Path, scope: str) -> None:
    trace = observed(MagnitudeMask(RATIO, scope), tmp_path)
    ours = Reference([p.detach() for p in two_layers().parameters()])
    ratios = [math.floor(RATIO * w.numel()) for w in ours.weights]
    if scope == "global":
        keep_largest(ours.weights, math.floor(RATIO * sum(w.numel() for w in ours.weights)))
    else:
        ours.p[0][ours.p[0].abs() < ours.p[0].abs().flatten().sort(descending=True).values[ratios[0] - 1]] = 0
        ours.p[2].zero_()
        assert ratios == [61, 0]
    masks = [w != 0 for w in ours.weights]
    assert_close(trace.parameters[0], ours.p, -1)
    for step, (x, y) in enumerate(trace.batches):
        ours.sgd(ours.gradients(x, y), step)
        for w, mask in zip(ours.weights, masks, strict=True):
            w.mul_(mask)
        got = trace.parameters[step + 1]
        assert_close(got, ours.p, step)
        assert torch.equal(got[0] != 0, masks[0])
    assert_close([trace.final["1.weight"]], [ours.p[0]], len(trace.batches))


@pytest.mark.parametrize("bits", [1, 3])
@pytest.mark.parametrize("interval", [1, 2, 3, 5])
@pytest.mark.parametrize("published", [False, True])
def test_quantised_l0_follows_algorithm_1(tmp_path: Path, bits: int, interval: int, published: bool) -> None:
    """Penalty gradient, SGD, projection; at steps 1.. of an epoch that the interval divides, Z and u in this order."""
    rho = 0.3
    every = min(interval, STEPS - 1)  # an epoch has at least one update
    trace = observed(QuantisedL0(RATIO, bits, rho, interval, published), tmp_path)
    k = math.floor(RATIO * (256 * 12 + 12 * 3))
    ours = Reference([p.detach() for p in two_layers().parameters()])
    keep_largest(ours.weights, k)
    Z, u = [w.clone() for w in ours.weights], [torch.zeros_like(w) for w in ours.weights]
    centres: list[Codebook | None] = [None, None]
    assert_close(trace.held[0]["copies"], Z, -1)
    updates, outside = 0, False
    for step, (x, y) in enumerate(trace.batches):
        gradients = ours.gradients(x, y)
        for i, j in enumerate((0, 2)):
            gradients[j] = gradients[j] + rho * (ours.p[j] + u[i] - Z[i])
        ours.sgd(gradients, step)
        keep_largest(ours.weights, k)
        got, held = trace.parameters[step + 1], trace.held[step + 1]
        assert_close(got, ours.p, step)
        ours.p = clones(got)  # k-means may answer a difference in the last bit with another assignment
        if step % STEPS > 0 and step % STEPS % every == 0:
            updates += 1
            for i, w in enumerate(ours.weights):
                where = torch.ones_like(w, dtype=torch.bool) if published else w != 0
                u[i] = torch.where(where, u[i], 0.0)
                iterations = WARM_ITERATIONS if centres[i] else FIRST_ITERATIONS
                Z[i], centres[i] = project(torch.where(where, w + u[i], 0.0), bits, centres[i], iterations)
                u[i] = u[i] + w - Z[i]
                outside |= bool(held["copies"][i][w == 0].any())
                assert Z[i][Z[i] != 0].unique().numel() <= 2**bits
        assert_close(held["copies"], Z, step)
        assert_close(held["duals"], u, step)
    assert updates == {1: 8, 2: 4, 3: 2, 5: 2}[interval]
    final = l0(ours.weights, k)
    for i, (name, w) in enumerate(zip(("1.weight", "3.weight"), final, strict=True)):
        expected, _ = project(w + (u[i] if published else u[i] * (w != 0)), bits, centres[i], FINAL_ITERATIONS)
        assert_close([trace.final[name]], [expected], len(trace.batches))
        assert trace.final[name][trace.final[name] != 0].unique().numel() <= 2**bits
    kept = count([trace.final["1.weight"], trace.final["3.weight"]])
    if not published:
        assert not outside, "Z lives on the support of W"
        assert 0 < kept <= k


def test_a_codebook_with_room_for_all_values_is_no_constraint(tmp_path: Path) -> None:
    trace = observed(QuantisedL0(RATIO, 8, 0.3, 1), tmp_path)
    for parameters, held in list(zip(trace.parameters, trace.held, strict=True))[2:]:
        if held is not trace.held[STEPS + 1]:  # the first step of an epoch leaves Z behind
            assert_close(held["copies"], [parameters[0], parameters[2]], -1)
            assert max(u.abs().max() for u in held["duals"]) < 1e-6


def test_the_final_weights_live_on_the_support_that_the_last_step_left() -> None:
    """Also where the duals have entries on an older one, as between two updates of Z."""
    state, compressor = train_state(two_layers(), epochs=1), QuantisedL0(RATIO, 1, 0.1, 1)
    state.compression = compressor.start(state)
    state.step = 1
    compressor.after_step(state)
    assert all(u.any() for u in state.compression.duals)
    with torch.no_grad():
        for weight in state.weights:
            weight.copy_(torch.where(weight == 0, torch.rand(weight.shape, generator=rng(1)), 0.0))
    supports = [weight != 0 for weight in l0(state.weights, state.compression.k)]
    final = list(compressor.compressed(state).values())
    assert not any(z[~support].any() for z, support in zip(final, supports, strict=True))
    assert count(final) > state.compression.k / 2


@pytest.mark.parametrize("off_support", [False, True])
def test_the_published_copy_may_leave_the_support(off_support: bool) -> None:
    """Where a weight has left and its dual has not: the quirk keeps the dual and more weights than the budget."""
    state, compressor = train_state(two_layers(), epochs=1), QuantisedL0(RATIO, 1, 0.1, 1, off_support)
    state.compression = compressor.start(state)
    gone = state.weights[0].detach() == 0
    state.compression.duals[0] = gone * state.weights[0].detach().abs().max()
    final = compressor.compressed(state)["1.weight"]
    state.step = 1
    compressor.after_step(state)
    for tensor in (final, state.compression.copies[0]):
        assert bool(tensor[gone].all()) == bool(tensor[gone].any()) == off_support
    assert (count([final]) > state.compression.k) == off_support


@pytest.mark.parametrize(
    "compressor", [Compressor(), GlobalL0(RATIO), MagnitudeMask(RATIO), QuantisedL0(RATIO, 2, 0.1, 2)]
)
def test_a_look_at_the_final_weights_touches_nothing(compressor: Compressor) -> None:
    state = train_state(two_layers(), epochs=1)
    state.compression = compressor.start(state)
    with torch.no_grad():
        for weight in state.weights:
            weight += 0.01 * torch.randn(weight.shape, generator=rng(3))
    before, held = clones(state.weights), str(capture(state.compression))
    first, second = compressor.compressed(state), compressor.compressed(state)
    assert all(torch.equal(a, b) for a, b in zip(before, state.weights, strict=True))
    assert str(capture(state.compression)) == held
    assert all(torch.equal(first[name], second[name]) for name in weights(state.model))
    compressor.finalise(state)
    assert all(torch.equal(first[name], weight) for name, weight in weights(state.model).items())


@pytest.mark.parametrize("ratio", [0.1, 0.29, 0.3, 0.7, 1.0])
def test_budgets_are_exact_where_floats_are_not(ratio: float) -> None:
    """floor(ratio * N) in exact arithmetic: 0.29 * 100 is 28.999999999999996 as a float."""
    model = nn.Sequential(nn.Linear(10, 10))
    for compressor in (GlobalL0(ratio), MagnitudeMask(ratio), MagnitudeMask(ratio, "layer")):
        copy = nn.Sequential(nn.Linear(10, 10))
        copy.load_state_dict(model.state_dict())
        compressor.start(train_state(copy))
        assert count([copy[0].weight]) == round(ratio * 100)
