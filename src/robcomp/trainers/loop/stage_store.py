"""The stage cache: one folder a stage, named by the hash of everything that led to it, shared by all runs.

<out>/stages/<key>/stage.json           what the key stands for
                   checkpoint.pt        the stage in progress (tensors and numbers only: weights_only loads it)
                   result.safetensors   the finished stage; its metadata holds the parameterisation and the log
"""

import json
import time
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from robcomp.storage import digest, locked, write_atomic, write_json

CHECKPOINT_SECONDS = 60.0  # between two checkpoints within an epoch
NAMING = 2  # how a stage's description is put into words; rises when every key changes


@dataclass(frozen=True)
class StageResult:
    """A finished stage: the network's tensors, its parameterisation, one log record an epoch, seconds of training."""

    tensors: dict[str, Tensor]
    form: dict[str, Any]
    records: list[dict[str, Any]]
    seconds: float


class StageStore:
    """The files of one stage; `description` is hashed into its key."""

    def __init__(self, root: Path, description: dict[str, Any]) -> None:
        self._description = {"naming": NAMING, **description}
        self.key = digest(self._description)
        self.folder = root / self.key
        self._result = self.folder / "result.safetensors"
        self._saved = time.monotonic()

    @property
    def finished(self) -> bool:
        """Whether the stage is in the cache."""
        return self._result.exists()

    def lock(self, doing: str) -> AbstractContextManager[object]:
        """Held while the stage trains: another run that needs it waits and then finds it finished.

        `doing` tells the waiting one what is being done (`storage.locked`).
        """
        write_json(self.folder / "stage.json", self._description)
        return locked(self.folder / "lock", doing)

    def result(self) -> StageResult | None:
        """The finished stage, or None."""
        if not self.finished:
            return None
        with safe_open(self._result, framework="pt") as file:
            meta = json.loads(file.metadata()["robcomp"])
            return StageResult({name: file.get_tensor(name) for name in file.keys()}, **meta)  # noqa: SIM118

    def finish(self, result: StageResult) -> None:
        """Write the result; the checkpoint has served its purpose."""
        meta = {"form": result.form, "records": result.records, "seconds": result.seconds}
        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in result.tensors.items()}
        write_atomic(self._result, lambda path: save_file(tensors, path, {"robcomp": json.dumps(meta)}))
        (self.folder / "checkpoint.pt").unlink(missing_ok=True)

    def checkpoint(self, device: torch.device) -> dict[str, Any] | None:
        """The stage in progress, or None."""
        for left_over in self.folder.glob(".*.part"):  # by a process killed while writing
            left_over.unlink()
        path = self.folder / "checkpoint.pt"
        return torch.load(path, map_location=device, weights_only=True) if path.exists() else None

    def progress(self) -> float:
        """The share of the stage that its checkpoint holds, 0 to 1; 0 without one."""
        try:
            saved = torch.load(self.folder / "checkpoint.pt", map_location="cpu", weights_only=True, mmap=True)
        except FileNotFoundError:  # also where the stage has just been finished by another process
            return 0.0
        return float(saved["step"] / saved["end"])

    def checkpoint_due(self) -> bool:
        """Whether the last checkpoint is older than `CHECKPOINT_SECONDS`."""
        return time.monotonic() - self._saved > CHECKPOINT_SECONDS

    def save_checkpoint(self, state: dict[str, Any]) -> None:
        write_atomic(self.folder / "checkpoint.pt", lambda path: torch.save(state, path))
        self._saved = time.monotonic()

    def discard(self) -> None:
        """Forget result and checkpoint (`fresh=true`)."""
        for name in ("result.safetensors", "checkpoint.pt"):
            (self.folder / name).unlink(missing_ok=True)


def orphaned(root: Path) -> int:
    """How many stages under `root` have a key of another `NAMING`, so that no run will find them again."""
    mark = f'"naming": {NAMING}'
    return sum(mark not in path.read_text(encoding="utf-8") for path in root.glob("*/stage.json"))
