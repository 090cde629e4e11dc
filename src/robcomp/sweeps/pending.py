"""Which of several runs is next: one that does not have to wait for what another process trains."""

from collections.abc import Collection, Sequence
from pathlib import Path

from robcomp import data, storage
from robcomp.errors import UserError
from robcomp.runs.train import stage_stores
from robcomp.settings.schema import Config
from robcomp.trainers.loop.stage_store import StageStore


class Pending:
    """The runs that wait, in their order, and those under way, by their places in `configs`.

    due: those that are not finished. Which stages they need depends on the checksums of their data sets, which are made
    where they are not there yet. A run whose data set cannot be read needs none: it will say what is wrong.
    """

    def __init__(self, configs: Sequence[Config], targets: Sequence[Path], due: Collection[int]) -> None:
        self._configs, self._targets = list(configs), list(targets)
        self.waiting, self.running = list(range(len(configs))), set[int]()
        self._stores = {place: _stores(configs[place]) if place in due else [] for place in self.waiting}

    def discard(self) -> set[Path]:
        """Discard the stages of the runs with fresh=true that nobody is training; their folders."""
        fresh = [place for place in self._stores if self._configs[place].fresh]
        every = {store.folder: store for place in fresh for store in self._stores[place]}
        idle = {folder: store for folder, store in every.items() if not storage.held(folder / "lock")}
        for store in idle.values():
            store.discard()
        return set(idle)

    def take(self) -> int | None:
        """The first run that is free, which is under way from now on; None where all have to wait for another.

        A run is free where nobody trains it, or a stage that it still needs: neither one of those under way, which may
        not have come to that stage yet, nor another process. Where none is free and none is under way, all wait for
        other processes: it is the first.
        """
        claimed = {store.folder for place in self.running for store in self._open(place)}
        busy = {self._targets[place] for place in self.running}
        for place in self.waiting:
            needed = {store.folder for store in self._open(place)}
            target = self._targets[place]
            if target in busy or needed & claimed or any(storage.held(path / "lock") for path in (target, *needed)):
                continue
            return self._begin(place)
        return self._begin(self.waiting[0]) if self.waiting and not self.running else None

    def done(self, place: int) -> None:
        """The run is finished, or it failed."""
        self.running.remove(place)

    def _begin(self, place: int) -> int:
        self.waiting.remove(place)
        self.running.add(place)
        return place

    def _open(self, place: int) -> list[StageStore]:
        """The stages of the run that are still to be trained."""
        return [store for store in self._stores[place] if not store.finished]


def _stores(config: Config) -> list[StageStore]:
    try:
        checksum = data.checksum(config.dataset, Path(config.data_dir))
        if checksum is None:
            checksum = data.load(config.dataset, Path(config.data_dir)).checksum
        return stage_stores(config, checksum)
    except (UserError, OSError):
        return []
