"""The device that a run uses, and the number formats that it computes in."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from robcomp.errors import UserError


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
