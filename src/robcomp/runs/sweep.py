"""Several runs, one after another: a sweep on the command line, or the rows of a table."""

import time
import traceback
from collections.abc import Sequence
from itertools import product
from pathlib import Path

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from rich.console import Console

from robcomp import storage
from robcomp.errors import UserError
from robcomp.report.terminal import about, say
from robcomp.report.terminal import console as terminal
from robcomp.runs import beforehand, effect, train
from robcomp.runs.identity import run_directory
from robcomp.settings.compose import compose_config, compose_node
from robcomp.settings.schema import Config


def expand(overrides: Sequence[str]) -> list[list[str]]:
    """The runs of a sweep, in Hydra's order: `seed=0,1 method=al0,atmc` are four lists of overrides."""
    try:
        parsed = OverridesParser.create().parse_overrides(list(overrides))
        values = {override.get_key_element(): _values(override) for override in parsed}  # the last one of a key
    except (HydraException, ValueError):
        raise UserError(
            f"cannot read the sweep '{' '.join(overrides)}'; write KEY=A,B or KEY=choice(A,B) or KEY=range(1,4)."
        ) from None
    jobs = [list(job) for job in product(*values.values())]
    if not jobs:
        raise UserError(f"the sweep '{' '.join(overrides)}' holds no run; write KEY=A,B or KEY=range(1,4).")
    return jobs


def run(jobs: Sequence[Sequence[str]], console: Console, typed: int = 0) -> list[Path | None]:
    """Train every job; the run directories in order, None where a run failed.

    All configurations are checked before the first run starts. The last `typed` overrides of each job are the user's
    own, and one that changes nothing in any of the runs is refused. A failure is written to failure.txt in its run
    directory, the sweep goes on, and the failures are listed at the end. Finished runs are skipped, so the same
    command takes up a sweep that was stopped. Each run's heading says what tells it from the others and, once a run
    was trained, how long all that are left will take.
    """
    configs = [_composed(jobs, number) for number in range(len(jobs))]
    effect.check([_asked(job, typed) for job in jobs], effect.TRAINING)
    targets = [run_directory(config) for config in configs]
    for out in sorted({config.out for config in configs}):
        beforehand.writable(Path(out))
    todo = [not train.finished(config, target) for config, target in zip(configs, targets, strict=True)]
    works = [train.work(config) if due else 0.0 for config, due in zip(configs, todo, strict=True)]
    folders: list[Path | None] = []
    failures, done, seconds = [], 0.0, 0.0
    for place, (job, config, target) in enumerate(zip(jobs, configs, targets, strict=True)):
        left = about(seconds / done * sum(works[place:])) if done and any(works[place:]) else ""
        say(console, _heading(place, jobs, f"about {left} left of all runs" if left else ""), "bold")
        began = time.monotonic()
        try:
            folders.append(train.train(config, job, console))
            train.show(target, console)
            done, seconds = done + works[place], seconds + (time.monotonic() - began if todo[place] else 0.0)
        except Exception as error:
            folders.append(None)
            failures.append(_record(target, job, error))
    for message in failures:  # also where all else is kept quiet
        say(terminal(stderr=True) if console.quiet else console, f"failed: {message}", "red")
    if len(jobs) > 1:
        say(console, f"{len(jobs) - len(failures)} of {len(jobs)} runs finished")
    return folders


def _heading(place: int, jobs: Sequence[Sequence[str]], left: str) -> str:
    """'run 2 of 6: seed=1 (about 12 min left of all runs)': the overrides that are not those of every run."""
    own = [override for override in jobs[place] if not all(override in job for job in jobs)]
    what = " ".join(own or jobs[place]) or "defaults"
    return f"run {place + 1} of {len(jobs)}: {what}{f' ({left})' if left else ''}"


def _composed(jobs: Sequence[Sequence[str]], number: int) -> Config:
    """The configuration of the run with that number, which a UserError names."""
    try:
        return compose_config(jobs[number])
    except UserError as error:
        raise UserError(f"run {number + 1} of {len(jobs)} ({' '.join(jobs[number])}): {error}") from None


def _asked(job: Sequence[str], typed: int) -> effect.Job:
    fixed = list(job[: len(job) - typed])
    return effect.Job(list(job[len(fixed) :]), lambda overrides: compose_node([*fixed, *overrides]))


def _values(override: Override) -> list[str]:
    """The override once for each value that it sweeps over, or as it is."""
    key = override.get_key_element()
    if override.is_discrete_sweep():
        return [f"{key}={value}" for value in override.sweep_string_iterator()]
    if override.is_sweep_override():
        raise HydraException("a sweep over an interval has no list of values")
    return [str(override.input_line)]


def _record(folder: Path, job: Sequence[str], error: Exception) -> str:
    """Keep the traceback of a failed run in its directory; one line about it."""
    target = folder / "failure.txt"
    storage.write_text(target, "".join(traceback.format_exception(error)))
    return f"{' '.join(job)}: {str(error).splitlines()[0] if str(error) else type(error).__name__} (see {target})"
