"""Every method against every contract. A new method is one row in ROWS.

All methods run for real, on `tiny`: data, stages, packed file, report.
"""

import json
import math
import os
import signal
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tiny import RUN, Killed, kill_at, run
from torch import Tensor

from robcomp import artifact
from robcomp.data import load
from robcomp.errors import UserError
from robcomp.models.parameterisation import Dense, FactoredForm, Parameterisation, weights
from robcomp.runs.identity import run_directory
from robcomp.settings.compose import compose_config
from robcomp.trainers.attack_curriculum import AttackCurriculum
from robcomp.trainers.compressor import Compressor
from robcomp.trainers.compressors.admm import ADMMCompressor
from robcomp.trainers.compressors.admm_oneshot import ADMMOneShotCompressor
from robcomp.trainers.compressors.codebook import QuantisedL0
from robcomp.trainers.compressors.fixed_support import FixedSupport
from robcomp.trainers.compressors.lasso import Lasso
from robcomp.trainers.compressors.layer_budgets import LayerBudgets
from robcomp.trainers.compressors.low_rank import RankBudget
from robcomp.trainers.compressors.rewiring import Rewiring
from robcomp.trainers.compressors.snip import Snip
from robcomp.trainers.compressors.sparsity import GlobalL0, MagnitudeMask
from robcomp.trainers.loop import stage_store
from robcomp.trainers.method import METHODS
from robcomp.trainers.objectives import Adversarial, Loss, Natural, NaturalWarmup, Objective, Trades
from robcomp.trainers.state import TrainState

# What the published setting of ATMC gives each stage (code README, CIFAR-10): epochs, learning rate, milestones.
PUBLISHED = {
    "dense": (200, 0.05, [80, 120, 150]),
    "sparse": (200, 0.01, [30, 60, 90, 120]),
    "factored": (200, 0.005, [60, 80, 120]),
    "quantised": (150, 0.005, [60, 80, 120]),
}


NO_RATIO = (1.0,)


@dataclass
class Row:
    """One method: the stages it is made of, what each minimises, under which constraint and in which form."""

    stages: dict[str, Compressor]
    objective: type[Objective] = Adversarial
    objectives: dict[str, type[Objective]] = field(default_factory=dict)  # of the stages that have another
    starts: dict[str, str] = field(default_factory=dict)  # of the stages that do not go on from the one before
    restarts: dict[str, int] = field(default_factory=dict)  # of the stages whose learning rate starts over
    milestones: dict[str, list[float]] = field(default_factory=dict)  # of the stages that have their own
    natural: tuple[str, ...] = ()  # stages that stay natural whatever objective= asks for
    overrides: tuple[str, ...] = ()
    learned_bits: bool = False  # whether method.bits sets a codebook; quantise.bits fits one afterwards otherwise
    ratios: tuple[float, ...] = (0.0101, 0.3)  # kept fractions to try; (1.0,) for a method without a ratio
    exact: bool = True  # whether the budget is used up to the last weight
    forms: dict[str, Parameterisation] = field(default_factory=dict)  # of the stages that are not dense

    @property
    def sparse(self) -> bool:
        return self.ratios != NO_RATIO


DENSE, RATIO = Compressor(), 0.005
MASK, L0 = {"dense": DENSE, "sparse": MagnitudeMask(RATIO)}, {"dense": DENSE, "sparse": GlobalL0(RATIO)}
PRUNING = {"dense": DENSE, "admm": ADMMCompressor(LayerBudgets(RATIO))}
THIRDS = [200 / 3, 400 / 3]
ATMC = {**L0, "factored": GlobalL0(RATIO), "quantised": QuantisedL0(RATIO, 8, 0.1, 10)}
ROWS = {
    "nat": Row({"dense": DENSE}, Natural, ratios=NO_RATIO),
    "da": Row({"dense": DENSE}, ratios=NO_RATIO),
    "nap": Row(MASK, Natural),
    "ap": Row(MASK),
    "al0": Row(L0),
    "alr": Row(
        {"dense": DENSE, "low_rank": DENSE},
        ratios=(0.3, 0.6),
        exact=False,
        forms={"low_rank": RankBudget(RATIO)},
        overrides=("method.ratio=0.4",),
    ),
    "atmc": Row(
        ATMC,
        overrides=("method.quantise_interval=3",),
        learned_bits=True,
        forms={"factored": FactoredForm(), "quantised": FactoredForm()},
    ),
    "admm": Row(
        {**PRUNING, "retrain": FixedSupport()},
        restarts={"admm": 10},
        milestones={"admm": THIRDS, "retrain": [80, 150]},
    ),
    "admm_oneshot": Row({"oneshot": ADMMOneShotCompressor(RATIO)}, AttackCurriculum),
    "dnr": Row({"rewired": Rewiring(RATIO)}, NaturalWarmup),
    "dnr_c": Row({"rewired": Rewiring(RATIO, beta=1.0)}, Natural),
    "l1": Row({"lasso": Lasso(1e-4), "sparse": MagnitudeMask(RATIO)}),
    "lottery": Row(
        {**PRUNING, "ticket": FixedSupport()},
        starts={"ticket": "init"},
        restarts={"admm": 10},
        milestones={"admm": THIRDS},
    ),
    "prune_first": Row(
        {**MASK, "adversarial": FixedSupport()},
        objectives={"dense": Natural, "sparse": Natural},
        natural=("dense", "sparse"),
    ),
    "snip": Row({"snip": Snip(RATIO)}, Natural),
    "sparse_momentum": Row({"rewired": Rewiring(RATIO, rho=0.0, beta=1.0, spare=True)}, Natural),
}


