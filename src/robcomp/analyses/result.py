"""The result of an analysis, <name>-<hash>.json, .csv and .png: written once, recognised the next time."""

import datetime
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

import robcomp
from robcomp import storage
from robcomp.analyses import files
from robcomp.attacks.base import Attack
from robcomp.evaluation.evaluator import REVISION
from robcomp.evaluation.ledger import Ledger
from robcomp.hardware import machine
from robcomp.report.formatting import as_csv
from robcomp.runs.load import LoadedRun


class Result:
    """Where an analysis stands on disk. Its name carries the digest of `plan` and of all else that decides the figures.

    `runs`: the networks; the first one's folder takes the files unless `out` is another, its seed and batches count.
    """

    def __init__(
        self, schema: str, runs: Sequence[LoadedRun], plan: Any, overrides: Sequence[str], out: Path | None
    ) -> None:
        self.schema, self.runs, self.overrides = schema, runs, list(overrides)
        first, self._images = runs[0], runs[0].dataset
        self._networks = [run.network for run in runs]
        images = [self._images.checksum, len(self._images.test)]
        identity = storage.digest(
            [
                schema,
                plan,
                self._networks,
                images,
                first.config.seed,
                first.config.attack.batch_size,
                REVISION,
            ]
        )
        name = schema.removeprefix("robcomp-").split("/")[0]
        self.stem = (out or first.folder) / f"{name}-{identity}"
        self._ledgers: list[Ledger] = []

    @property
    def path(self) -> Path:
        """The JSON file, which is written first and holds all that the other files show."""
        return self.stem.with_suffix(".json")

    def present(self, console: Console) -> dict[str, Any] | None:
        """The finished result, where there is one and fresh=true does not ask for another."""
        if not self.path.exists() or self.runs[0].config.fresh:
            return None
        console.print("already evaluated (fresh=true evaluates again)")
        return json.loads(self.path.read_text(encoding="utf-8"))

    def ledger(self, part: str) -> Ledger:
        """What a stopped analysis had found of its `part`, one for each attacked network."""
        key = storage.digest([self._networks, self._images.checksum, part])
        path = self.stem.with_suffix(f".{part}.part.npz")
        if self.runs[0].config.fresh:
            path.unlink(missing_ok=True)
        self._ledgers.append(Ledger(path, key))
        return self._ledgers[-1]

    def write(self, evaluated: dict[str, Any]) -> dict[str, Any]:
        """The result with its head (what was evaluated, when, on which machine), as it now stands in the JSON file."""
        first = self.runs[0]
        head = {
            "schema": self.schema,
            "robcomp": robcomp.__version__,
            "finished": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            "machine": machine(first.device, "float32"),
            "seed": first.config.seed,
            "overrides": self.overrides,
            "data": {
                "name": self._images.name,
                "checksum": self._images.checksum,
                "test": len(self._images.test),
                "classes": len(self._images.classes),
                "official": self._images.official,
            },
            "runs": [
                {
                    "label": run.label,
                    "folder": str(run.folder),
                    "sha256": network,
                    **{key: run.report["run"][key] for key in ("id", "model", "method")},
                    "threat": run.report["threat"],
                    "trusted": run.report.get("verdict", {}).get("trusted"),
                }
                for run, network in zip(self.runs, self._networks, strict=True)
            ],
        }
        for suffix in (".csv", ".png"):
            self.stem.with_suffix(suffix).unlink(missing_ok=True)
        storage.write_json(self.path, head | evaluated)
        for ledger in self._ledgers:
            ledger.close()
        return head | evaluated

    def complete(self, rows: Sequence[dict[str, Any]], draw: Callable[[Path], None], console: Console) -> Path:
        """Write the table `rows` and the figure where they are missing; returns the JSON's path, which is printed."""
        if not (table := self.stem.with_suffix(".csv")).exists():
            storage.write_text(table, as_csv(rows))
        files.complete(self.path, draw, console)
        return self.path


def described(name: str, attack: Attack) -> dict[str, Any]:
    """All that decides what `attack` does, for a plan."""
    return {"as": name, **attack.settings()}


def cells(proportion: dict[str, Any]) -> dict[str, Any]:
    """A proportion's columns in a CSV."""
    low, high = proportion["interval"]
    return {
        "correct": proportion["correct"],
        "images": proportion["images"],
        "accuracy": proportion["value"],
        "low": low,
        "high": high,
    }
