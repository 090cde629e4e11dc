"""The loop: the order of its hooks, what it keeps, what it hands on, and how it stops."""

from dataclasses import dataclass, field
from pathlib import Path

import pytest
import torch
from tiny import dataset, run, stage_store, train_stage, train_state, two_layers

from robcomp import artifact
from robcomp.attacks.pgd import PGD
from robcomp.errors import UserError
from robcomp.models.parameterisation import weights
from robcomp.trainers.compressor import Compressor
from robcomp.trainers.compressors.codebook import QuantisedL0
from robcomp.trainers.compressors.sparsity import GlobalL0
from robcomp.trainers.loop import stage_loop as loop
from robcomp.trainers.loop.stage_store import StageStore
from robcomp.trainers.objectives import Adversarial, Loss, Natural, Objective
from robcomp.trainers.stage import Schedule, Stage
from robcomp.trainers.state import TrainState

STEADY = Schedule(4, lr=0.2, decay="constant")


@dataclass(frozen=True)
class Diary(Compressor):
    """Notes which hook was called when; ruins the weights after the epochs in `ruin`."""

    ruin: tuple[int, ...] = ()
    notes: list[str] = field(default_factory=list, init=False)
    ends: list[dict] = field(default_factory=list, init=False)  # the model's state dict at each epoch's end

    def start(self, state: TrainState) -> None:
        self.notes.append("start")

    def regularise(self, state: TrainState) -> None:
        assert all(p.grad is not None for p in state.model.parameters())
        self.notes.append(f"regularise {state.epoch}.{state.step_in_epoch}")

    def after_step(self, state: TrainState) -> None:
        self.notes.append(f"after_step {state.epoch}.{state.step_in_epoch}")

    @torch.no_grad()
    def after_epoch(self, state: TrainState) -> None:
        self.notes.append("after_epoch")
        if len(self.ends) + 1 in self.ruin:
            for weight in state.weights:
                weight.zero_()
        self.ends.append({name: tensor.clone() for name, tensor in state.model.state_dict().items()})

    def finalise(self, state: TrainState) -> None:
        self.notes.append("finalise")


def test_the_hooks_come_in_order(tmp_path: Path) -> None:
    diary = Diary()
    state = train_state(two_layers(), batch=20, epochs=2)
    train_stage(Stage("dense", Natural(), Schedule(2, 0.1), diary), state, tmp_path)
    steps = [[f"regularise {e}.{i}", f"after_step {e}.{i}"] for e in (0, 1) for i in (0, 1)]
    first, second = [*steps[0], *steps[1], "after_epoch"], [*steps[2], *steps[3], "after_epoch"]
    assert diary.notes == ["start", *first, *second, "finalise"]


def test_the_learning_rate_of_a_step_is_that_of_its_fraction_of_an_epoch(tmp_path: Path) -> None:
    seen = []

    class Watching(Compressor):
        def regularise(self, state: TrainState) -> None:
            seen.append(state.optimizer.param_groups[0]["lr"])

    schedule = Schedule(2, lr=0.4, decay="linear", warmup=0.5)
    state = train_state(two_layers(), batch=10, epochs=2)
    train_stage(Stage("dense", Natural(), schedule, Watching()), state, tmp_path)
    assert seen == pytest.approx([schedule.rate(step / 4) for step in range(8)])
    assert seen[0] == 0 < seen[1] < seen[2] > seen[-1]


def test_a_stage_without_epochs_only_enters_its_constraint(tmp_path: Path) -> None:
    model = two_layers()
    before = {name: w.detach().clone() for name, w in weights(model).items()}
    result = train_stage(Stage("sparse", Natural(), Schedule(0), GlobalL0(0.1)), train_state(model, epochs=0), tmp_path)
    kept = {name: result.tensors[name] for name in before}
    assert sum(int(w.count_nonzero()) for w in kept.values()) == int(0.1 * sum(w.numel() for w in before.values()))
    assert all(torch.equal(w, torch.where(w != 0, before[name], 0.0)) for name, w in kept.items())
    assert result.records == []


@pytest.mark.parametrize("objective", [Natural(), Adversarial(PGD(0.05, steps=1))], ids=["clean", "robust"])
@pytest.mark.parametrize("ruin", [(3, 4), (1, 3, 4), ()])
def test_selection_best_keeps_the_best_epoch_and_last_the_last(
    tmp_path: Path, ruin: tuple, objective: Objective
) -> None:
    results = {}
    for selection in ("best", "last"):
        state, diary = train_state(two_layers(), data=dataset(40, val=30), batch=10, epochs=4), Diary(ruin)
        stage = Stage("dense", objective, STEADY, diary)
        results[selection] = train_stage(stage, state, tmp_path / selection, selection), diary
    result, diary = results["best"]
    scores = [record["val_clean" if isinstance(objective, Natural) else "val_robust"] for record in result.records]
    best = scores.index(max(scores))
    assert best not in [epoch - 1 for epoch in ruin]
    assert not ruin or scores[best] > scores[3]
    for (kept, seen), end in ((results["best"], best), (results["last"], 3)):
        assert all(torch.equal(kept.tensors[name], tensor) for name, tensor in seen.ends[end].items())