@pytest.fixture(params=ROWS)
def name(request: pytest.FixtureRequest) -> str:
    return request.param


pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("sandbox", "no_curves")]


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One out= for runs that may share stages."""
    return tmp_path_factory.mktemp("outputs")


def finished(name: str, out: Path, *overrides: str) -> tuple[Path, dict[str, Any]]:
    """The run directory of `name` and its report."""
    folder = run([f"method={name}", f"out={out}", *ROWS[name].overrides, *overrides])
    return folder, json.loads((folder / "report.json").read_text())


def codebook_override(name: str, bits: int) -> str:
    return f"{'method' if ROWS[name].learned_bits else 'quantise'}.bits={bits}"


def test_every_registered_method_has_a_row() -> None:
    assert set(METHODS) == set(ROWS)


def test_stages_are_the_published_ones(name: str) -> None:
    config, row = compose_config([f"method={name}", "dataset=cifar10"]), ROWS[name]
    stages = config.method.stages(config.recipe_context())
    assert {stage.name: stage.compressor for stage in stages} == row.stages
    for stage in stages:
        how = stage.schedule
        *how_long_and_fast, milestones = PUBLISHED[stage.schedule_name]
        assert [how.epochs, how.lr] == how_long_and_fast
        assert how.milestones == pytest.approx(row.milestones.get(stage.name, milestones))
        assert (how.optimizer, how.decay, how.gamma, how.warmup) == ("sgd", "milestones", 0.1, 0)
        assert (how.momentum, how.weight_decay) == (0.9, 1e-4)
        assert type(stage.objective) is row.objectives.get(stage.name, row.objective)
        assert stage.start == row.starts.get(stage.name, "previous")
        assert how.restarts == row.restarts.get(stage.name, 1)
        assert stage.parameterisation == row.forms.get(stage.name, Dense())
    assert config.training.batch_size == 128


def test_the_published_adversary_of_training() -> None:
    config = compose_config(["dataset=cifar10"])
    objective = config.recipe_context().adversarial
    attack = objective.attack
    assert objective.natural == 0.5
    assert (attack.norm, attack.eps, attack.steps, attack.restarts) == ("Linf", pytest.approx(4 / 255), 7, 1)
    assert attack.step_size == pytest.approx(1.25 * 4 / 255 / 7)
    assert not attack.random_start  # a slip in the published code, and part of its setting
    assert (config.model.name, config.dataset.pad, config.dataset.flip) == ("resnet34", 4, True)


def test_one_factor_shortens_all_stages(name: str) -> None:
    config = compose_config([f"method={name}", "dataset=cifar10", "method.epochs_scale=0.1"])
    for stage in config.method.stages(config.recipe_context()):
        epochs, _, milestones = PUBLISHED[stage.schedule_name]
        assert stage.schedule.epochs == epochs // 10
        whole = ROWS[name].milestones.get(stage.name, milestones)
        assert stage.schedule.milestones == pytest.approx([m / 10 for m in whole])


@pytest.mark.parametrize("chosen", ["natural", "adversarial", "mixed", "trades"])
def test_every_method_trains_on_the_objective_that_is_asked_for(name: str, chosen: str) -> None:
    config = compose_config([f"method={name}", "dataset=cifar10", f"objective={chosen}"])
    attack = config.inner_attack()
    expected = {
        "natural": Natural(),
        "adversarial": Adversarial(attack, 0),
        "mixed": Adversarial(attack, 0.5),
        "trades": Trades(attack, 6),
    }[chosen]
    for stage in config.method.stages(config.recipe_context()):
        got = stage.objective
        if chosen != "natural" and isinstance(got, NaturalWarmup | AttackCurriculum):  # what it comes to
            got = got.then if isinstance(got, NaturalWarmup) else got.base
        assert got == (Natural() if stage.name in ROWS[name].natural else expected)


@pytest.mark.parametrize("chosen", ["natural", "adversarial", "trades"])
def test_another_objective_is_another_network(name: str, chosen: str, shared: Path) -> None:
    """Each trains for real, and the robust objectives measure the adversarial loss."""
    folder, report = finished(name, shared, f"objective={chosen}")
    stages = {stage["name"]: stage["key"] for stage in report["stages"]}
    own = keys(name, shared)
    moved = [stage for stage in stages if stages[stage] != own[stage]]
    natural = ROWS[name].objective is Natural
    assert bool(moved) != (natural and chosen == "natural")
    last = [line for line in log_without_times(folder) if line.get("event") == "epoch"][-1]
    assert (last["adversarial_loss"] is None) == (chosen == "natural")
    said = [f"objective {chosen}" + (" (beta 6)" if chosen == "trades" else "")]
    assert report["run"].get("settings", []) == (said if moved else [])  # an empty list is left out
    assert (f"{name}, objective {chosen}" in (folder / "report.md").read_text()) == bool(moved)


def test_thirty_two_bits_are_no_codebook() -> None:
    config = compose_config(["method=atmc", "method.bits=32"])
    assert [stage.name for stage in config.method.stages(config.recipe_context())] == ["dense", "sparse", "factored"]


@pytest.mark.parametrize("bits", [32, 8, 4, 1])
def test_the_final_weights_are_inside_the_constraint(name: str, shared: Path, bits: int) -> None:
    sparse = ROWS[name].sparse
    for ratio in ROWS[name].ratios:
        settings = [codebook_override(name, bits), *([f"method.ratio={ratio}"] if sparse else [])]
        folder, report = finished(name, shared, *settings)
        model, spec, stored_bits = artifact.load(folder / "model.rcz")
        tensors = weights(model)
        budget = math.floor(ratio * sum(w.numel() for w in weights(spec.build()).values()))
        nonzero = sum(int(w.count_nonzero()) for w in tensors.values())
        assert 0 < nonzero <= budget
        if bits == 32 and ROWS[name].exact:
            assert nonzero == budget  # a codebook may send small weights to zero; the l0 budget alone is used up
        for tensor in tensors.values():
            assert tensor[tensor != 0].unique().numel() <= 2**bits
        assert report["size"]["nonzero"] == nonzero
        assert report["size"]["bits"] == stored_bits == bits


def test_the_report_is_about_the_file(name: str, shared: Path) -> None:
    folder, report = finished(name, shared)
    model, _, _ = artifact.load(folder / "model.rcz")
    test = load(compose_config(RUN).dataset, Path(os.environ["ROBCOMP_DATA_DIR"])).test
    x, y = test.images.float() / 255, test.labels
    assert len(y) == report["data"]["test"] == report["accuracy"]["clean"]["images"] == 20
    with torch.no_grad():
        assert report["accuracy"]["clean"]["correct"] == int((model(x).argmax(1) == y).sum())
    attacks = report["accuracy"]["attacks"]
    assert set(report["accuracy"]) - {"only_class"} == {"clean", "attacks", "worst_case"}
    assert set(attacks) == {"fgsm", "pgd"}
    assert report["accuracy"]["worst_case"]["value"] <= min(attacks[name]["value"] for name in ("fgsm", "pgd"))
    assert report["size"]["file"]["bytes"] == (folder / "model.rcz").stat().st_size
    sections = artifact.section_bytes(folder / "model.rcz")
    stored = {
        f"{layer['name']}.{t['name']}": t["bytes"] for layer in report["density"]["layers"] for t in layer["tensors"]
    }
    assert stored == {weight: sections[weight] for weight in weights(model)}
    header = int.from_bytes((folder / "model.rcz").read_bytes()[4:8], "little")
    assert sum(sections.values()) + header + 20 == report["size"]["file"]["bytes"]
    assert {path.name for path in folder.iterdir()} == {
        "config.yaml",
        "log.jsonl",
        "model.rcz",
        "outcomes.npz",
        "report.json",
        "report.md",
        "lock",
    }


def keys(name: str, out: Path, *overrides: str) -> dict[str, str]:
    """The cache key of each stage."""
    return {stage["name"]: stage["key"] for stage in finished(name, out, *overrides)[1]["stages"]}


def test_methods_that_differ_by_one_choice_share_their_stages(shared: Path) -> None:
    robust = [keys(name, shared)["dense"] for name in ("da", "ap", "al0", "atmc", "admm", "lottery")]
    natural = [keys(name, shared)["dense"] for name in ("nat", "nap", "prune_first")]
    assert len(set(robust)) == len(set(natural)) == 1
    assert set(robust) != set(natural)
    assert keys("al0", shared)["sparse"] == keys("atmc", shared)["sparse"] != keys("ap", shared)["sparse"]
    assert keys("nap", shared)["sparse"] == keys("prune_first", shared)["sparse"]
    assert keys("admm", shared)["admm"] == keys("lottery", shared)["admm"]
    assert keys("atmc", shared, "method.bits=4")["factored"] == keys("atmc", shared, "method.bits=32")["factored"]


def test_a_shared_stage_is_trained_once(tmp_path: Path) -> None:
    first, second = (finished(name, tmp_path)[1]["stages"] for name in ("al0", "atmc"))
    assert [stage["cached"] for stage in first] == [False, False]
    assert [stage["cached"] for stage in second] == [True, True, False, False]
    assert [stage["seconds"] for stage in second[:2]] == [stage["seconds"] for stage in first]


NO_EPOCHS = ["schedule.dense.epochs=0", "schedule.sparse.epochs=0"]  # a stage has its key without training


@pytest.mark.parametrize(
    "change",
    [
        "seed=1",
        "threat.eps=0.2",
        "threat.norm=L2",
        "training.batch_size=8",
        "training.natural_weight=0.25",
        "training.attack.steps=3",
        "training.attack.relative_step=1.25",
        "training.attack.random_start=false",
        "training.attack.bn_mode=train",
        "training.selection=best",
        "training.precision=bf16",
        "schedule.dense.lr=0.01",
        "schedule.dense.weight_decay=0",
        "schedule.dense.warmup=0.5",
        "dataset.val=17",
        "dataset.subset=60",
        "dataset.pad=1",
        "dataset.flip=true",
        "dataset.rotate=10",
        "model.width=0.12",
        "model.conv_relu=true",
        "training.lr_scale=0.5",
        "training.weight_average=0.5",
        "objective=trades",
        "objective=mixed objective.beta=0.7",
        "method.quirks=[no_random_start]",
        "method.quirks=[train_mode_attack]",
        "method.quirks=[test_selection]",
    ],
)
def test_what_leads_to_other_weights_leads_to_another_key(shared: Path, change: str) -> None:
    assert keys("al0", shared, *NO_EPOCHS, *change.split())["dense"] != keys("al0", shared, *NO_EPOCHS)["dense"]


@pytest.mark.parametrize(
    ("setting", "matters"), [("method.quirks=[test_selection]", True), ("training.selection=best", False)]
)
def test_test_images_are_part_of_the_key_where_they_choose_the_epoch(shared: Path, setting: str, matters: bool) -> None:
    first, second = (keys("al0", shared, *NO_EPOCHS, setting, f"dataset.test_subset={n}")["dense"] for n in (9, 10))
    assert (first != second) == matters


SAME = {
    "the weight of a loss that is not used": ["objective=trades training.natural_weight=0.1", "objective=trades"],
    "adversarial by either name": ["objective=adversarial", "training.natural_weight=0"],
    "the order of quirks": [
        "method.quirks=[no_random_start,train_mode_attack]",
        "method.quirks=[train_mode_attack,no_random_start]",
        "training.attack.random_start=false training.attack.bn_mode=train",
    ],
    "what is chosen on test images": [
        "method.quirks=[test_selection] training.selection=best",
        "method.quirks=[test_selection]",
    ],
    "the ratio beside ratios of layers": [
        "method=admm +method.ratios={conv1: 0.5} method.ratio=0.2",
        "method=admm +method.ratios={conv1: 0.5}",
    ],
}


@pytest.mark.parametrize("ways", SAME.values(), ids=SAME)
def test_what_trains_the_same_is_the_same_run(ways: list[str]) -> None:
    def overrides(way: str) -> list[str]:
        return [part.replace(":", ": ") for part in way.replace(": ", ":").split()]

    folders = {run_directory(compose_config([*RUN, *overrides(way)])) for way in ways}
    assert len(folders) == 1
    assert run_directory(compose_config([*RUN, *overrides(ways[0]), "seed=3"])) not in folders


LATER = ["attack.attacks.pgd.steps=3", "method.ratio=0.5", "schedule.sparse.lr=0.01"]


@pytest.mark.parametrize("change", [*LATER, "dataset.test_subset=9", "dataset.test_fraction=0.3"])
def test_what_comes_later_leaves_the_key(shared: Path, change: str) -> None:
    assert keys("al0", shared, *NO_EPOCHS, change)["dense"] == keys("al0", shared, *NO_EPOCHS)["dense"]


def test_the_key_does_not_depend_on_where_things_are(shared: Path, tmp_path: Path, data_dir: Path) -> None:
    moved = tmp_path / "data"
    moved.mkdir()
    (moved / "tiny.safetensors").write_bytes((data_dir / "tiny.safetensors").read_bytes())
    assert keys("al0", tmp_path, *NO_EPOCHS, f"data_dir={moved}") == keys("al0", shared, *NO_EPOCHS)


# Stopped and resumed


STEPS = 4  # an epoch of `tiny`


def without_times(report: dict[str, Any]) -> dict[str, Any]:
    """The report less what a second run may change: when, how long, from where."""
    kept = json.loads(json.dumps(report))
    for key in ("finished", "seconds", "overrides"):
        del kept["run"][key]
    for stage in kept["stages"]:
        for key in ("seconds", "cached", "images_per_second"):
            del stage[key]
    for record in kept["accuracy"]["attacks"].values():
        del record["seconds"]
    return kept


def log_without_times(folder: Path) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if k not in ("seconds", "images_per_second", "cached")} for line in lines]


def assert_same_run(first: tuple[Path, dict[str, Any]], second: tuple[Path, dict[str, Any]]) -> None:
    """Each stage's tensors and epoch records, then the file and the report."""
    for stage in first[1]["stages"]:
        a, b = (folder.parents[1] / "stages" / stage["key"] / "result.safetensors" for folder, _ in (first, second))
        assert all(torch.equal(t, load_file(b)[key]) for key, t in load_file(a).items()), stage["name"]
    assert (first[0] / "model.rcz").read_bytes() == (second[0] / "model.rcz").read_bytes()
    assert without_times(first[1]) == without_times(second[1])
    assert log_without_times(first[0]) == log_without_times(second[0])


