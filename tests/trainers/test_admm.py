"""ADMM pruning inside the real loop, against a loop written here: torch's optimisers, the penalty by autograd.

The reference keeps U in the graph, as the published code does, or detaches it; Z comes out of a full sort.
"""

from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
import torch
from tiny import Recording, Watched, clones, convolutional, rng, train_stage, train_state, two_layers
from torch import Tensor, nn
from torch.nn import functional as F

from robcomp.models.parameterisation import weights
from robcomp.trainers.compressor import capture, restore
from robcomp.trainers.compressors.admm import ADMMCompressor, ADMMState
from robcomp.trainers.compressors.layer_budgets import LayerBudgets
from robcomp.trainers.stage import Schedule, Stage
from robcomp.trainers.state import TrainState

EPOCHS, STEPS = 2, 5
SGD = Schedule(EPOCHS, lr=0.1, momentum=0.9, weight_decay=0.01, milestones=[1])
ADAM = Schedule(EPOCHS, lr=0.01, optimizer="adam", decay="constant", weight_decay=0.1)
RHO, GROWTH = 0.3, 1.5
TWO = {"1": ("1.weight", 3072), "3": ("3.weight", 36)}  # the layers of `two_layers`


@dataclass
class Trace:
    """Parameters after the start and after each step, ADMM's run state of then, and the final weights."""

    batches: list[tuple[Tensor, Tensor]] = field(default_factory=list)
    parameters: list[dict[str, Tensor]] = field(default_factory=list)
    held: list[ADMMState] = field(default_factory=list)
    final: dict[str, Tensor] = field(default_factory=dict)


def observed(admm: ADMMCompressor, folder: Path, model: nn.Module, schedule: Schedule = SGD) -> Trace:
    """Train `model` for EPOCHS of STEPS steps and look after each."""
    objective, trace = Recording(), Trace()
    state = train_state(model, batch=8, epochs=EPOCHS)
    assert state.steps_per_epoch == STEPS

    def look(state: TrainState) -> None:
        held: ADMMState = state.compression
        trace.parameters.append({name: p.detach().clone() for name, p in state.model.named_parameters()})
        trace.held.append(replace(held, copies=clones(held.copies), duals=clones(held.duals)))

    stage = Stage("sparse", objective, schedule, Watched(admm, look))
    trace.final = train_stage(stage, state, folder).tensors
    trace.batches = objective.batches[: EPOCHS * STEPS]  # those after training refresh batch norm's statistics
    assert len(trace.parameters) == EPOCHS * STEPS + 1
    return trace


def largest(tensor: Tensor, count: int, scheme: str = "irregular") -> Tensor:
    """`tensor` with its `count` units of largest norm alone, by a stable full sort."""
    matrix = tensor.view(len(tensor), -1)
    rows = {"filter": matrix, "column": matrix.T, "irregular": matrix.reshape(-1, 1)}[scheme]
    order = (-rows.double().square().sum(1)).argsort(stable=True)
    kept = torch.zeros_like(rows)
    kept[order[:count]] = rows[order[:count]]
    return (kept.T if scheme == "column" else kept).reshape(tensor.shape)


@dataclass
class Reference:
    """The published loop: `pruned` are the parameters under ADMM with the units that each keeps."""

    model: nn.Module
    pruned: dict[str, int]
    schedule: Schedule
    scheme: str = "irregular"
    attached: bool = False
    progressive: bool = False

    def __post_init__(self) -> None:
        p = dict(self.model.named_parameters())
        self.W = {name: p[name] for name in self.pruned}
        self.Z = {name: largest(w.detach(), self.pruned[name], self.scheme) for name, w in self.W.items()}
        self.U = {name: torch.zeros_like(w) for name, w in self.W.items()}
        self.rho, how = RHO, self.schedule
        self.masks = {name: (w != 0).float() for name, w in p.items() if self.progressive and w.dim() > 1}
        if how.optimizer == "adam":
            self.optimizer = torch.optim.Adam(p.values(), how.lr, weight_decay=how.weight_decay)
        else:
            self.optimizer = torch.optim.SGD(p.values(), how.lr, how.momentum, weight_decay=how.weight_decay)

    def step(self, number: int, x: Tensor, y: Tensor) -> None:
        for group in self.optimizer.param_groups:
            tenth = self.schedule.milestones and number >= STEPS * self.schedule.milestones[0]
            group["lr"] = self.schedule.lr * (0.1 if tenth else 1)
        self.optimizer.zero_grad()
        penalty = sum(((self.W[n] - self.Z[n] + self.U[n]) ** 2).sum() for n in self.W)
        (F.cross_entropy(self.model(x), y) + self.rho / 2 * penalty).backward()
        self.optimizer.step()
        with torch.no_grad():
            for name, mask in self.masks.items():
                self.model.get_parameter(name).mul_(mask)

    def update(self) -> None:
        """At the first step of a period."""
        self.rho *= GROWTH
        for name, w in self.W.items():
            self.Z[name] = largest((w + self.U[name]).detach(), self.pruned[name], self.scheme)
            attached = w - self.Z[name] + self.U[name]
            self.U[name] = attached if self.attached else attached.detach()


