"""Adversarial losses over the epochs: as the log has them, stages in order, runs without any."""

import csv
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from analysis_helpers import drawn

from robcomp.cli.parser import main

Runs = tuple[Path, Path]
COLUMNS = ["run", "stage", "epoch", "loss", "adversarial_loss", "clean", "robust", "val_clean", "val_robust", "lr"]


@pytest.fixture(scope="module")
def staged(lasting_run: Callable[..., Path]) -> Path:
    """A run of several stages."""
    return lasting_run("method=al0")


def made(out: Path, *folders: Path) -> dict[str, Any]:
    """The JSON that the command wrote into `out`."""
    assert main(["losses", *(f"run={folder}" for folder in folders), f"out={out}"]) == 0
    (path,) = out.glob("*.json")
    return json.loads(path.read_text())


def logged(folder: Path) -> list[dict[str, Any]]:
    """The epoch events of a run's log."""
    lines = map(json.loads, (folder / "log.jsonl").read_text().splitlines())
    return [line for line in lines if line["event"] == "epoch"]


def rewritten(folder: Path, copy: Path, change: Any) -> Path:
    """A copy of a run with every epoch of its log changed."""
    shutil.copytree(folder, copy)
    events = logged(folder)
    for event in events:
        change(event)
    (copy / "log.jsonl").write_text("".join(json.dumps(event) + "\n" for event in events))
    return copy


def test_every_epoch_is_as_the_log_has_it(finished: Runs, staged: Path, tmp_path: Path) -> None:
    found = made(tmp_path, finished[1], staged)
    assert found["left_out"] == []
    for entry, folder in zip(found["runs"], (finished[1], staged), strict=True):
        events = logged(folder)
        assert entry["epochs"] == [{key: event[key] for key in COLUMNS[1:]} for event in events]
        assert all(epoch["adversarial_loss"] > 0 for epoch in entry["epochs"])
    assert found["runs"][1]["stages"] == [{"name": "dense", "epochs": 2}, {"name": "sparse", "epochs": 2}]
    with next(tmp_path.glob("losses-*.csv")).open() as stream:
        reader = csv.DictReader(stream)
        rows = list(reader)
    assert reader.fieldnames == COLUMNS
    assert [(row["run"], row["stage"], int(row["epoch"]), float(row["adversarial_loss"])) for row in rows] == [
        (entry["label"], epoch["stage"], epoch["epoch"], epoch["adversarial_loss"])
        for entry in found["runs"]
        for epoch in entry["epochs"]
    ]
    assert drawn(next(tmp_path.glob("losses-*.png")))


def test_a_run_without_an_adversarial_loss_is_left_out(
    finished: Runs, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = made(tmp_path, *finished)
    label = f"tiny lenet nat {finished[0].name[:6]}"
    assert found["left_out"] == [label]
    assert [entry["method"] for entry in found["runs"]] == ["da"]
    assert f"{label} is left out" in capsys.readouterr().out


def test_natural_epochs_are_gaps(staged: Path, tmp_path: Path) -> None:
    def natural(event: dict[str, Any]) -> None:
        if event["stage"] == "dense":
            event["adversarial_loss"] = None

    copy = rewritten(staged, tmp_path / "copy", natural)
    (entry,) = made(tmp_path / "out", copy)["runs"]
    assert [epoch["adversarial_loss"] is None for epoch in entry["epochs"]] == [True, True, False, False]
    rows = list(csv.DictReader(next((tmp_path / "out").glob("*.csv")).open()))
    assert [row["adversarial_loss"] for row in rows][:2] == ["", ""]
    assert drawn(next((tmp_path / "out").glob("*.png")))


def test_no_run_with_an_adversarial_loss(finished: Runs, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    old = rewritten(finished[1], tmp_path / "old", lambda event: event.pop("adversarial_loss"))
    assert main(["losses", f"run={finished[0]},{old}"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "no adversarial loss in the log" in line
    assert str(old) in line


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["values=1"], "unknown key 'values'; choose from out, run"),
        (["--runs"], "unrecognized arguments"),
        (["run=nowhere"], "run=nowhere is not a finished run"),
        (["out=a", "out=b"], "out= is given 2 times"),
    ],
)
def test_refusals(finished: Runs, words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    try:
        code = main(["losses", f"run={finished[1]}", *words])
    except SystemExit as ended:
        code = ended.code
    assert code == 2
    assert said in capsys.readouterr().err.splitlines()[-1]


def test_without_a_run_or_a_log(finished: Runs, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["losses"]) == 2
    assert "write run=" in capsys.readouterr().err
    copy = shutil.copytree(finished[1], tmp_path / "copy")
    (copy / "log.jsonl").unlink()
    assert main(["losses", f"run={copy}"]) == 2
    assert "no log at" in capsys.readouterr().err


def test_losses_do_without_torch_and_without_matplotlib(finished: Runs, tmp_path: Path) -> None:
    program = (
        "import sys, robcomp.cli.parser\n"
        "sys.modules['matplotlib'] = None\n"
        f"assert robcomp.cli.parser.main(['losses', 'run={finished[1]}', 'out={tmp_path}']) == 0\n"
        "assert 'torch' not in sys.modules and 'hydra' not in sys.modules"
    )
    said = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True).stdout
    assert "pip install" in said
    assert sorted(path.suffix for path in tmp_path.iterdir()) == [".csv", ".json"]


def test_help_gives_an_example(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["losses", "--help"])
    assert "robcomp losses " in capsys.readouterr().out.split("example:")[1]
