"""A run from Python: trained, packed, attacked and reported as by `robcomp train`, in silence."""

import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from rich.console import Console
from torch import nn

from robcomp.errors import UserError
from robcomp.library.networks import load
from robcomp.report.schema import Report
from robcomp.settings.compose import compose_config
from robcomp.settings.override_paths import absolute_paths


@dataclass(frozen=True)
class TrainedRun:
    """A finished run in its directory `folder`."""

    folder: Path

    @cached_property
    def model(self) -> nn.Module:
        """The packed network, in eval mode on the CPU (`rc.load`)."""
        return load(self.folder)

    @cached_property
    def report(self) -> Report:
        """What report.json holds."""
        return read_report(self.folder)


def train(*overrides: str, progress: bool = False) -> TrainedRun:
    """The run of `robcomp train OVERRIDES`, as in train("method=al0", "dataset=digits"); a finished one is read back.

    Nothing is printed but with `progress`, which shows how far it is. torch's random numbers go on as if nothing had
    been trained. UserError for a configuration that cannot be, or an override that changes nothing in it.
    """
    for override in overrides:
        if not isinstance(override, str):
            raise UserError(
                f"{override!r} is no override; give each as text of its own: train('method=al0', 'seed=1')."
            )
    chosen = absolute_paths(overrides)
    config = compose_config(chosen)
    from robcomp.runs.effect import check_training
    from robcomp.runs.train import train as train_run

    check_training(chosen)
    here = [torch.cuda.current_device()] if torch.cuda.is_initialized() else []
    with torch.inference_mode(False), torch.enable_grad(), torch.random.fork_rng(devices=here):
        return TrainedRun(train_run(config, chosen, Console(quiet=not progress)))


def read_report(path: str | os.PathLike[str]) -> Report:
    """The report of a run directory, or of a report.json or evaluation-*.json; UserError where there is none."""
    file = Path(path).expanduser()
    return Report.read(file / "report.json" if file.is_dir() else file)