@pytest.mark.parametrize("lost", [0, 1], ids=["checkpoint_each_step", "checkpoint_each_epoch"])
@pytest.mark.parametrize("selection", ["last", "best"])
def test_killed_in_every_stage_and_resumed_is_as_if_uninterrupted(
    name: str, shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, selection: str, lost: int
) -> None:
    """Killed in the middle of the second epoch of each stage in turn; once where the steps of that epoch were lost."""
    sgd = ["schedule.sparse.optimizer=sgd", "schedule.sparse.lr=0.02"]  # the other stages: Adam
    coarse = ["method.bits=2", "method.ratio=0.5"] if ROWS[name].learned_bits else []  # a codebook that is no identity
    average = [f"training.weight_average={0.9 if selection == 'best' else 0}"]
    settings = [f"training.selection={selection}", "dataset.pad=1", *average, *sgd, *coarse]
    whole = finished(name, shared, *settings)
    monkeypatch.setattr(stage_store, "CHECKPOINT_SECONDS", 1e9 if lost else -1.0)
    for stage in ROWS[name].stages:
        with monkeypatch.context() as patch:
            kill_at(patch, stage, STEPS + 2)
            with pytest.raises(Killed):
                finished(name, tmp_path, *settings)
        (checkpoint,) = (tmp_path / "stages").glob("*/checkpoint.pt")
        assert torch.load(checkpoint, weights_only=True)["step"] == (STEPS if lost else STEPS + 2)
    assert_same_run(whole, finished(name, tmp_path, *settings))
    assert not list((tmp_path / "stages").glob("*/checkpoint.pt"))


