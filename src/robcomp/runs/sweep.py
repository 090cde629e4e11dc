"""Several runs, one after another: a sweep on the command line, or the rows of a table."""

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
    command takes up a sweep that was stopped.
    """
    configs = [_composed(jobs, number) for number in range(len(jobs))]
    effect.check([_asked(job, typed) for job in jobs], effect.TRAINING)
    targets = [run_directory(config) for config in configs]
    for out in sorted({config.out for config in configs}):
        beforehand.writable(Path(out))
    folders: list[Path | None] = []
    failures = []
    for number, (job, config, target) in enumerate(zip(jobs, configs, targets, strict=True), 1):
        console.rule(f"run {number} of {len(jobs)}: {' '.join(job) or 'defaults'}", align="left")
        try:
            folders.append(train.train(config, job, console))
        except Exception as error:
            folders.append(None)
            failures.append(_record(target, job, error))
    for message in failures:
        console.print(f"[red]failed:[/red] {message}", highlight=False)
    if len(jobs) > 1:
        console.print(f"{len(jobs) - len(failures)} of {len(jobs)} runs finished")
    return folders


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