def compare(trace: Trace, ours: Reference, starts: list[int], rtol: float = 1e-4) -> None:
    """Every step of `trace` against the reference, which updates before the steps in `starts`."""

    def close(got: Tensor, expected: Tensor, what: str) -> None:
        off = (got - expected).abs().max()
        assert torch.allclose(got, expected, rtol=rtol, atol=2e-6), f"{what}: off by {off:.2e}"

    for step in range(EPOCHS * STEPS + 1):
        if step in starts:
            ours.update()
        for name, p in ours.model.named_parameters():
            close(trace.parameters[step][name], p.detach(), f"{name} before step {step}")
            with torch.no_grad():
                p.copy_(trace.parameters[step][name])  # a difference in the last bit may change which unit is kept
        held = trace.held[step]
        for number, name in enumerate(ours.W):
            close(held.copies[number], ours.Z[name], f"Z of {name} before step {step}")
            close(held.duals[number], ours.U[name].detach(), f"U of {name} before step {step}")
        assert held.penalty == pytest.approx(ours.rho)
        assert held.updates == sum(start <= step for start in starts)
        if step < len(trace.batches):
            ours.step(step, *trace.batches[step])


@pytest.mark.parametrize("attached", [False, True])
@pytest.mark.parametrize("schedule", [SGD, ADAM], ids=["sgd", "adam"])
@pytest.mark.parametrize(
    ("cut", "starts"),
    [
        ({"periods": 1}, []),
        ({"periods": 2}, [5]),
        ({"periods": 4}, [3, 5, 8]),  # 2.5 steps each
        ({"periods": 50}, list(range(1, 10))),
        ({"periods": 50, "interval": 0.6}, [3, 6, 9]),
        ({"interval": 1.5}, [8]),  # 7.5 steps
        ({"interval": 7.0}, []),
    ],
)
def test_every_step_is_the_published_one(
    tmp_path: Path, cut: dict, starts: list[int], schedule: Schedule, attached: bool
) -> None:
    budgets = LayerBudgets(1.0, ratios={"1": 0.02, "3": 0.5})
    admm = ADMMCompressor(budgets, RHO, GROWTH, attached_dual=attached, **cut)
    trace = observed(admm, tmp_path, two_layers(), schedule)
    ours = Reference(two_layers(), {"1.weight": 61, "3.weight": 18}, schedule, attached=attached)
    compare(trace, ours, starts)
    for name, kept in ours.pruned.items():
        assert trace.parameters[-1][name].count_nonzero() > kept, "nothing is pruned before the end"
        assert torch.equal(trace.final[name], largest(trace.parameters[-1][name], kept))


def test_the_reference_tells_a_detached_dual_from_an_attached_one(tmp_path: Path) -> None:
    budgets = LayerBudgets(1.0, ratios={"1": 0.02, "3": 0.5})
    trace = observed(ADMMCompressor(budgets, RHO, GROWTH, periods=4), tmp_path, two_layers())
    ours = Reference(two_layers(), {"1.weight": 61, "3.weight": 18}, SGD, attached=True)
    with pytest.raises(AssertionError, match="before step 4: off by"):  # step 3 is the first with another gradient
        compare(trace, ours, [3, 5, 8])


