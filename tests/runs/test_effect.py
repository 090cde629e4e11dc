"""An override that cannot change anything is refused, whichever key it has; one that can is not."""

import re
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from rich.console import Console
from tiny import run

from robcomp.cli.arguments import means, split
from robcomp.cli.parser import main
from robcomp.errors import UserError
from robcomp.runs import effect
from robcomp.settings.compose import compose_config
from robcomp.sweeps import sweep
from robcomp.tables import spec

pytestmark = pytest.mark.usefixtures("sandbox", "no_curves")

ROOT = Path(__file__).resolve().parents[2]
UNUSED = [
    "method=da schedule.sparse.epochs=10",
    "method=al0 quantise.bits=8 schedule.quantised.epochs=3",
    "method=da attack.published_steps=9",
    "method=da attack.name=mine",
    "method=nat ratio=0.01",
    "method=al0 method.ratio=0.2 ratio=0.1",
    "method=admm +method.ratios={conv1:0.5} method.ratio=0.2",
    "method=nat training.natural_weight=0.2",
    "method=dnr training.natural_weight=0.2",
    "method=da objective=trades training.natural_weight=0.3",
    "method=da objective=adversarial training.natural_weight=0",
    "method=da schedule.dense.gamma=0.5",  # digits: Adam with linear decay
    "method=da schedule.dense.milestones=[3]",
    "method=da schedule.dense.momentum=0.5",
    "method=al0 schedule.sparse.epochs=0 schedule.sparse.lr=0.5",
    "method=da dataset.pad_mode=reflect",
    "method=da dataset.test_fraction=0.5",
]  # the last one of each changes nothing
USED = [
    "method=da schedule.sparse.epochs=30",  # as it is anyway
    "method=atmc schedule.sparse.epochs=10 schedule.quantised.decay=cosine",
    "method=da objective=mixed objective.beta=0.5",  # as it comes to anyway; another objective would count
    "method=da attack=atmc attack.published_steps=9",
    "method=da attack=quick model=lenet dataset=digits recipe=none objective=method",
    "method=da out=there data_dir=here device=cpu fresh=true training.graphs=false training.precision=float32",
    "method=nat threat.eps=0.2 training.attack.steps=3",  # the attack on the held-out images
    "method=da ~attack.attacks.margin +attack.attacks.weak={attack:pgd,eps:0.01}",
    "method=da dataset.pad=2 dataset.pad_mode=reflect",
    "method=da schedule.dense.optimizer=sgd schedule.dense.momentum=0.5",
    "method=da schedule.dense.decay=milestones schedule.dense.milestones=[3] schedule.dense.gamma=0.5",
    "method=al0 ratio=0.1",
    "method=al0 method.epochs_scale=0.02 method.quirks=[test_selection] seed=3",
    "method=admm ++schedule.retrain.epochs=20 method.quirks=[attached_dual]",
    "method=da training.selection=best training.weight_average=0.99",
]


@pytest.mark.parametrize("command", UNUSED)
def test_what_changes_nothing_is_refused_with_the_reason(command: str) -> None:
    *_, last = command.split()
    with pytest.raises(UserError, match="leave it out") as refused:
        effect.check_training(command.split())
    assert str(refused.value).startswith(f"{last} changes nothing here: ")


@pytest.mark.parametrize("command", USED)
def test_what_counts_is_let_through(command: str) -> None:
    effect.check_training(command.split())


def test_the_stages_that_there_are_are_named() -> None:
    with pytest.raises(UserError, match="method=al0 has the stages dense, sparse, under"):
        effect.check_training(["method=al0", "schedule.factored.epochs=3"])


def test_who_has_milestones_of_its_own_is_named() -> None:
    with pytest.raises(UserError, match=r"of admm and retrain falls as .* unless schedule\.admm\.milestones and"):
        effect.check_training(["method=admm", "dataset=cifar10", "schedule.sparse.milestones=[3]"])


def asked(*jobs: str) -> None:
    effect.check([effect.Job(job.split()) for job in jobs], effect.TRAINING)


def test_a_sweep_may_set_what_one_of_its_runs_has() -> None:
    asked("method=da schedule.sparse.epochs=3", "method=al0 schedule.sparse.epochs=3")
    with pytest.raises(UserError, match=r"^schedule.sparse.epochs= changes nothing in any of the 2 runs"):
        asked("method=da schedule.sparse.epochs=3", "method=da schedule.sparse.epochs=4")


def test_the_command_line_refuses_it_before_anything_is_done(capsys: pytest.CaptureFixture[str]) -> None:
    sweeps = ["train", "method=da", "schedule.sparse.epochs=3"], ["train", "-m", "method=da,nat", "ratio=0.1"]
    table = ["table", "atmc-mnist", "--scale", "smoke", "dataset.pad_mode=reflect"]
    for arguments in (*sweeps, table):
        assert main(arguments) == 2
        assert f"robcomp: {arguments[-1]} changes nothing" in capsys.readouterr().err
    assert not list(Path().iterdir())


