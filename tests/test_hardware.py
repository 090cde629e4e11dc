"""What computes: exact products inside `exact_float32`, and the machine's own settings again afterwards."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from robcomp import hardware
from robcomp.hardware import exact_float32


def allowed() -> tuple[bool, bool]:
    return torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32


def allow(matmul: bool, cudnn: bool) -> None:
    torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = matmul, cudnn


@pytest.fixture(params=[(True, False), (False, True)])
def chosen(request: pytest.FixtureRequest) -> Iterator[tuple[bool, bool]]:
    """Settings that the test begins with; the process has its own back in the end."""
    own = allowed()
    allow(*request.param)
    yield request.param
    allow(*own)


def test_float32_is_exact_inside_and_as_it_was_afterwards(chosen: tuple[bool, bool]) -> None:
    with exact_float32():
        assert allowed() == (False, False)
    assert allowed() == chosen


def stopped() -> None:
    with exact_float32():
        raise KeyboardInterrupt


def test_settings_come_back_after_an_error(chosen: tuple[bool, bool]) -> None:
    with pytest.raises(KeyboardInterrupt):
        stopped()
    assert allowed() == chosen


STAT = """cpu  0 0 0 0 0 0 0 0 0 0
cpu0 {} 0 0 {} 0 0 0 0 0 0
cpu1 100 0 0 100 50 0 0 0 0 0
cpu7 100 0 0 100 50 0 0 0 0 0
intr 1 2
"""


def test_cores_of_this_process_alone_are_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda process: {0, 1})
    (tmp_path / "stat").write_text(STAT.format(30, 70))
    assert hardware._ticks(tmp_path / "stat") == {0: (70, 100), 1: (150, 250)}


def test_busy_is_what_was_not_idle_between_two_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    looks = [{0: (70, 100), 1: (150, 250), 2: (1, 1)}, {0: (75, 120), 1: (170, 270), 2: (1, 1)}]
    monkeypatch.setattr(hardware, "_ticks", lambda: looks.pop(0))
    assert hardware._busy_cores(0.0) == pytest.approx(0.75)


@pytest.mark.parametrize(
    ("busy", "load", "typed", "threads"),
    [
        (1.0, 1.2, None, 3),
        (1.0, 0.3, None, 4),  # it has just begun
        (0.2, 3.0, None, 4),  # it has just ended
        (4.0, 9.0, None, 1),
        (2.6, 2.6, "4", 4),  # it was asked for
    ],
)
def test_threads_leave_busy_cores(
    busy: float, load: float, typed: str | None, threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hardware, "_busy_cores", lambda: busy)
    monkeypatch.setattr("os.sched_getaffinity", lambda process: {0, 1, 2, 3})
    monkeypatch.setattr("os.getloadavg", lambda: (load, 0.0, 0.0))
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if typed:
        monkeypatch.setenv("OMP_NUM_THREADS", typed)
    before = torch.get_num_threads()
    torch.set_num_threads(4)
    try:
        told = hardware.leave_busy_cores()
        assert torch.get_num_threads() == threads
        assert bool(told) == (threads < 4)
        assert not told or f"computing on {threads} thread" in told
        torch.set_num_threads(2)  # of cores with two logical ones each
        monkeypatch.setattr(hardware, "_busy_cores", lambda: 1.0)
        monkeypatch.setattr("os.getloadavg", lambda: (1.0, 0.0, 0.0))
        assert hardware.leave_busy_cores() == ""
    finally:
        torch.set_num_threads(before)
