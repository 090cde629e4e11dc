"""Several runs, one after another: a sweep on the command line, or the rows of a table."""

import time
import traceback
from collections.abc import Sequence
from itertools import product
from pathlib import Path

from hydra.core.override_parser.types import Glob, IntervalSweep, Override
from rich.console import Console

from robcomp import storage
from robcomp.errors import UserError
from robcomp.report.terminal import about, say
from robcomp.report.terminal import console as terminal
from robcomp.runs import beforehand, effect, train
from robcomp.runs.identity import run_directory
from robcomp.settings import choices, grammar, search_path
from robcomp.settings.checks import check_overrides
from robcomp.settings.compose import compose_config, compose_node
from robcomp.settings.schema import Config


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


def run(jobs: Sequence[Sequence[str]], console: Console, typed: int = 0) -> list[Path | None]:
    """Train every job; the run directories in order, None where a run failed.

    All configurations are checked before the first run starts. The last `typed` overrides of each job are the user's
    own, and one that changes nothing in any of the runs is refused. A failure is written to failure.txt in its run
    directory, the sweep goes on, and the failures are listed at the end. Finished runs are skipped, so the same
    command takes up a sweep that was stopped. Each run's heading says what tells it from the others and, once a run
    was trained, how long all that are left will take.
    """
    configs = check(jobs)
    effect.check([_asked(job, typed) for job in jobs], effect.TRAINING)
    targets = [run_directory(config) for config in configs]
    for out in sorted({config.out for config in configs}):
        beforehand.writable(Path(out))
    todo = [not train.finished(config, target) for config, target in zip(configs, targets, strict=True)]
    works = [train.work(config) if due else 0.0 for config, due in zip(configs, todo, strict=True)]
    folders: list[Path | None] = []
    failures, done, seconds = [], 0.0, 0.0
    anew: set[Path] = set()
    for place, (job, config, target) in enumerate(zip(jobs, configs, targets, strict=True)):
        left = about(seconds / done * sum(works[place:])) if done and any(works[place:]) else ""
        say(console, _heading(place, jobs, f"about {left} left of all runs" if left else ""), "bold")
        began = time.monotonic()
        try:
            folders.append(train.train(config, job, console, anew))
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
    what = " ".join(own(jobs[place], jobs) or jobs[place]) or "defaults"
    return f"run {place + 1} of {len(jobs)}: {what}{f' ({left})' if left else ''}"


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


def _record(folder: Path, job: Sequence[str], error: Exception) -> str:
    """Keep the traceback of a failed run in its directory; one line about it."""
    target = folder / "failure.txt"
    storage.write_text(target, "".join(traceback.format_exception(error)))
    return f"{' '.join(job)}: {str(error).splitlines()[0] if str(error) else type(error).__name__} (see {target})"
