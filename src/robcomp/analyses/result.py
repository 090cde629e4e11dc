"""The result of an analysis that attacks networks: written once, recognised the next time."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Generic, TypeVar

from rich.console import Console

from robcomp import storage
from robcomp.analyses import files
from robcomp.attacks.base import Attack
from robcomp.evaluation.evaluator import REVISION
from robcomp.evaluation.ledger import Ledger
from robcomp.evaluation.machine import machine
from robcomp.report.accuracy import Proportion
from robcomp.report.records import now
from robcomp.report.results import Analysis, AttackedRun, Images
from robcomp.report.terminal import say
from robcomp.runs import beforehand
from robcomp.runs.load import LoadedRun

A = TypeVar("A", bound=Analysis)


class Result(Generic[A]):
    """Where an analysis stands on disk. Its name carries the digest of `plan` and of all else that decides the figures.

    `kind`: the result's dataclass; `runs`: the networks; the first one's folder takes the files unless `out` is
    another, its seed and batches count.
    """

    def __init__(
        self, kind: type[A], runs: Sequence[LoadedRun], plan: Any, overrides: Sequence[str], out: Path | None
    ) -> None:
        self.kind, self.runs, self.overrides = kind, runs, list(overrides)
        first, self._images = runs[0], runs[0].dataset
        self._networks = [run.network for run in runs]
        images = [self._images.checksum, len(self._images.test)]
        identity = [plan, self._networks, images, first.config.seed, first.config.attack.batch_size, REVISION]
        self.stem = files.stem(kind, out or first.folder, *identity)
        self._ledgers: list[Ledger] = []

    @property
    def path(self) -> Path:
        """The JSON file, which is written first and holds all that the other files show."""
        return self.stem.with_suffix(".json")

    def present(self, console: Console) -> A | None:
        """The finished result, where there is one and fresh=true does not ask for another.

        Says first where fewer images are there than were asked for.
        """
        for sentence in beforehand.shortened(self.runs[0].config, self._images):
            say(console, sentence)
        if self.runs[0].config.fresh or not self.kind.present(self.path):
            return None
        say(console, f"already evaluated: {self.path} (fresh=true repeats it)")
        return self.kind.read(self.path)

    def ledger(self, part: str) -> Ledger:
        """What a stopped analysis had found of its `part`, one for each attacked network."""
        key = storage.digest([self._networks, self._images.checksum, part])
        path = self.stem.with_suffix(f".{part}.part.npz")
        if self.runs[0].config.fresh:
            path.unlink(missing_ok=True)
        self._ledgers.append(Ledger(path, key))
        return self._ledgers[-1]

    def write(self, **evaluated: Any) -> A:
        """The result, `evaluated` with its head (what was evaluated, when, on which machine); it is on disk then."""
        first = self.runs[0]
        result = self.kind.make(
            finished=now(),
            machine=machine(first.device, "float32"),
            seed=first.config.seed,
            overrides=self.overrides,
            data=Images(
                name=self._images.name,
                checksum=self._images.checksum,
                test=len(self._images.test),
                classes=len(self._images.classes),
                official=self._images.official,
            ),
            runs=[_head(run, network) for run, network in zip(self.runs, self._networks, strict=True)],
            **evaluated,
        )
        files.write(self.path, result)
        for ledger in self._ledgers:
            ledger.close()
        return result

    def complete(self, rows: files.Rows, draw: Callable[[Path], None], console: Console) -> Path:
        """Write the table `rows` and the figure where they are missing; returns the JSON's path, which is printed."""
        return files.complete(self.path, rows, draw, console)


def _head(run: LoadedRun, network: str) -> AttackedRun:
    report = run.report
    return AttackedRun(
        label=run.label,
        folder=str(run.folder),
        sha256=network,
        id=report.run.id,
        model=report.run.model,
        method=report.run.method,
        threat=report.threat,
        trusted=report.verdict.trusted if report.verdict else None,
    )


def described(name: str, attack: Attack) -> dict[str, Any]:
    """All that decides what `attack` does, for a plan."""
    return {"as": name, **attack.settings()}


def cells(accuracy: Proportion) -> dict[str, object]:
    """A proportion's columns in a CSV."""
    low, high = accuracy.interval
    return {
        "correct": accuracy.correct,
        "images": accuracy.images,
        "accuracy": accuracy.value,
        "low": low,
        "high": high,
    }