def test_what_the_rows_of_a_table_set_for_all_of_them_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only what was typed is: published tables give their rows common settings."""
    seen: list[list[str]] = []
    monkeypatch.setattr(effect, "check", lambda jobs, use: seen.extend(job.typed for job in jobs))
    monkeypatch.setattr("robcomp.runs.train.train", lambda *_: Path())
    jobs = spec.jobs(spec.load("rivals-mnist"), "cpu", ["seed=3"])
    sweep.run([job.overrides for job in jobs[:3]], Console(quiet=True), typed=1)
    assert seen == [["seed=3"]] * 3


@pytest.fixture(scope="module")
def evaluated(data_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr("robcomp.runs.train.training_curves", lambda log, figure: None)
        return run([f"data_dir={data_dir}", f"out={tmp_path_factory.mktemp('runs')}", "method=nat"])


def elsewhere(folder: Path) -> Path:
    """A copy of a run, which is another run."""
    return shutil.copytree(folder, Path("copy") / folder.name)


@pytest.mark.parametrize(
    ("command", "override"),
    [
        ("evaluate", "model=resnet18"),
        ("evaluate", "training.lr_scale=0.5"),
        ("evaluate", "dataset.val=20"),
        ("evaluate", "attack.published_steps=9"),
        ("evaluate", "training.graphs=false"),
        ("curve", "schedule.dense.epochs=3"),
        ("combine", "dataset.flip=true"),
        ("sensitivity", "quantise.bits=4"),
    ],
)
def test_an_evaluation_takes_the_network_as_it_is(
    command: str, override: str, evaluated: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = f"run={evaluated}" if command != "combine" else f"run={evaluated},{elsewhere(evaluated)}"
    assert main([command, runs, override]) == 2
    assert f"robcomp: {override} changes nothing " in capsys.readouterr().err


def test_an_evaluation_with_a_suite_of_its_own_eps_has_no_use_for_the_threat_models(
    evaluated: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["evaluate", f"run={evaluated}", "attack=dnr", "threat.eps=0.2"]) == 2
    assert "threat.eps=0.2 changes nothing here: no attack of the suite dnr refers to it" in capsys.readouterr().err


def test_an_architecture_of_ones_own_is_not_trained(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", "module=nets:small", "dataset=digits", "method=al0"]) == 2
    assert "method=al0 changes nothing here: the network is taken as it is" in capsys.readouterr().err


def test_an_analysis_has_no_verdict(evaluated: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["curve", f"run={evaluated}", "attack.verdict=20"]) == 2
    assert "an analysis has no verdict" in capsys.readouterr().err


def written() -> Iterator[tuple[str, list[str]]]:
    """(command, arguments) of every `robcomp COMMAND ...` that README.md and docs/ print."""
    for page in (ROOT / "README.md", *ROOT.glob("docs/*.md")):
        text = page.read_text(encoding="utf-8")
        text = text.replace("\\\n", " ")
        lines = re.findall(r"^ *(robcomp .*)$", text, re.MULTILINE) + re.findall(r"`(robcomp [^`\n]*)`", text)
        for line in dict.fromkeys(lines):
            try:
                _, command, *arguments = shlex.split(line, comments=True)
            except ValueError:  # a sentence, with an apostrophe
                continue
            if "..." not in line and all("=" in argument or argument == "-m" for argument in arguments):
                yield command, arguments


@pytest.mark.slow
def test_no_command_of_our_own_pages_is_refused() -> None:
    """Nor does any of them fail to compose. Those of results/ are written by `effect.counting`."""
    for name in ("resnet18.pt", "net.pt"):
        Path(name).touch()
    asked = 0
    for command, arguments in sorted(written()):
        if command == "train":
            mine, overrides = split(command, [argument for argument in arguments if argument != "-m"])
            jobs = sweep.expand(means(mine, overrides)[1])
            use = effect.TRAINING
        elif command in ("evaluate", "curve", "transfer", "combine", "sensitivity"):
            mine, overrides = split(command, arguments)
            jobs = [overrides]
            of_run = effect.EVALUATION if mine.get("run") else effect.EXTERNAL
            use = of_run if command == "evaluate" else effect.ANALYSIS
        else:
            continue
        for job in jobs:
            compose_config(job)
        effect.check([effect.Job(job) for job in jobs], use)
        asked += 1
    assert asked >= 15


def test_the_overrides_of_a_tables_row_less_what_is_for_other_rows() -> None:
    row = ["method=snip", "seed=1", "schedule.dense.epochs=4", "schedule.sparse.epochs=3"]
    assert effect.counting(row) == row[:3]
