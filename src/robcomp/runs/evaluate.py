"""The figures of a run: its packed network, read back from disk, attacked and weighed."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from torch import nn

from robcomp import artifact, data, storage
from robcomp.evaluation.accuracy import Measured, measure
from robcomp.evaluation.bars import EvaluationProgress
from robcomp.evaluation.cost import macs
from robcomp.evaluation.evaluator import Evaluator
from robcomp.evaluation.ledger import Ledger
from robcomp.evaluation.machine import machine
from robcomp.evaluation.size import layer_sizes, sizes
from robcomp.report import render
from robcomp.report.records import now
from robcomp.report.schema import DataFacts, EvaluationFacts, Report, RunFacts, StageFacts, Threat
from robcomp.report.size import Density, Macs, Size
from robcomp.report.terminal import say
from robcomp.runs import beforehand, effect, identity
from robcomp.runs.load import check_overrides, load
from robcomp.settings.schema import Config
from robcomp.trainers.state import Environment
from robcomp.units import fraction

LEDGER_FILE = "outcomes.part.npz"  # what a run's evaluation has found so far


@dataclass(frozen=True, eq=False)
class Weighed:
    """A network on the CPU in eval mode with what is known of it before it is attacked; `digest` stands for it all."""

    model: nn.Module
    digest: str
    size: Size
    density: Density
    macs: Macs | None


def packed(network: Path) -> Weighed:
    """The network of a model.rcz, weighed."""
    model, spec, bits = artifact.load(network)
    layers = layer_sizes(model, artifact.section_bytes(network))
    size, density = sizes(layers, bits, network.stat().st_size, artifact.dense_bytes(spec.build().state_dict()))
    return Weighed(model, storage.file_digest(network), size, density, macs(model, spec.shape))


def report(
    weighed: Weighed,
    config: Config,
    overrides: Sequence[str],
    folder: Path,
    dataset: data.Dataset,
    env: Environment,
    stages: list[StageFacts],
    console: Console,
) -> Report:
    """report.json's content, all of it about the network `weighed`; writes outcomes.npz into `folder`.

    What the attacks found is kept in a ledger until `finish`.
    """
    started = time.monotonic()
    ledger = _ledger(folder / LEDGER_FILE, weighed.digest, dataset, config)
    measured = attacked(weighed.model.to(env.device), dataset, config, ledger, console)
    seconds = time.monotonic() - started
    storage.write_atomic(folder / "outcomes.npz", lambda path: _save_outcomes(path, measured.outcomes))
    return Report.make(
        run=RunFacts(
            id=folder.name,
            dataset=config.dataset.name,
            model=config.model.name,
            method=config.method.name,
            seed=config.seed,
            finished=now(),
            seconds=round(sum(stage.seconds for stage in stages) + seconds, 1),
            train_epochs=sum(stage.epochs for stage in stages),
            selection=config.selection,
            settings=config.said(),
            overrides=list(overrides),
            machine=machine(env.device, env.precision),
        ),
        data=_data(config, dataset),
        threat=_threat(config),
        stages=stages,
        accuracy=measured.accuracy,
        verdict=measured.verdict,
        size=weighed.size,
        density=weighed.density,
        macs=weighed.macs,
    )


def finish(folder: Path, report: Report) -> None:
    """Write report.md and, last of all, report.json: its presence says that the run is finished."""
    storage.write_text(folder / "report.md", render.markdown(report))
    report.write(folder / "report.json")
    (folder / LEDGER_FILE).unlink(missing_ok=True)


def attacked(model: nn.Module, dataset: data.Dataset, config: Config, ledger: Ledger, console: Console) -> Measured:
    """The configuration's attack suite on the test images, with the checks of its verdict."""
    suite = config.attack
    with (
        EvaluationProgress(console) as progress,
        Evaluator(model, dataset.test, config.seed, suite.batch_size, ledger) as evaluator,
    ):
        attacks, judged = ", ".join(suite.build()), min(suite.verdict, int(evaluator.clean.sum()))
        then = f", then the verdict on {judged:,} of them" if judged else ""
        what = f"attacks on {len(dataset.test):,} test images: {attacks}{then}"
        say(console, f"{what}; on {evaluator.device.type} in float32", fold=True)
        return measure(evaluator, suite, progress)


def evaluate_run(folder: Path, overrides: Sequence[str], out: Path | None, console: Console) -> Path:
    """Attack a finished run's model.rcz with another suite; writes evaluation-<hash>.json and .npz there or into `out`.

    The file is the run's report with other accuracies and verdict, and a block "evaluation" that says how they were
    obtained. The same evaluation asked for again is read from its file; a stopped one goes on.
    """
    run = load(folder, overrides)
    check_overrides([run], overrides, effect.EVALUATION)
    for sentence in beforehand.shortened(run.config, run.dataset):
        say(console, sentence)
    config, report = run.config, run.report
    page = (
        out or folder
    ) / f"evaluation-{storage.digest([identity.evaluation(config, run.dataset), run.network])}.json"
    page.parent.mkdir(parents=True, exist_ok=True)
    with storage.locked(page.with_suffix(".lock") if out else folder / "lock", f"evaluating {folder}"):
        if not config.fresh and Report.present(page):
            say(console, f"already evaluated: {page} (fresh=true repeats it)")
        else:
            ledger = _ledger(page.with_suffix(".part.npz"), run.network, run.dataset, config)
            measured = attacked(run.model, run.dataset, config, ledger, console)
            report = replace(
                report,
                accuracy=measured.accuracy,
                verdict=measured.verdict,
                evaluation=EvaluationFacts(
                    finished=now(),
                    overrides=list(overrides),
                    machine=machine(run.device, "float32"),
                    threat=_threat(config),
                    data=_data(config, run.dataset),
                ),
            )
            storage.write_atomic(page.with_suffix(".npz"), lambda path: _save_outcomes(path, measured.outcomes))
            report.write(page)
            ledger.close()
    return page


def show(page: Path, console: Console) -> None:
    """Print the report in the JSON file `page`."""
    render.console(Report.read(page), console)


def _ledger(path: Path, network: str, dataset: data.Dataset, config: Config) -> Ledger:
    """What an evaluation that was stopped had found of this network on these images; nothing with fresh=true."""
    if config.fresh:
        path.unlink(missing_ok=True)
    return Ledger(path, storage.digest([network, dataset.checksum, len(dataset.test)]))


def _data(config: Config, dataset: data.Dataset) -> DataFacts:
    return DataFacts(
        name=dataset.name,
        train=len(dataset.train),
        val=len(dataset.val),
        test=len(dataset.test),
        classes=len(dataset.classes),
        official=dataset.official,
        own=config.dataset.path is not None,
        source=dataset.source,
        checksum=dataset.checksum,
    )


def _threat(config: Config) -> Threat:
    return Threat(norm=config.threat.norm, eps=fraction(config.threat.eps, "threat.eps"))


def _save_outcomes(path: Path, outcomes: dict[str, Any]) -> None:
    with path.open("wb") as stream:  # a file object: numpy would add .npz to a temporary name
        np.savez_compressed(stream, **outcomes)
