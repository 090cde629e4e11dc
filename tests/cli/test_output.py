"""What a command prints where: JSON or a folder on stdout for programs, lines without a terminal, an interruption."""

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from tiny import typed

from robcomp import storage
from robcomp.cli.parser import main

pytestmark = pytest.mark.usefixtures("sandbox", "no_curves")

TRAIN = ["train", *typed("da")]
CONTROL = re.compile(r"[\x00-\x09\x0b-\x1f\x7f]")


def printed(capsys: pytest.CaptureFixture[str], *arguments: str, code: int = 0) -> tuple[str, str]:
    capsys.readouterr()
    assert main(arguments) == code
    captured = capsys.readouterr()
    return captured.out, captured.err


def reports() -> list[Path]:
    return sorted(Path("outputs").glob("tiny-*/*/report.json"))


@pytest.mark.slow
def test_without_a_terminal_the_log_is_plain_lines(capsys: pytest.CaptureFixture[str]) -> None:
    out = "a rather long folder name/" * 6 + "[x]"
    train = ["train", *typed("al0", f"out='{out}'", "attack.verdict=20")]
    text, err = printed(capsys, *train)
    assert err == ""
    assert not CONTROL.search(text)
    lines = text.splitlines()
    (report,) = Path(out).glob("tiny-*/*/report.json")
    folder = f"run directory: {report.parent}"
    assert re.fullmatch(r"cost: [\d.]+ k passes, [\d.]+ [MG]FLOP", lines[0])
    assert lines[1] == "tiny / lenet / al0, seed 0: 64 training images, on cpu in float32"
    assert lines[2] == "stages: dense 2 epochs, sparse 2 epochs"
    assert lines[3] == lines[-1] == folder
    epochs = [line for line in lines if "  epoch " in line]
    assert [line.split("  loss")[0] for line in epochs] == [
        f"{stage}  epoch {epoch}/2" for stage in ("dense", "sparse") for epoch in (1, 2)
    ]
    for line in epochs:
        assert re.search(r"loss \d+\.\d+  train clean .* %  val clean .* %, robust .* %  \d+\.\d s", line), line
    assert "attacks on 20 test images: fgsm, pgd, then the verdict on" in text
    assert any(line.startswith("attacks 2/2 pgd  accuracy ") for line in lines)
    assert any(line.startswith("verdict: ") for line in lines)
    again, _ = printed(capsys, *train, "method.ratio=0.3")
    assert "stages: dense 2 epochs (from the cache), sparse 2 epochs\n" in again
    assert "dense: from the cache (2 epochs, trained in " in again


@pytest.mark.slow
def test_json_is_the_report_and_nothing_else_and_quiet_prints_where_it_lies(capsys: pytest.CaptureFixture[str]) -> None:
    out, err = printed(capsys, *TRAIN, "--json")
    (page,) = reports()
    assert json.loads(out) == json.loads(page.read_text())
    assert out == page.read_text()
    assert "epoch 2/2" in err
    assert printed(capsys, *TRAIN, "--quiet") == (f"{page.parent}\n", "")
    assert printed(capsys, *TRAIN, "--quiet", "--json") == (page.read_text(), "")


@pytest.mark.slow
def test_a_sweep_as_json_is_a_list_with_null_for_what_failed(capsys: pytest.CaptureFixture[str]) -> None:
    sweep = ["train", "-m", *typed("nat"), "schedule.dense.lr=1e30,0.001"]
    out, err = printed(capsys, *sweep, "--json", code=1)
    failed, report = json.loads(out)
    assert failed is None
    assert report["schema"].startswith("robcomp-report/")
    assert "failed: " in err
    quiet, err = printed(capsys, *sweep, "-q", code=1)
    assert quiet == f"{reports()[0].parent}\n"
    assert err.startswith("failed: schedule.dense.lr=1e30") or "failed: " in err


