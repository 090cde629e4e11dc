"""What an evaluation has found so far, on disk, so that a stopped one goes on from the last finished batch."""

from pathlib import Path
from typing import Any

import numpy as np

from robcomp.storage import digest, write_atomic


class Ledger:
    """Outcomes by entry: arrays over the images, how many images of the entry are done, and the seconds it took.

    `key` says what the outcomes are of (network, images, seed); a file with another key is passed over. Without a path
    nothing is kept.
    """

    def __init__(self, path: Path | None = None, key: str = "") -> None:
        self.path, self.key = path, key
        self._held: dict[str, np.ndarray] = {}
        if path is not None and path.is_file():
            with np.load(path) as stored:
                if str(stored["key"]) == key:
                    self._held = {name: stored[name] for name in stored.files if name != "key"}

    def recall(self, entry: object) -> tuple[dict[str, np.ndarray], int, float]:
        """(arrays, images done, seconds) of `entry` (JSON-able); nothing, 0 and 0 for a new one."""
        prefix = digest(entry)
        if f"{prefix}/state" not in self._held:
            return {}, 0, 0.0
        done, seconds = self._held[f"{prefix}/state"]
        arrays = {name.partition("/")[2]: array for name, array in self._held.items() if name.startswith(prefix)}
        del arrays["state"]
        return {name: array.copy() for name, array in arrays.items()}, int(done), float(seconds)

    def note(self, entry: object, arrays: dict[str, np.ndarray], done: int, seconds: float) -> None:
        """Write down where `entry` stands; the file is replaced whole."""
        if self.path is None:
            return
        prefix = digest(entry)
        self._held[f"{prefix}/state"] = np.array([done, seconds])
        self._held |= {f"{prefix}/{name}": array for name, array in arrays.items()}
        write_atomic(self.path, self._save)

    def close(self) -> None:
        """The evaluation is finished and recorded elsewhere."""
        if self.path is not None:
            self.path.unlink(missing_ok=True)

    def _save(self, temporary: Path) -> None:
        with temporary.open("wb") as stream:  # a file object: numpy would add .npz to a temporary name
            arrays: dict[str, Any] = {"key": np.array(self.key), **self._held}
            np.savez(stream, **arrays)