def test_the_final_weights_are_what_is_validated(tmp_path: Path) -> None:
    """The network in training is dense here; its compressed form has two weights and knows nothing."""
    state = train_state(two_layers(), data=dataset(40, val=30), batch=10, epochs=4)

    class Blank(Compressor):
        def compressed(self, state: TrainState) -> dict[str, torch.Tensor]:
            return {name: torch.zeros_like(w) for name, w in super().compressed(state).items()}

    result = train_stage(Stage("dense", Natural(), STEADY, Blank()), state, tmp_path)
    assert result.records[-1]["clean"] > 0.9
    assert result.records[-1]["val_clean"] == pytest.approx(1 / 3)
    assert not any(tensor.any() for name, tensor in result.tensors.items() if "weight" in name)


def test_validation_draws_no_random_number_of_training(tmp_path: Path) -> None:
    """With and without a held-out slice, and whatever is selected, the same weights come out."""
    stage = Stage("dense", Adversarial(PGD(0.05, steps=1)), STEADY)
    without, with_slice = (
        train_stage(stage, train_state(two_layers(), data=dataset(40, val), epochs=4), tmp_path / str(val)).tensors
        for val in (0, 30)
    )
    assert all(torch.equal(without[name], tensor) for name, tensor in with_slice.items())


def test_an_epoch_record_holds_what_happened(tmp_path: Path) -> None:
    objective = Adversarial(PGD(0.05, steps=1))
    state = train_state(two_layers(), data=dataset(40, val=30), batch=10, epochs=4)
    records = train_stage(Stage("dense", objective, STEADY), state, tmp_path).records
    assert [record["epoch"] for record in records] == [1, 2, 3, 4]
    assert all(record["stage"] == "dense" and record["epochs"] == 4 for record in records)
    assert records[0]["loss"] > records[-1]["loss"] > 0
    for record in records:
        assert 0 <= record["val_robust"] <= record["val_clean"] <= 1
        assert 0 <= record["robust"] <= 1
    seconds = [record["seconds"] for record in records]
    assert seconds == sorted(seconds)


def test_a_finished_stage_is_read_back_as_it_was(tmp_path: Path) -> None:
    stage = Stage("dense", Natural(), STEADY)
    result = train_stage(stage, train_state(two_layers(), epochs=4), tmp_path)
    stored = stage_store(tmp_path, stage).result()
    assert stored.records == result.records
    assert stored.form == {"kind": "dense"}
    assert all(torch.equal(stored.tensors[name], tensor) for name, tensor in result.tensors.items())
    stage_store(tmp_path, stage).discard()
    assert stage_store(tmp_path, stage).result() is None


# Divergence is the user's to mend, so it is one sentence that names the field.

WILD = Schedule(1, lr=1e30, decay="constant")
DIVERGING = {
    "natural": Stage("dense", Natural(), WILD),
    "linf": Stage("dense", Adversarial(PGD(0.1, steps=1)), WILD),
    "l2": Stage("dense", Adversarial(PGD(0.1, "L2", steps=1)), WILD),
    "l2_bn_train": Stage("dense", Adversarial(PGD(0.1, "L2", "train", steps=1)), WILD),
    "l0": Stage("sparse", Natural(), WILD, GlobalL0(0.1)),
    "quantised": Stage("quantised", Natural(), WILD, QuantisedL0(0.1, 2, 0.1, 2)),
}


@pytest.mark.parametrize("stage", DIVERGING.values(), ids=DIVERGING)
def test_divergence_names_the_field_to_change(tmp_path: Path, stage: Stage) -> None:
    state = train_state(two_layers(), data=dataset(80, val=10), batch=8, epochs=1, stage=stage.name)
    with pytest.raises(UserError, match=rf"diverged in epoch 1 of stage '{stage.name}'.*schedule\.{stage.name}\.lr"):
        train_stage(stage, state, tmp_path)
    assert not list(tmp_path.glob("*/result.safetensors"))


@pytest.mark.usefixtures("sandbox", "no_curves")
def test_post_training_quantisation() -> None:
    folder = run(["method=da", "quantise.bits=4"])
    model, _, bits = artifact.load(folder / "model.rcz")
    assert bits == 4
    dense, _, _ = artifact.load(run(["method=da"]) / "model.rcz")
    for (name, given), got in zip(weights(dense).items(), weights(model).values(), strict=True):
        assert got[got != 0].unique().numel() <= 16
        assert (got - given).norm() < 0.2 * given.norm(), name
    for (name, given), got in zip(dense.named_parameters(), model.parameters(), strict=True):
        assert name.endswith("weight") or torch.equal(given, got)