@pytest.mark.parametrize("stage", ["dense", "rewired", "oneshot", "admm", "lasso", "snip"])
def test_no_epochs_and_batch_norm(tmp_path: Path, stage: str) -> None:
    """A stage without epochs ends with its start inside the constraint, with statistics where they are asked for."""
    methods = [name for name, row in ROWS.items() if next(iter(row.stages)) == stage or (stage == "admm" == name)]
    assert methods
    for name in methods:
        none = [f"schedule.{schedule}.epochs=0" for schedule in ("dense", "sparse", "factored", "quantised")]
        settings = ["model=resnet18", "model.width=0.03", "training.weight_average=0.9", *none]
        _, report = finished(name, tmp_path, *settings, *(["method.ratio=0.5"] if ROWS[name].sparse else []))
        assert report["run"]["train_epochs"] == 0


def test_a_codebook_after_a_stage_whose_objective_changes(tmp_path: Path) -> None:
    """The stage of no epochs that fits it has the objective of the one before, and statistics to refresh."""
    settings = ["model=resnet18", "model.width=0.03", "quantise.bits=4", "training.weight_average=0.9"]
    for name in ("admm_oneshot", "dnr"):
        _, report = finished(name, tmp_path, *settings, "method.ratio=0.5")
        assert [stage["name"] for stage in report["stages"]][-1] == "quantize"


