"""Locks that say who holds them, to processes and threads that wait."""

import json
import logging
import os
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from robcomp import storage
from robcomp.storage import locked

HOLD = """
import sys, time
from pathlib import Path
from robcomp.storage import locked
with locked(Path(sys.argv[1]), "training stage dense of outputs/a b"):
    print("held", flush=True)
    sys.stdin.readline()
"""


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage, "PATIENCE", 0.05)


def holder(path: Path) -> subprocess.Popen[str]:
    """A process that holds the lock until it is told a line, or killed."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def test_who_waits_says_for_whom_once_and_goes_on(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "lock"
    process = holder(path)
    release = threading.Timer(0.5, lambda: process.communicate("now\n"))
    release.start()
    began = time.monotonic()
    with locked(path, "evaluating"):
        assert time.monotonic() - began > 0.3
        assert json.loads((tmp_path / "lock.owner").read_text())["pid"] == os.getpid()
    release.join()
    (told,) = [record.getMessage() for record in caplog.records]
    since = time.strftime("%H:%M", time.localtime(time.time()))[:3]
    start = f"robcomp: waiting for process {process.pid} on {socket.gethostname()}, which has been "
    assert told.startswith(f"{start}training stage dense of outputs/a b since {since}")
    assert caplog.records[0].levelno == logging.WARNING
    assert not (tmp_path / "lock.owner").exists()


def test_a_free_lock_says_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with locked(tmp_path / "new folder" / "lock", "training"):
        pass
    assert not caplog.records


def test_the_lock_of_a_process_that_died_is_free(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "lock"
    process = holder(path)
    process.kill()
    process.communicate()
    assert (tmp_path / "lock.owner").exists()
    with locked(path, "training"):
        assert json.loads((tmp_path / "lock.owner").read_text())["pid"] == os.getpid()
    assert not caplog.records


@pytest.mark.parametrize("left", ["a process that died", "half a file", "nothing"])
def test_a_holder_that_is_not_known_is_not_made_up(left: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path, beside = tmp_path / "lock", tmp_path / "lock.owner"
    process = holder(path)
    if left == "a process that died":
        gone = subprocess.Popen([sys.executable, "-c", ""])
        gone.wait()
        beside.write_text(json.dumps(json.loads(beside.read_text()) | {"pid": gone.pid}))
    elif left == "half a file":
        beside.write_text(beside.read_text()[:10])
    else:
        beside.unlink()
    release = threading.Timer(0.3, lambda: process.communicate("now\n"))
    release.start()
    with locked(path, "evaluating"):
        pass
    release.join()
    assert [record.getMessage() for record in caplog.records] == [
        f"robcomp: waiting for another process, which holds {path}"
    ]


def test_threads_wait_for_each_other(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path, order = tmp_path / "lock", []

    def second() -> None:
        with locked(path, "evaluating"):
            order.append("second")

    with locked(path, "training stage sparse"):
        thread = threading.Thread(target=second)
        thread.start()
        time.sleep(0.2)
        order.append("first")
    thread.join()
    assert order == ["first", "second"]
    assert f"process {os.getpid()} on " in caplog.records[0].getMessage()


def test_the_holder_may_say_what_it_does_next(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path, waited = tmp_path / "lock", threading.Event()

    def told(of: str) -> bool:
        """Whether the waiting thread says so within some seconds."""
        end = time.monotonic() + 10
        while time.monotonic() < end and not any(of in record.getMessage() for record in caplog.records):
            time.sleep(0.02)
        return time.monotonic() < end

    def second() -> None:
        with locked(path, "evaluating"):
            waited.set()

    with locked(path, "training stage dense") as doing:
        thread = threading.Thread(target=second)
        thread.start()
        assert told("training stage dense")
        doing("training stage sparse")
        assert told("training stage sparse")
        assert not waited.is_set()
    thread.join()
    assert len(caplog.records) == 2


def test_an_error_inside_releases(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="inside"), locked(tmp_path / "lock", "training"):
        raise ValueError("inside")
    assert not (tmp_path / "lock.owner").exists()
    with locked(tmp_path / "lock", "training"):
        pass