@pytest.mark.parametrize(
    ("scheme", "pruned"), [("filter", {"1.weight": 3}), ("column", {"1.weight": 76, "3.weight": 6})]
)
def test_groups_step_by_step(tmp_path: Path, scheme: str, pruned: dict[str, int]) -> None:
    """filter: floor(0.3 * 3108) - 36 of the last layer are 896, 3 rows of 256; column: 76 of 12 and 6 of 3 are 930."""
    trace = observed(ADMMCompressor(LayerBudgets(0.3, scheme), RHO, GROWTH, periods=4), tmp_path, two_layers())
    compare(trace, Reference(two_layers(), pruned, SGD, scheme), [3, 5, 8])
    for name, kept in pruned.items():
        assert torch.equal(trace.final[name], largest(trace.parameters[-1][name], kept, scheme))
    assert (trace.final["3.weight"] != 0).all() == (scheme == "filter")


def test_progressive_keeps_zeros(tmp_path: Path) -> None:
    def half() -> nn.Module:
        model = two_layers()
        with torch.no_grad():
            for weight in weights(model).values():
                weight[torch.rand(weight.shape, generator=rng(1)) < 0.5] = 0
        return model

    budgets = LayerBudgets(1.0, ratios={"1": 0.02})
    trace = observed(ADMMCompressor(budgets, RHO, GROWTH, periods=4, progressive=True), tmp_path, half())
    compare(trace, Reference(half(), {"1.weight": 61}, SGD, progressive=True), [3, 5, 8])
    for name, weight in weights(half()).items():
        assert not trace.final[name][weight == 0].any()
    free = observed(ADMMCompressor(budgets, RHO, GROWTH, periods=4), tmp_path / "free", half())
    assert free.parameters[-1]["3.weight"][weights(half())["3.weight"] == 0].any()


def test_bn_filter_prunes_by_the_scale(tmp_path: Path) -> None:
    budgets = LayerBudgets(1.0, "bn_filter", {"2.conv": 0.4})
    given = convolutional()
    trace = observed(ADMMCompressor(budgets, RHO, GROWTH, periods=4), tmp_path, given)
    compare(trace, Reference(convolutional().train(), {"2.bn.weight": 3}, SGD), [3, 5, 8])
    scale, last = trace.final["2.bn.weight"], trace.parameters[-1]
    assert torch.equal(scale, largest(last["2.bn.weight"], 3))
    expected = last["2.conv.weight"] * (scale != 0).view(8, 1, 1, 1)
    assert torch.equal(trace.final["2.conv.weight"], expected)
    assert expected.flatten(1).any(1).sum() == 3
    full = convolutional()
    full.load_state_dict(trace.final)
    x = torch.rand(4, 1, 16, 16, generator=rng(3))
    cut = full.eval()(x)
    with torch.no_grad():
        full[2].conv.weight.copy_(last["2.conv.weight"])
    assert torch.equal(full(x), cut), "the filters' weights do not matter where the scale is zero"
    assert trace.final["0.weight"].all()
    assert trace.final["6.weight"].all()


@pytest.mark.parametrize("progressive", [False, True])
def test_what_is_saved_is_all_there_is(tmp_path: Path, progressive: bool) -> None:
    """A second run state, started elsewhere, goes on from the file as the first does."""

    def made() -> tuple[TrainState, ADMMCompressor]:
        model = two_layers()
        with torch.no_grad():
            model[1].weight[:, ::2] = 0
        state = train_state(model, batch=8, epochs=EPOCHS)
        admm = ADMMCompressor(LayerBudgets(0.3), RHO, GROWTH, 4, progressive=progressive, attached_dual=True)
        state.compression = admm.start(state)
        return state, admm

    def go(state: TrainState, admm: ADMMCompressor, start: int, end: int) -> None:
        for state.step in range(start, end):
            for weight in state.weights:
                weight.grad = torch.randn(weight.shape, generator=rng(state.step))
            admm.regularise(state)
            with torch.no_grad():
                for weight in state.weights:
                    weight -= 0.1 * weight.grad
            admm.after_step(state)

    (whole, first), (stopped, second), (resumed, third) = made(), made(), made()
    go(whole, first, 0, 10)
    go(stopped, second, 0, 6)
    torch.save(capture(stopped.compression), tmp_path / "state.pt")
    restore(resumed.compression, torch.load(tmp_path / "state.pt", weights_only=True))
    resumed.model.load_state_dict(stopped.model.state_dict())
    go(resumed, third, 6, 10)
    for a, b in zip(whole.weights, resumed.weights, strict=True):
        assert torch.equal(a, b)
    assert str(capture(whole.compression)) == str(capture(resumed.compression))
    assert whole.compression.updates == 3
