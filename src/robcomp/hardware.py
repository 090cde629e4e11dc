"""The device that a run uses, and the number formats that it computes in."""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from robcomp.errors import UserError

STAT = Path("/proc/stat")  # Linux: what each core has done


def choose_device(name: str) -> torch.device:
    """The torch device for `device=`: auto is CUDA where there is one, the CPU elsewhere."""
    available = ["cpu"] + [f"cuda:{i}" for i in range(torch.cuda.device_count())]
    if name == "auto":
        return torch.device("cuda", 0) if len(available) > 1 else torch.device("cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        device = None
    if (
        device is None
        or (device.type == "cuda" and (device.index or 0) >= len(available) - 1)
        or (device.type not in ("cpu", "cuda"))
    ):
        raise UserError(f"device={name} is not on this machine; choose {' or '.join(['auto', *available])}.")
    return torch.device("cuda", device.index or 0) if device.type == "cuda" else device


def choose_precision(name: str, device: torch.device) -> str:
    """float32 or bf16 for `training.precision`: auto is bf16 where the hardware multiplies in it."""
    if name != "auto":
        return name
    if device.type == "cuda":
        return "bf16" if torch.cuda.get_device_capability(device) >= (8, 0) else "float32"
    flags = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    return "bf16" if "amx_bf16" in flags or "avx512_bf16" in flags else "float32"


def leave_busy_cores() -> str:
    """Let torch compute on as many threads as there are cores that nobody else keeps busy, at least one.

    Threads that share a core with another process keep all the others waiting: two threads on two cores, one of them
    busy, are several times slower than one. OMP_NUM_THREADS, where it is set, stays as it is. Returns what was done, as
    a sentence, or nothing.
    """
    before = torch.get_num_threads()
    if "OMP_NUM_THREADS" in os.environ or before == 1 or not STAT.exists():
        return ""
    cores = len(os.sched_getaffinity(0))
    busy = round(min(_busy_cores(), os.getloadavg()[0]))  # now, and not only at this moment
    threads = min(before, max(1, cores - busy))
    if threads == before:
        return ""
    torch.set_num_threads(threads)
    return (
        f"other processes keep {min(busy, cores)} of {cores} cores busy: computing on {threads} "
        f"thread{'' if threads == 1 else 's'} (OMP_NUM_THREADS={before} takes all)."
    )


def _busy_cores(seconds: float = 0.2) -> float:
    """How many of the cores that this process may use are in use, measured over so many seconds."""
    before = _ticks()
    time.sleep(seconds)
    shares = []
    for core, (idle, whole) in _ticks().items():
        passed = whole - before[core][1]
        shares.append(1 - (idle - before[core][0]) / passed if passed else 0.0)
    return sum(shares)


def _ticks(source: Path = STAT) -> dict[int, tuple[int, int]]:
    """(idle ticks, all ticks) since the start of the machine of each core that this process may use."""
    allowed = os.sched_getaffinity(0)
    found = {}
    for name, *counts in map(str.split, source.read_text().splitlines()):
        if name.startswith("cpu") and name[3:].isdecimal() and int(name[3:]) in allowed:
            ticks = [int(count) for count in counts[:8]]  # user, nice, system, idle, iowait, irq, softirq, steal
            found[int(name[3:])] = (ticks[3] + ticks[4], sum(ticks))
    return found


@contextmanager
def exact_float32() -> Iterator[None]:
    """Inside, float32 products are computed in float32, also where the hardware would round them to TF32."""
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    saved = matmul.allow_tf32, cudnn.allow_tf32
    try:
        matmul.allow_tf32 = cudnn.allow_tf32 = False
        yield
    finally:
        matmul.allow_tf32, cudnn.allow_tf32 = saved
