"""Finished runs, read back from disk to be attacked."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch
from omegaconf import DictConfig
from torch import nn

from robcomp import artifact, data, storage
from robcomp.artifact import NetworkSpec
from robcomp.errors import UserError
from robcomp.hardware import choose_device
from robcomp.report.schema import Report
from robcomp.runs import effect
from robcomp.settings.compose import compose_config, compose_node
from robcomp.settings.override_paths import where_found
from robcomp.settings.schema import Config

SUITE = "pgd100"  # the attack suite of every analysis, unless attack= chooses another


@dataclass(frozen=True, eq=False)
class LoadedRun:
    """A finished run: its checked report, its network in eval mode on `device`, and the images it was trained for.

    `config` is the run's own configuration under the overrides of now; `label` names the run in tables and figures,
    with the mark of doubt where its verdict has a flag.
    """

    folder: Path
    label: str
    report: Report
    model: nn.Module
    spec: NetworkSpec
    config: Config
    dataset: data.Dataset
    device: torch.device

    @property
    def network(self) -> str:
        """The SHA-256 of model.rcz."""
        return storage.file_digest(self.folder / "model.rcz")


def load(folder: Path, overrides: Sequence[str]) -> LoadedRun:
    """The finished run in `folder` with its network and data; UserError where these are not those of its training."""
    report = Report.read(folder / "report.json")
    config = compose_config(_whole(report, overrides))
    if config.dataset.name != report.run.dataset:
        raise UserError(
            f"dataset={config.dataset.name} is not what {folder} was trained on; leave dataset= out "
            f"({report.run.dataset} is used)."
        )
    if not (folder / "model.rcz").is_file() and report.run.method == "external":
        raise UserError(
            f"{folder} is an evaluation of module=, which keeps figures and no network; evaluate module= again instead."
        )
    model, spec, _ = artifact.load(folder / "model.rcz")
    device = choose_device(config.device)
    settings = config.dataset if report.stages else replace(config.dataset, subset=None, val=0)  # none was trained on
    dataset = data.load(settings, Path(config.data_dir), device)
    if dataset.checksum != report.data.checksum or spec.shape != tuple(config.dataset.shape):
        raise UserError(
            f"{folder} was trained on other {dataset.name} images, or on another split of them, than those at hand, so "
            "its training images may be among the test images here; restore the original files, or train again on "
            "these."
        )
    config.attack.check(len(dataset.classes))
    label = f"{report.run.model} {report.run.method} {report.run.id[:6]}{report.doubt}"
    return LoadedRun(folder, label, report, model.to(device), spec, config, dataset, device)


def load_all(folders: Sequence[Path], overrides: Sequence[str]) -> list[LoadedRun]:
    """The runs in `folders` for one analysis: by default under the suite `SUITE`, on the same images, labels unique."""
    if not any(override.startswith("attack=") for override in overrides):
        overrides = [f"attack={SUITE}", *overrides]
    runs = [load(folder, overrides) for folder in folders]
    same_images(runs)
    check_overrides(runs, overrides, effect.ANALYSIS)
    used = Counter(run.label for run in runs)
    return [
        replace(run, dataset=runs[0].dataset, label=run.label if used[run.label] == 1 else str(run.folder))
        for run in runs
    ]


def check_overrides(runs: Sequence[LoadedRun], overrides: Sequence[str], use: effect.Use) -> None:
    """UserError for an override of now that changes nothing in what `use` makes of any of the runs."""

    def composed(report: Report, typed: Sequence[str]) -> DictConfig:
        return compose_node(_whole(report, typed))

    effect.check([effect.Job(list(overrides), partial(composed, run.report)) for run in runs], use)


def same_images(runs: Sequence[LoadedRun]) -> None:
    """UserError unless all runs have the same data, the same classes and the same test images."""
    first = runs[0]
    for run in runs[1:]:
        if (run.dataset.checksum, run.dataset.classes) != (first.dataset.checksum, first.dataset.classes):
            raise UserError(
                f"{run.folder} was trained on {run.dataset.name} and {first.folder} on {first.dataset.name}, whose "
                "images or classes differ; give runs on the same data."
            )
        if len(run.dataset.test) != len(first.dataset.test):
            raise UserError(
                f"{run.folder} is tested on {len(run.dataset.test)} images and {first.folder} on "
                f"{len(first.dataset.test)}; add dataset.test_subset=N, for all of them."
            )


def _whole(report: Report, overrides: Sequence[str]) -> list[str]:
    """The overrides that a finished run was trained with, as far as they still count, and those of now."""
    return [*own_overrides(report.run.overrides, overrides), *overrides]


def own_overrides(trained: Sequence[str], overrides: Sequence[str]) -> list[str]:
    """The run's own overrides that still count: not fresh=, nor another suite's settings where one is chosen now.

    Folders of the user's own (--config-dir) that are gone count no more where others are named now.
    """
    dropped = ("fresh", "attack") if any(override.startswith("attack=") for override in overrides) else ("fresh",)
    kept = [override for override in trained if override.lstrip("+~").split("=")[0].split(".")[0] not in dropped]
    if any(override.startswith("hydra.searchpath=") for override in overrides):
        return [found for override in kept for found in where_found(override)]
    return kept
