"""Several runs: a sweep on the command line, or the rows of a table."""

import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path

from hydra.core.override_parser.types import Glob, IntervalSweep, Override
from rich.console import Console

from robcomp import storage
from robcomp.errors import UserError
from robcomp.report.results import PlanResult
from robcomp.report.terminal import about, say, waiting
from robcomp.report.terminal import console as terminal
from robcomp.runs import beforehand, effect, train
from robcomp.runs.identity import run_directory
from robcomp.settings import choices, grammar, search_path
from robcomp.settings.checks import check_overrides
from robcomp.settings.compose import compose_config, compose_node
from robcomp.settings.schema import Config
from robcomp.sweeps import plan
from robcomp.sweeps.board import Board
from robcomp.sweeps.cluster import Cluster
from robcomp.sweeps.events import Drawn, Ended, Processes, Said, failed
from robcomp.sweeps.pending import Pending
from robcomp.sweeps.workers import Workers


def expand(overrides: Sequence[str]) -> list[list[str]]:
    """The runs of a sweep, in Hydra's order: `seed=0,1 method=al0,atmc` are four lists of overrides.

    UserError for a word that cannot be read, or that holds no value.
    """
    parsed = grammar.parse(overrides)
    entries = search_path.entries(o.value() for o in parsed if o.get_key_element() == search_path.KEY)
    folders = search_path.folders(entries)
    check_overrides([override for override in parsed if not override.is_sweep_override()], folders)
    values = {override.get_key_element(): _values(override, folders) for override in parsed}  # the last one of a key
    return [list(job) for job in product(*values.values())]


def check(jobs: Sequence[Sequence[str]]) -> list[Config]:
    """The configurations of a sweep's runs; a UserError says which run it belongs to, by what sets it apart."""
    configs = []
    for number, job in enumerate(jobs, 1):
        try:
            configs.append(compose_config(job))
            configs[-1].check_training(job)
        except UserError as error:
            if len(jobs) == 1:
                raise
            raise UserError(f"run {number} of {len(jobs)} ({' '.join(own(job, jobs))}): {error}") from None
    return configs


def own(job: Sequence[str], jobs: Sequence[Sequence[str]]) -> list[str]:
    """The overrides of a job that not all of `jobs` have."""
    shared = set(job).intersection(*map(set, jobs))
    return [override for override in job if override not in shared]


@dataclass(frozen=True)
class Means:
    """Where the runs of a sweep are trained: in this process, in `count` processes beside it, or on a cluster."""

    count: int | None = None
    launcher: str = ""
    settings: Mapping[str, str] = field(default_factory=dict)  # of the launcher


ALONE = Means()


def _check_precision(configs: Sequence[Config], launcher: str) -> None:
    """UserError where other machines than this one would choose in which precision runs are trained."""
    if any(config.training.precision == "auto" for config in configs):
        raise UserError(
            f"launcher={launcher}: with training.precision=auto the machines that train the runs would choose it, and "
            "runs could differ by where they were trained; add training.precision=bf16 (for GPUs since the A100, and "
            "CPUs with AMX) or training.precision=float32."
        )


def run(jobs: Sequence[Sequence[str]], console: Console, typed: int = 0, means: Means = ALONE) -> list[Path | None]:
    """Train every job; the run directories in order, None where a run failed.

    All configurations are checked before the first run starts. The last `typed` overrides of each job are the user's
    own, and one that changes nothing in any of the runs is refused. A failure is written to failure.txt in its run
    directory, the sweep goes on, and the failures are listed at the end. Finished runs are skipped, so the same
    command resumes a sweep that was stopped. Runs start in their order, but one that needs a stage which another
    process is training goes later: a stage that runs share is trained once. Each run's heading says what tells it from
    the others and, once a run was trained, how long all that are left will take.
    """
    configs = check(jobs)
    effect.check([_asked(job, typed) for job in jobs], effect.TRAINING)
    targets = [run_directory(config) for config in configs]
    for out in sorted({config.out for config in configs}):
        beforehand.writable(Path(out))
    sweep = _Sweep(jobs, configs, targets, console)
    if means.launcher:
        _check_precision(configs, means.launcher)
        sweep.elsewhere(Cluster(means.launcher, means.settings, Path(configs[0].out) / "jobs", means.count))
    else:
        count = max(1, min(means.count or 1, len(sweep.due)))
        announce(jobs, configs, targets, console, count)
        if count > 1:
            everywhere = all(config.device in ("auto", "cuda") for config in configs)
            sweep.elsewhere(Workers(count, one_gpu_each=everywhere))
        else:
            sweep.one_by_one()
    for message in sweep.failures.values():  # also where all else is kept quiet
        say(terminal(stderr=True) if console.quiet else console, f"failed: {message}", "red")
    if len(jobs) > 1:
        say(console, f"{len(jobs) - len(sweep.failures)} of {len(jobs)} runs finished")
    return [None if place in sweep.failures else target for place, target in enumerate(targets)]


def planned(jobs: Sequence[Sequence[str]], console: Console, side_by_side: int = 1) -> PlanResult:
    """What the runs will cost, see `plan.plan`."""
    configs = check(jobs)
    targets, owns = [run_directory(config) for config in configs], [own(job, jobs) for job in jobs]
    with waiting(console, plan.TIMING):
        return plan.plan(configs, targets, owns, side_by_side)


