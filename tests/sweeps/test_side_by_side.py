"""Runs side by side: the same files as one after another, each shared stage once, and what fails or is stopped."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console
from tiny import run, typed

from robcomp import storage
from robcomp.cli.parser import main
from robcomp.errors import UserError
from robcomp.report.terminal import Gauge
from robcomp.runs.identity import run_directory
from robcomp.settings.compose import compose_config
from robcomp.sweeps.board import Board
from robcomp.sweeps.events import Ended, Said
from robcomp.sweeps.pending import Pending
from robcomp.sweeps.workers import Workers, _environment

pytestmark = pytest.mark.usefixtures("sandbox")

SWEEP = [*typed("al0"), "method.ratio=0.3,0.5"]  # they share their dense stage


def reports(out: str) -> dict[str, dict[str, object]]:
    return {path.parent.name: json.loads(path.read_text()) for path in Path(out).glob("*/*/report.json")}


def trained(out: str) -> list[str]:
    """The keys of the stages that were trained by each run."""
    return [stage["key"] for report in reports(out).values() for stage in report["stages"] if not stage["cached"]]


@pytest.mark.slow
def test_side_by_side_is_as_one_after_another(capsys: pytest.CaptureFixture[str]) -> None:
    """The same bytes, every shared stage once; failures are told at the end; what is finished is only shown."""
    main(["train", "-m", *SWEEP, "out=one"])
    capsys.readouterr()
    assert main(["train", "-m", *SWEEP, "training.batch_size=16,1000", "out=many", "jobs=2"]) == 1
    printed = capsys.readouterr().out.splitlines()
    assert len(reports("many")) == 2
    for path in Path("one").glob("*/*/model.rcz"):
        assert path.read_bytes() == Path("many", *path.parts[1:]).read_bytes()
    assert sorted(trained("many")) == sorted(set(trained("many"))) == sorted(trained("one"))
    headings = [line for line in printed if line.startswith("run ") and "finished" not in line]
    assert headings[0] == "run 1 of 4: training.batch_size=16 method.ratio=0.3"
    assert any(line.startswith("[1] dense  epoch 1/2") for line in printed)
    assert [line.partition(":")[0] for line in printed[-3:-1]] == ["failed"] * 2
    assert "1000 is more than the 64 training images" in printed[-2]
    assert printed[-1] == "2 of 4 runs finished"
    assert all("Traceback" in kept.read_text() for kept in Path("many").glob("*/*/failure.txt"))
    before = {path: path.stat().st_mtime_ns for path in Path("many").rglob("report.json")}
    assert main(["train", "-m", *SWEEP, "out=many", "jobs=3"]) == 0
    assert {path: path.stat().st_mtime_ns for path in before} == before


@pytest.mark.slow
def test_a_process_that_dies_fails_its_run_and_no_other() -> None:
    with Workers(1) as workers:
        workers.start(5, [*typed("nat"), "schedule.dense.epochs=2000"], set())
        _until(workers, lambda event: isinstance(event, Said) and "epoch 1/" in event.text)
        (worker,) = workers._workers
        assert worker.process.pid
        os.kill(worker.process.pid, signal.SIGKILL)
        died = _until(workers, lambda event: isinstance(event, Ended))
        assert (died.place, "SIGKILL" in died.failure) == (5, True)
        workers.start(6, typed("nat"), set())
        assert _until(workers, lambda event: isinstance(event, Ended)) == Ended(6)
        (worker,) = workers._workers
        os.kill(worker.process.pid or 0, signal.SIGKILL)  # while it has nothing to do
        worker.process.join()
        workers.start(7, [*typed("nat"), "seed=7"], set())
        assert _until(workers, lambda event: isinstance(event, Ended)) == Ended(7)
        (worker,) = workers._workers
    assert not worker.process.is_alive()


def _until(workers: Workers, wanted: Callable[[object], bool]) -> object:
    began = time.monotonic()
    while time.monotonic() - began < 120:
        for event in workers.events():
            if wanted(event):
                return event
    raise AssertionError("it never came")


PARENT = """
import sys
from robcomp.sweeps.workers import Workers
if __name__ == "__main__":
    with Workers(1) as workers:
        workers.start(0, sys.argv[1:], set())
        while True:
            for event in workers.events():
                print(workers._workers[0].process.pid, event, flush=True)