@pytest.mark.slow
def test_evaluate_prints_json_too(
    finished: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["evaluate", f"run={finished[0]}", f"out={tmp_path / 'there'}", "attack=quick", "attack.verdict=0"]
    out, err = printed(capsys, *arguments, "--json")
    (page,) = (tmp_path / "there").glob("evaluation-*.json")
    assert json.loads(out) == json.loads(page.read_text())
    assert "attacks 1/" in err
    assert printed(capsys, *arguments, "-q") == (f"{page}\n", "")


ANALYSES = {
    "curve": ["values=0,0.1", "attack.attacks={pgd:{steps:2,eps:0.1}}"],
    "sensitivity": ["values=0.5", "attack.attacks.pgd.steps=2"],
    "histogram": [],
    "losses": [],
}


@pytest.mark.slow
@pytest.mark.parametrize("command", ANALYSES)
def test_analyses_print_json(
    command: str, finished: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [command, f"run={finished[1]}", f"out={tmp_path / 'there'}", *ANALYSES[command]]
    out, err = printed(capsys, *arguments, "--json")
    (page,) = (tmp_path / "there").glob(f"{command}-*.json")
    assert json.loads(out) == json.loads(page.read_text())
    assert f"result: {page} (and" in err.splitlines()[-1]
    assert printed(capsys, *arguments, "-q")[0] == f"{page}\n"


def test_a_table_prints_its_json_or_its_page(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def build(name: str, scale: str, extra: object, run_all: object, out: Path) -> Path:
        out.mkdir(exist_ok=True)
        (out / "table.json").write_text('{"schema": "a table"}\n')
        return out / "table.md"

    monkeypatch.setattr("robcomp.tables.build.build", build)
    assert printed(capsys, "table", "atmc-mnist", "--json") == ('{"schema": "a table"}\n', "table: results/table.md\n")
    assert printed(capsys, "table", "atmc-mnist", "-q") == ("results/table.md\n", "")


@pytest.mark.slow
def test_headings_of_a_sweep_say_what_is_its_own_and_the_time_left(capsys: pytest.CaptureFixture[str]) -> None:
    text, _ = printed(capsys, "train", "-m", *typed("nat"), "seed=0,1")
    headings = [line for line in text.splitlines() if line.startswith("run ") and " of 2" in line]
    assert headings[0] == "run 1 of 2: seed=0"
    assert re.fullmatch(r"run 2 of 2: seed=1 \(about \d+ s left of all runs\)", headings[1])
    again, _ = printed(capsys, "train", "-m", *typed("nat"), "seed=0,1")
    assert "left of all runs" not in again  # nothing is left to do


def test_runs_are_weighed_by_their_work(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Ten seconds for two epochs: the run of eight epochs takes forty, and the last ten."""
    now = [0.0]

    def train(config: Any, *_: object) -> Path:
        now[0] += 5.0 * config.schedule["dense"].epochs
        return Path("somewhere")

    monkeypatch.setattr("robcomp.sweeps.sweep.time.monotonic", lambda: now[0])
    monkeypatch.setattr("robcomp.runs.train.train", train)
    monkeypatch.setattr("robcomp.runs.train.show", lambda folder, console: None)
    text, _ = printed(capsys, "train", "-m", *typed("nat"), "schedule.dense.epochs=2,8,2")
    assert [line.partition("about ")[2] for line in text.splitlines() if line.startswith("run ")] == [
        "",
        "50 s left of all runs)",
        "10 s left of all runs)",
    ]


def test_what_can_go_on_after_an_interruption_says_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("robcomp.runs.train.train", interrupt)
    monkeypatch.setattr("robcomp.analyses.compare.compare", interrupt)
    said = "robcomp: interrupted; the same command continues from its last checkpoint"
    assert printed(capsys, *TRAIN, code=130)[1] == f"{said}.\n"
    assert printed(capsys, *TRAIN, "fresh=true", code=130)[1] == f"{said}, without fresh=true.\n"
    assert printed(capsys, "compare", "a", "b", code=130) == ("", "robcomp: interrupted.\n")


@pytest.mark.slow
def test_an_interrupted_process_ends_with_130() -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "robcomp", *TRAIN, "schedule.dense.epochs=2000", "dataset.val=0"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    for line in process.stdout:
        if "epoch 2/2000" in line:
            break
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert err == "robcomp: interrupted; the same command continues from its last checkpoint.\n"
    assert list(Path("outputs").glob("stages/*/checkpoint.pt"))
    assert not list(Path("outputs").rglob("*.owner"))


def test_who_waits_for_a_run_says_for_whom(
    finished: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(storage, "PATIENCE", 0.05)
    held = threading.Event()

    def hold() -> None:
        with storage.locked(finished[0] / "lock", "training stage dense of somewhere"):
            held.set()
            began = time.monotonic()
            while not caplog.records and time.monotonic() - began < 30:
                time.sleep(0.05)

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait()
    assert main(["evaluate", f"run={finished[0]}", "attack=quick", "attack.verdict=0", "seed=9"]) == 0
    thread.join()
    (told,) = [record.getMessage() for record in caplog.records]
    assert f"waiting for process {os.getpid()} on " in told
    assert ", which has been training stage dense of somewhere since " in told