def announce(
    jobs: Sequence[Sequence[str]],
    configs: Sequence[Config],
    targets: Sequence[Path],
    console: Console,
    side_by_side: int = 1,
) -> None:
    """Say what the runs will cost. Where that cannot be told, nothing: the runs will say what is wrong."""
    if console.quiet:
        return
    owns = [own(job, jobs) for job in jobs]
    with suppress(Exception), waiting(console, plan.TIMING):
        found = plan.plan(configs, targets, owns, side_by_side, brief=True)
        if found.passes:
            say(console, f"cost: {plan.sentence(found)}", fold=True)


class _Sweep:
    """The runs of a sweep while they are trained, by their places in `jobs`."""

    def __init__(
        self, jobs: Sequence[Sequence[str]], configs: Sequence[Config], targets: Sequence[Path], console: Console
    ) -> None:
        self.jobs, self.configs, self.targets, self.console = jobs, configs, targets, console
        self.failures: dict[int, str] = {}
        self.discarded: set[Path] = set()  # the stages that fresh=true has discarded
        self.due = {place for place in range(len(jobs)) if not train.finished(configs[place], targets[place])}
        self.works = [train.work(config) if place in self.due else 0.0 for place, config in enumerate(configs)]
        self.pending = Pending(configs, targets, self.due)
        self.left = sum(self.works)  # of runs that have not ended

    def one_by_one(self) -> None:
        """Train them in this process."""
        seconds = done = 0.0
        while (place := self.pending.take()) is not None:
            self._head(place, seconds / done * self.left if done else None)
            began = time.monotonic()
            if self._train(place) and self.works[place]:
                seconds, done = seconds + time.monotonic() - began, done + self.works[place]

    def elsewhere(self, processes: Processes) -> None:
        """Train them in other processes, with a bar for each run on a terminal and its lines elsewhere."""
        board = Board(self.console, self.works, self.pending)
        self.discarded |= self.pending.discard()
        try:
            with processes, board:
                while self.pending.waiting or self.pending.running:
                    while processes.free and (place := self.pending.take()) is not None:
                        self._head(place, board.left())
                        if place in self.due:
                            processes.start(place, self.jobs[place], self.discarded)
                        else:
                            self._train(place)
                    for event in processes.events():
                        if isinstance(event, Said):
                            board.line(event)
                        elif isinstance(event, Drawn):
                            board.draw(event.place, event.gauges)
                        else:
                            board.over(event.place, bool(event.failure))
                            self._ended(event)
        finally:
            if processes.farewell:
                say(terminal(stderr=True), processes.farewell)

    def _train(self, place: int) -> bool:
        """Train a run in this process, or show it where it is finished; whether it did not fail."""
        try:
            train.train(self.configs[place], self.jobs[place], self.console, self.discarded)
            train.show(self.targets[place], self.console)
        except Exception as error:
            self._failed(failed(place, error))
        self._over(place)
        return place not in self.failures

    def _ended(self, event: Ended) -> None:
        """Show a run that another process trained, or keep why it failed."""
        self._over(event.place)
        if event.failure:
            self._failed(event)
            return
        say(self.console, f"{self.name(event.place)}: finished", "bold")
        try:
            train.show(self.targets[event.place], self.console)
        except Exception as error:
            self._failed(failed(event.place, error))

    def name(self, place: int) -> str:
        """'run 2 of 6: seed=1': the overrides that are not those of every run."""
        what = " ".join(own(self.jobs[place], self.jobs) or self.jobs[place]) or "defaults"
        return f"run {place + 1} of {len(self.jobs)}: {what}"

    def _head(self, place: int, left: float | None) -> None:
        """The name of a run that begins, with the time left of all."""
        said = f" (about {about(left)} left of all runs)" if left else ""
        say(self.console, self.name(place) + said, "bold")

    def _over(self, place: int) -> None:
        self.pending.done(place)
        self.left -= self.works[place]

    def _failed(self, event: Ended) -> None:
        """Keep the traceback of a failed run in its directory, and a line about it."""
        kept = self.targets[event.place] / "failure.txt"
        storage.write_text(kept, event.trace or f"{event.failure}\n")
        self.failures[event.place] = f"{' '.join(self.jobs[event.place])}: {event.failure} (see {kept})"


def _asked(job: Sequence[str], typed: int) -> effect.Job:
    fixed = list(job[: len(job) - typed])
    return effect.Job(list(job[len(fixed) :]), lambda overrides: compose_node([*fixed, *overrides]))


def _values(override: Override, folders: Sequence[Path]) -> list[str]:
    """The override once for each value that it sweeps over, or as it is."""
    key, line, value = override.get_key_element(), grammar.line(override), override.value()
    if isinstance(value, IntervalSweep):
        raise UserError(f"{line} has no list of values; write {key}=A,B or {key}=range(1,4).")
    if isinstance(value, Glob):
        chosen = value.filter(choices.choices(override.key_or_group, folders))
    elif not override.is_sweep_override():
        return [line]
    else:
        chosen = list(override.sweep_string_iterator())
    if not chosen:
        raise UserError(f"{line} holds no run; write {key}=A,B or {key}=range(1,4).")
    return [f"{key}={value}" for value in chosen]