"""


@pytest.mark.slow
def test_processes_end_with_the_one_that_started_them(tmp_path: Path) -> None:
    (tmp_path / "parent.py").write_text(PARENT)
    words = [sys.executable, "parent.py", *typed("nat"), "schedule.dense.epochs=2000"]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    child = next(int(line.split()[0]) for line in process.stdout if "epoch 2/" in line)
    process.kill()
    process.wait()
    began = time.monotonic()
    while Path(f"/proc/{child}").exists() and time.monotonic() - began < 30:
        time.sleep(0.1)
    assert not Path(f"/proc/{child}").exists()
    process.stdout.close()
    assert not storage.held(next(Path("outputs").glob("stages/*/lock")))


def test_each_process_sees_one_gpu_where_there_are_several(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    monkeypatch.setattr("torch.get_num_threads", lambda: 8)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,6")
    seen = []
    for number in (0, 1, 2, None):
        with _environment(3, number):
            seen.append((os.environ["CUDA_VISIBLE_DEVICES"], os.environ["OMP_NUM_THREADS"]))
    assert seen == [("4", "2"), ("6", "2"), ("4", "2"), ("4,6", "2")]
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "4,6"


@pytest.mark.slow
def test_an_interruption_stops_all_and_the_same_command_goes_on(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["train", "-m", *typed("nat"), "schedule.dense.epochs=100", "seed=0,1"]
    process = subprocess.Popen(
        [sys.executable, "-m", "robcomp", *words, "jobs=2"], stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    assert process.stdout is not None
    seen: set[str] = set()
    for line in process.stdout:
        seen |= {line[:3]} if " epoch 2/" in line else set()
        if seen == {"[1]", "[2]"}:
            break
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does
    process.communicate(timeout=60)
    assert process.returncode == 130
    assert len(list(Path("outputs").glob("stages/*/checkpoint.pt"))) == 2
    assert not list(Path("outputs").rglob("*.owner"))  # all processes have ended, and cleaned up
    assert main(words) == 0
    printed = capsys.readouterr().out
    assert printed.count("resumed at epoch") == 2


def held(configs: Sequence[str], *more: str) -> Pending:
    overrides = [[*typed("al0"), word, *more] for word in configs]
    found = [compose_config(words) for words in overrides]
    return Pending(found, [run_directory(config) for config in found], range(len(found)))


def test_a_run_waits_for_a_stage_that_another_under_way_will_train(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("robcomp.data.checksum", lambda *_: "0")
    runs = held(["method.ratio=0.3", "method.ratio=0.5", "seed=1"])
    assert (runs.take(), runs.take(), runs.take()) == (0, 2, None)
    dense = runs._stores[0][0]
    dense.folder.mkdir(parents=True)
    (dense.folder / "result.safetensors").touch()
    assert runs.take() == 1
    for place in (0, 1, 2):
        runs.done(place)
    assert runs.take() is None


def test_a_run_that_another_process_trains_is_left_for_later(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("robcomp.data.checksum", lambda *_: "0")
    runs = held(["method.ratio=0.3", "seed=1"])
    with storage.locked(runs._stores[0][0].folder / "lock", "training"):
        assert runs.take() == 1
        runs.done(1)
        assert runs.take() == 0  # there is no other: it will wait itself


def test_the_same_run_twice_is_trained_once_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("robcomp.data.checksum", lambda *_: "0")
    runs = held(["seed=1", "seed=1"])
    assert (runs.take(), runs.take()) == (0, None)


def test_a_data_set_that_is_not_there_yet_is_made_first(monkeypatch: pytest.MonkeyPatch, data_dir: Path) -> None:
    """So that the stages are known before any process trains one."""
    monkeypatch.setattr("robcomp.data.checksum", lambda *_: None)
    configs = [compose_config([*typed("al0"), word]) for word in ("method.ratio=0.3", "method.ratio=0.5")]
    runs = Pending(configs, [run_directory(config) for config in configs], range(2))
    assert (runs.take(), runs.take()) == (0, None)


def test_a_run_whose_data_are_nowhere_is_left_to_say_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(*_: object) -> None:
        raise UserError("no such data")

    monkeypatch.setattr("robcomp.data.checksum", gone)
    runs = held(["seed=1", "seed=2"])
    assert (runs.take(), runs.take()) == (0, 1)


def test_fresh_forgets_each_stage_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("robcomp.data.checksum", lambda *_: "0")
    runs = held(["method.ratio=0.3", "method.ratio=0.5", "seed=9"], "fresh=true")
    runs._configs[2].fresh = False
    for store in [*runs._stores[0], *runs._stores[2]]:
        store.folder.mkdir(parents=True)
        (store.folder / "result.safetensors").touch()
    with storage.locked(runs._stores[1][1].folder / "lock", "training"):  # another process is at it
        assert len(runs.discard()) == 2  # one dense stage and one of two sparse ones
    assert not any(store.finished for store in runs._stores[0])
    assert all(store.finished for store in runs._stores[2])


def test_the_board_has_a_bar_for_each_run_and_one_for_all(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr("robcomp.sweeps.board.time.monotonic", lambda: now[0])
    monkeypatch.setattr("robcomp.data.checksum", lambda *_: None)
    configs = [compose_config([*typed("nat"), f"seed={seed}"]) for seed in range(4)]
    runs = Pending(configs, [run_directory(config) for config in configs], range(4))
    board = Board(Console(file=StringIO()), [2.0] * 4, runs)
    assert board.left() is None
    assert [runs.take() for _ in range(3)] == [0, 1, 2]
    runs.done(0)
    board.over(0)
    board.draw(1, [Gauge("dense", 0.0, [])])
    board.draw(1, [Gauge("dense", 0.5, [(0, "epoch 1/2")])])
    board.draw(2, [])
    now[0] = 30.0
    one, whole = board._draw()
    assert (one.title, one.share, one.parts) == ("run 2", 0.5, [(0, "dense"), (0, "epoch 1/2")])
    assert (whole.share, whole.parts) == (0.375, [(0, "1 of 4 runs"), (1, "about 50 s left")])
    board.draw(1, [Gauge("attacks", 0.1, [])])  # another series of work does not undo what is done
    assert board._draw()[-1].share == 0.375
    board.over(1, failed=True)  # half of it was done, and no more will be
    assert board._draw()[-1].share == 3 / 7


def test_a_terminal_shows_what_the_bars_do_not() -> None:
    def shown(terminal: bool) -> str:
        console = Console(file=StringIO(), force_terminal=terminal, width=80)
        board = Board(console, [1.0], held(["seed=1"]))
        board.line(Said(0, "dense  epoch 1/2", progress=True))
        board.line(Said(0, "curves.png is not drawn"))
        return console.file.getvalue()  # type: ignore[attr-defined]

    assert shown(False) == "[1] dense  epoch 1/2\n[1] curves.png is not drawn\n"
    assert "epoch" not in shown(True)
    assert "[1] curves.png is not drawn" in shown(True)


def test_what_another_process_did_before_says_nothing_of_the_pace(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr("robcomp.sweeps.board.time.monotonic", lambda: now[0])
    board = Board(Console(file=StringIO()), [1.0], held(["seed=1"]))
    board.draw(0, [Gauge("all", 0.5, [])])  # it was resumed there
    now[0] = 10.0
    board.draw(0, [Gauge("all", 0.6, [])])
    assert board.left() == pytest.approx(40.0)


@pytest.mark.slow
def test_a_run_without_a_stage_to_train_has_a_process_too(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Attacks alone take long enough; the command itself trains and attacks nothing."""
    (started,) = [run(["method=nat"])]
    monkeypatch.setattr("robcomp.sweeps.sweep._Sweep._train", lambda *_: 1 / 0)
    words = [*typed("nat"), f"model.weights={started}/model.rcz", "schedule.dense.epochs=0", "seed=0,1", "jobs=2"]
    assert main(["train", "-m", *words]) == 0
    assert "2 of 2 runs finished" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["train", "jobs=2"], "add -m"),
        (["train", "-m", "seed=0,1", "jobs=0"], "jobs=0 is not a number of runs"),
        (["train", "-m", "seed=0,1", "jobs=two"], "jobs=two"),
        (["train", "-m", "seed=0,1", "jobs=2", "jobs=3"], "jobs= is given 2 times"),
        (["table", "atmc-mnist", "jobs=-1"], "jobs=-1"),
    ],
)
def test_how_many_side_by_side_is_a_whole_number(
    words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words) == 2
    assert said in capsys.readouterr().err
