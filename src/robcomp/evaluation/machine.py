"""What a run is computed on, as reports name it."""

import platform
from pathlib import Path

import torch

from robcomp.report.schema import Machine


def machine(device: torch.device, precision: str) -> Machine:
    """The device, its name, CPU threads and torch's version, with the `precision` of training."""
    return Machine(
        device=device.type,
        name=torch.cuda.get_device_name(device) if device.type == "cuda" else _processor(),
        threads=torch.get_num_threads(),
        torch=torch.__version__,
        precision=precision,
    )


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()