def test_divergence_is_a_sentence(name: str, tmp_path: Path) -> None:
    """In no method a traceback out of a projection that meets NaN; the weights are those of a network that explodes."""
    wild = [
        "model=resnet18",
        "model.width=0.03",
        "schedule.dense.optimizer=sgd",
        "schedule.dense.lr=1e30",
        "schedule.dense.decay=constant",
        "schedule.dense.warmup=0",
    ]
    rho = ["method.rho=1e-31"] if name == "admm_oneshot" else []
    with pytest.raises(UserError, match=r"diverged in epoch 1 of stage"):
        finished(name, tmp_path, *wild, *rho, *(["method.ratio=0.5"] if ROWS[name].sparse else []))


def test_killed_in_an_epoch_beyond_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stage that goes on, stopped while it does and resumed, ends where an uninterrupted one does."""

    def falling(self: Adversarial, state: TrainState, x: Tensor, y: Tensor) -> Loss:
        return original(self, state, x, y)._replace(adversarial=torch.tensor(1 / (1 + state.epoch)))

    original = Adversarial.loss
    monkeypatch.setattr(Adversarial, "loss", falling)
    whole = finished("admm_oneshot", tmp_path / "whole", "method.limit=1")
    assert whole[1]["run"]["train_epochs"] == 4  # two of its own
    monkeypatch.setattr(stage_store, "CHECKPOINT_SECONDS", -1.0)
    with monkeypatch.context() as patch:
        kill_at(patch, "oneshot", 2 * STEPS + 2)
        with pytest.raises(Killed):
            finished("admm_oneshot", tmp_path / "killed", "method.limit=1")
    assert_same_run(whole, finished("admm_oneshot", tmp_path / "killed", "method.limit=1"))


def test_killed_for_real(shared: Path, tmp_path: Path) -> None:
    """SIGKILL in the quantised stage, and the same command again."""
    out = tmp_path / "outputs"
    arguments = ["train", *RUN, "method=atmc", f"out={out}", "method.quantise_interval=3"]
    program = (
        "import os, signal, sys, torch\n"
        "from robcomp.cli.parser import main\n"
        "from robcomp.trainers.loop import stage_store\n"
        "from robcomp.trainers.state import TrainState\n"
        "torch.set_num_threads(1)\n"
        "stage_store.CHECKPOINT_SECONDS = -1.0\n"
        "batch = TrainState.batch\n"
        "def dying(state):\n"
        "    if (state.stage, state.step) == ('quantised', 6): os.kill(os.getpid(), signal.SIGKILL)\n"
        "    return batch(state)\n"
        "TrainState.batch = dying\n"
        "main(sys.argv[1:])\n"
    )
    dead = subprocess.run([sys.executable, "-c", program, *arguments], stdout=subprocess.DEVNULL, timeout=120)
    assert dead.returncode == -signal.SIGKILL
    assert not list(out.glob("tiny-*/*/report.json"))
    (checkpoint,) = (out / "stages").glob("*/checkpoint.pt")
    assert torch.load(checkpoint, weights_only=True)["step"] == 6, "the last checkpoint is that of the step before"
    assert_same_run(finished("atmc", shared), finished("atmc", out))


def test_another_seed_is_another_run(name: str, shared: Path, tmp_path: Path) -> None:
    """And the same seed is the same run, in another place."""
    first, again, other = finished(name, shared), finished(name, tmp_path), finished(name, shared, "seed=1")
    assert_same_run(first, again)
    assert first[0].name == again[0].name != other[0].name
    assert (first[0] / "model.rcz").read_bytes() != (other[0] / "model.rcz").read_bytes()
