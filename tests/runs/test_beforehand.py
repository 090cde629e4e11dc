"""What would go wrong after the work is found before it: no training starts, nothing is left behind."""

from pathlib import Path

import numpy as np
import pytest
import torch
from tiny import run, typed

from robcomp.cli.parser import main
from robcomp.errors import UserError
from robcomp.runs import beforehand
from robcomp.tables import build

pytestmark = pytest.mark.usefixtures("sandbox", "no_curves")


@pytest.fixture
def no_work(monkeypatch: pytest.MonkeyPatch) -> None:
    """Training and attacking fail the test."""
    monkeypatch.setattr("robcomp.runs.train.run_stage", lambda *_: pytest.fail("a stage was trained"))
    monkeypatch.setattr("robcomp.runs.evaluate.attacked", lambda *_: pytest.fail("a network was attacked"))


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert main(arguments) == 2
    captured = capsys.readouterr()
    (line,) = captured.err.splitlines()
    return line


TARGETS = ["file", "file/below", "/proc/nowhere", "x" * 300]


@pytest.mark.parametrize("folder", TARGETS)
def test_a_folder_that_cannot_be_written_to_is_refused_and_leaves_nothing(folder: str) -> None:
    Path("file").write_text("in the way")
    with pytest.raises(UserError, match="cannot be written to"):
        beforehand.writable(Path(folder))
    assert [path.name for path in Path().iterdir()] == ["file"]


def test_a_folder_that_can_be_made_is_not_made(tmp_path: Path) -> None:
    beforehand.writable(tmp_path / "a" / "b")
    beforehand.writable(tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("no_work")
def test_train_sweeps_and_tables_look_at_their_targets_first(capsys: pytest.CaptureFixture[str]) -> None:
    Path("file").write_text("in the way")
    out = "file/below"
    said = f"robcomp: out={out}"
    assert refused(capsys, "train", *typed("nat"), f"out={out}").startswith(said)
    assert refused(capsys, "train", "-m", *typed("nat"), "seed=0,1", f"out={out}").startswith(said)
    assert refused(capsys, "table", "atmc-mnist", "--scale", "smoke", f"out={out}").startswith(said)
    assert refused(capsys, "table", "atmc-mnist", f"runs={out}").startswith(f"robcomp: runs={out}")


@pytest.fixture(scope="module")
def evaluated(data_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr("robcomp.runs.train.training_curves", lambda log, figure: None)
        return run([f"data_dir={data_dir}", f"out={tmp_path_factory.mktemp('runs')}", "method=nat"])


@pytest.mark.parametrize("command", ["evaluate", "curve", "sensitivity", "histogram", "losses"])
def test_evaluations_and_analyses_too(command: str, evaluated: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert refused(capsys, command, f"run={evaluated}", "out=/proc/nowhere").startswith("robcomp: out=/proc/nowhere")


def test_more_test_images_than_there_are_means_all_of_them_and_is_said(
    evaluated: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["evaluate", f"run={evaluated}", "dataset.test_subset=500"]) == 0
    out = " ".join(capsys.readouterr().out.split())
    said = "dataset.test_subset=500, but tiny has 30 test images: all of them are taken."
    assert said in out
    assert main(["curve", f"run={evaluated}", "dataset.test_subset=500", "values=0", "attack=quick"]) == 0
    assert said in " ".join(capsys.readouterr().out.split())


@pytest.mark.usefixtures("no_work")
def test_a_batch_of_more_than_all_images(capsys: pytest.CaptureFixture[str]) -> None:
    line = refused(capsys, "train", *typed("nat", "training.batch_size=65"))
    assert "training.batch_size=65 is more than the 64 training images of tiny; give at most 64" in line


def test_a_batch_size_that_was_not_typed_is_cut_and_said(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = [argument for argument in typed("nat", "dataset.subset=40") if "batch_size" not in argument]
    assert main(["train", *arguments]) == 0
    assert "training.batch_size=64, but there are 24 training images" in " ".join(capsys.readouterr().out.split())


def test_a_table_is_assembled_once_without_a_run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """What it does not find in the published figures is told before the runs."""
    spec = build.load("atmc-mnist")
    spec.match.clear()
    monkeypatch.setattr(build, "load", lambda name: spec)
    with pytest.raises(UserError, match="published figures of NAP fit benign_accuracy"):
        build.build("atmc-mnist", "smoke", [], lambda jobs: pytest.fail("the runs were started"), tmp_path)


@pytest.mark.usefixtures("no_work")
def test_a_sweep_says_which_run_an_error_belongs_to(capsys: pytest.CaptureFixture[str]) -> None:
    line = refused(capsys, "train", "-m", *typed("al0", "method.ratio=0.1,2"))
    assert line.startswith("robcomp: run 2 of 2 (")
    assert "method.ratio=2): method.ratio=2 is out of range" in line


def test_a_network_of_one_answer_is_told_of(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also without a verdict. An empty layer passes nothing on, so that the biases alone answer."""

    def emptied(*settings: object, **more: object) -> torch.nn.Module:
        model = build_network(*settings, **more)
        with torch.no_grad():
            model.fc2.weight.zero_()
            model.fc2.bias.copy_(torch.tensor([0.0, 1.0, 0.0]))
        return model

    from robcomp.models.lenet import LeNetConfig

    build_network = LeNetConfig.build
    monkeypatch.setattr(LeNetConfig, "build", emptied)
    folder = run(["method=nat", "schedule.dense.lr=0", "schedule.dense.epochs=1"])
    said = "The network answers class 1 for every image; fc2 is empty (no non-zero weight)."
    assert said in (folder / "report.md").read_text()
    assert main(["evaluate", f"run={folder}", "attack.batch_size=9"]) == 0
    assert said in " ".join(capsys.readouterr().out.split())
    assert np.load(folder / "outcomes.npz")["clean"].mean() < 0.5
