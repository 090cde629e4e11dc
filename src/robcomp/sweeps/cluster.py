"""Runs as jobs of a cluster's queue, by submitit: one job a run, on a folder that all machines share.

`slurm` is the queue; `local` starts the same jobs on this machine, to try it out without one.
"""

import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from robcomp.errors import UserError, unknown
from robcomp.report.terminal import console
from robcomp.runs import train
from robcomp.settings.compose import compose_config
from robcomp.sweeps.events import Ended, Event, Said, failed

LAUNCHERS = ("slurm", "local")
INSTALL = "launcher={} needs submitit; install it with: pip install 'robcomp[cluster]'"
LOOK = {"slurm": 5.0, "local": 0.5}  # seconds between two looks at the jobs
DAY = 24 * 60  # minutes
AGAIN = 1000  # how often a job may go on in a new one after its time was over


class RunJob:
    """What a job does. One that the queue stops, for its time or for another job, is put in it again and goes on from
    the run's last checkpoint."""

    def __call__(self, place: int, overrides: Sequence[str], discarded: set[Path]) -> Ended:
        try:
            train.train(compose_config(overrides), overrides, console(), discarded)
        except Exception as error:
            return failed(place, error)
        return Ended(place)

    def checkpoint(self, place: int, overrides: Sequence[str], discarded: set[Path]) -> Any:
        """What submitit asks for when the queue stops the job: the same, which does not start over."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self, place, [word for word in overrides if word != "fresh=true"], discarded)


@dataclass
class Cluster:
    """Up to `limit` jobs in the queue at a time; a context, whose end leaves those in it that have not ended.

    settings: what submitit's executor takes (timeout_min, slurm_partition, gpus_per_node ...), as typed. UserError for
    a launcher or a setting that there is none of, and without submitit.
    """

    launcher: str
    settings: Mapping[str, str]
    folder: Path
    limit: int | None = None
    _jobs: dict[int, Any] = field(default_factory=dict)
    _states: dict[int, str] = field(default_factory=dict)
    _refused: list[Ended] = field(default_factory=list)

    def __post_init__(self) -> None:
        if self.launcher not in LAUNCHERS:
            raise unknown("launcher", self.launcher, LAUNCHERS)
        try:
            import submitit
        except ImportError:
            raise UserError(INSTALL.format(self.launcher) + ".") from None
        logging.getLogger("submitit").setLevel(logging.ERROR)
        try:
            again = {"slurm_max_num_timeout": AGAIN} if self.launcher == "slurm" else {}
            self._executor = submitit.AutoExecutor(self.folder / "%j", cluster=self.launcher, **again)
            typed: Any = OmegaConf.to_container(OmegaConf.from_dotlist([f"{k}={v}" for k, v in self.settings.items()]))
            self._executor.update_parameters(**{"name": "robcomp", "timeout_min": DAY} | typed)
        except (RuntimeError, NameError, AssertionError, ValueError, TypeError, OmegaConfBaseException) as error:
            with suppress(OSError):  # which submitit has made
                self.folder.rmdir()
                self.folder.parent.rmdir()
            given = " ".join([f"launcher={self.launcher}", *(f"launcher.{k}={v}" for k, v in self.settings.items())])
            raise UserError(f"{given}: {' '.join(str(error).split())}") from None

    def __enter__(self) -> "Cluster":
        return self

    def __exit__(self, *_: object) -> None:
        if self.launcher == "local":  # processes of this machine, which nobody else would end
            for job in self._jobs.values():
                job.cancel()

    @property
    def free(self) -> bool:
        """Whether one more may be put into the queue."""
        return self.limit is None or len(self._jobs) < self.limit

    @property
    def farewell(self) -> str:
        """What to know when this process ends before its jobs do."""
        if self.launcher == "local" or not self._jobs:
            return ""
        names = " ".join(str(job.job_id) for job in self._jobs.values())
        return f"{len(self._jobs)} jobs stay in the queue, where they go on; to stop them: scancel {names}"

    def start(self, place: int, overrides: Sequence[str], discarded: set[Path]) -> None:
        """Put the run `place` into the queue. Where that does not take it, the run has failed."""
        try:
            self._jobs[place] = self._executor.submit(RunJob(), place, list(overrides), discarded)
        except (RuntimeError, OSError) as error:
            self._refused.append(failed(place, error))

    def events(self) -> Iterator[Event]:
        """What has become of the jobs since the last look, after a while."""
        while self._refused:
            yield self._refused.pop()
        time.sleep(LOOK[self.launcher])
        for place, job in list(self._jobs.items()):
            if job.done():
                del self._jobs[place]
                yield self._ended(place, job)
            elif (state := job.state) != self._states.get(place):
                self._states[place] = state
                yield Said(place, f"job {job.job_id}: {state.lower()}, prints to {job.paths.stdout}")

    def _ended(self, place: int, job: Any) -> Ended:
        try:
            ended: Ended = job.result()
        except Exception as error:  # it died, or was cancelled: submitit has kinds of its own
            said = f"job {job.job_id} ended without a result ({job.state.lower()}), see {job.paths.stderr}"
            return Ended(place, said, str(error))
        return ended