def test_checkpoints_by_the_clock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    saved: list[int] = []
    monkeypatch.setattr(StageStore, "save_checkpoint", lambda self, checkpoint: saved.append(checkpoint["step"]))
    for seconds, expected in ((1e9, [4, 8]), (-1.0, list(range(1, 9)))):
        saved.clear()
        monkeypatch.setattr("robcomp.trainers.loop.stage_store.CHECKPOINT_SECONDS", seconds)
        state = train_state(two_layers(), batch=10, epochs=2)
        train_stage(Stage("dense", Natural(), Schedule(2, 0.1)), state, tmp_path / str(seconds))
        assert saved == expected


# Objectives that change, and stages that go on


def test_the_loop_asks_for_the_objective_of_each_step(tmp_path: Path) -> None:
    seen = []

    @dataclass
    class Noting(Natural):
        epoch: int = 0

        def loss(self, state: TrainState, x: torch.Tensor, y: torch.Tensor) -> Loss:
            seen.append((state.step, self.epoch))
            return super().loss(state, x, y)

    class ByEpoch(Objective):
        def at(self, state: TrainState) -> Objective:
            return Noting(state.epoch)

    train_stage(Stage("dense", ByEpoch(), STEADY), train_state(two_layers(), batch=20, epochs=4), tmp_path)
    assert seen == [(step, step // 2) for step in range(8)]


def losses(values: list[float]) -> Objective:
    """An objective whose adversarial loss is `values`, one an epoch; the weights learn as with the natural one."""

    @dataclass
    class Scripted(Natural):
        def loss(self, state: TrainState, x: torch.Tensor, y: torch.Tensor) -> Loss:
            return super().loss(state, x, y)._replace(adversarial=torch.tensor(values[state.epoch]))

    return Scripted()


@pytest.mark.parametrize(
    ("values", "limit", "epochs"),
    [
        ([5, 4, 3, 2, 1, 0.9, 0.8], 0.0, 4),  # no limit given: never beyond its epochs
        ([5, 4, 3, 2, 1, 0.9, 0.8], 0.5, 6),  # falls all the time: up to the limit
        ([5, 4, 3, 2, 1, 0.9, 0.8], 0.3, 5),
        ([5, 4, 3, 2, 2.5, 1], 0.5, 5),  # the fifth epoch was no better
        ([5, 4, 3, 3, 1], 0.5, 4),  # it stood still in the last
        ([3, 4, 5, 4, 3, 2], 0.5, 6),  # what counts is the last step, not the beginning
    ],
)
def test_a_stage_goes_on_while_its_adversarial_loss_falls(
    tmp_path: Path, values: list[float], limit: float, epochs: int
) -> None:
    state = train_state(two_layers(), batch=20, epochs=4)
    stage = Stage("dense", losses(values), Schedule(4, lr=0.2, decay="linear"), limit=limit)
    records = train_stage(stage, state, tmp_path).records
    assert [record["epoch"] for record in records] == list(range(1, epochs + 1))
    assert [record["adversarial_loss"] for record in records] == pytest.approx(values[:epochs])
    assert (state.step, state.epochs, state.total_steps) == (2 * epochs, 4, 8)
    assert [record["lr"] for record in records[4:]] == pytest.approx([0.2 * 0.125] * (epochs - 4))
    assert [record["epochs"] for record in records] == [4] * 4 + list(range(5, epochs + 1))


def test_a_natural_stage_has_no_adversarial_loss_and_does_not_go_on(tmp_path: Path) -> None:
    state = train_state(two_layers(), batch=20, epochs=4)
    records = train_stage(Stage("dense", Natural(), STEADY, limit=1.0), state, tmp_path).records
    assert [record["adversarial_loss"] for record in records] == [None] * 4


def test_selection_on_the_test_set_is_asked_for_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The published codes' quirk: validation, and with it the choice of the epoch, sees the test images."""
    seen = []
    monkeypatch.setattr(loop, "validation_accuracy", lambda state, attack, split: (seen.append(split), (0.5, 0.5))[1])
    for selection in ("best", "best_on_test"):
        state = train_state(two_layers(), data=dataset(40, val=30), epochs=1)
        train_stage(Stage("dense", Natural(), Schedule(1, 0.1)), state, tmp_path / selection, selection)
        assert seen.pop() is (state.data.test if selection == "best_on_test" else state.data.val)


def test_momentum_is_what_the_optimiser_smooths() -> None:
    for schedule, expected in (
        (Schedule(1, 0.1, momentum=0.5, weight_decay=0), lambda g1, g2: 0.5 * g1 + g2),
        (Schedule(1, 0.1, optimizer="adam", weight_decay=0), lambda g1, g2: 0.9 * 0.1 * g1 + 0.1 * g2),
        (Schedule(1, 0.1, momentum=0, weight_decay=0), lambda g1, g2: g2),
    ):
        state = train_state(two_layers())
        state.optimizer = loop.make_optimizer(state.model, schedule)
        gradients = []
        for _ in range(2):
            state.model.zero_grad()
            Natural().loss(state, *state.batch()).value.backward()
            gradients.append([weight.grad.clone() for weight in state.weights])
            state.optimizer.step()
            state.step += 1
        for got, g1, g2 in zip(state.momentum(), *gradients, strict=True):
            assert torch.allclose(got, expected(g1, g2), atol=1e-7)
