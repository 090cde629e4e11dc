"""The figures of a run: its packed network, read back from disk, attacked and weighed."""

import datetime
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock
from rich.console import Console
from torch import nn

import robcomp
from robcomp import artifact, data, storage
from robcomp.evaluation import verdict
from robcomp.evaluation.accuracy import evaluate_suite
from robcomp.evaluation.bars import EvaluationProgress
from robcomp.evaluation.cost import macs
from robcomp.evaluation.evaluator import Evaluator
from robcomp.evaluation.ledger import Ledger
from robcomp.evaluation.size import sizes
from robcomp.hardware import machine
from robcomp.models.parameterisation import LowRankForm, dense_weight_counts, form_of, stored_weights, weight_layers
from robcomp.report import render, schema
from robcomp.runs import identity
from robcomp.runs.load import load
from robcomp.settings.schema import Config
from robcomp.trainers.state import Environment

LEDGER_FILE = "outcomes.part.npz"  # what a run's evaluation has found so far


def report(
    config: Config,
    overrides: Sequence[str],
    folder: Path,
    dataset: data.Dataset,
    env: Environment,
    stages: list[dict[str, Any]],
    console: Console,
) -> dict[str, Any]:
    """report.json's content, all of it about `folder`/model.rcz; writes outcomes.npz beside it.

    What the attacks found is kept in a ledger until `finish`.
    """
    network = folder / "model.rcz"
    model, spec, bits = artifact.load(network)
    started = time.monotonic()
    ledger = _ledger(folder / LEDGER_FILE, network, dataset, config)
    evaluated, outcomes = attacked(model.to(env.device), dataset, config, ledger, console)
    seconds = time.monotonic() - started
    storage.write_atomic(folder / "outcomes.npz", lambda path: _save_outcomes(path, outcomes))
    by_name = weight_layers(model.cpu())
    layers = {name: dict(stored_weights(layer)) for name, layer in by_name.items()}
    grouped = [name for name, layer in by_name.items() if getattr(layer, "groups", 1) > 1]
    ranks = form.ranks if isinstance(form := form_of(model), LowRankForm) else {}
    dense_bytes = artifact.dense_bytes(spec.build().state_dict())
    return {
        "schema": schema.SCHEMA,
        "robcomp": robcomp.__version__,
        "run": {
            "id": folder.name,
            "dataset": config.dataset.name,
            "model": config.model.name,
            "method": config.method.name,
            "seed": config.seed,
            "finished": _now(),
            "seconds": round(sum(stage["seconds"] for stage in stages) + seconds, 1),
            "train_epochs": sum(stage["epochs"] for stage in stages),
            "selection": config.selection,
            "settings": config.said(),
            "overrides": list(overrides),
            "machine": machine(env.device, env.precision),
        },
        "data": _data(config, dataset),
        "threat": asdict(config.threat),
        "stages": stages,
        **evaluated,
        **sizes(layers, dense_weight_counts(model), bits, network.stat().st_size, dense_bytes, ranks, grouped),
        "macs": macs(model, spec.shape),
    }


def finish(folder: Path, report: dict[str, Any]) -> None:
    """Write report.md and, last of all, report.json: its presence says that the run is finished."""
    storage.write_text(folder / "report.md", render.markdown(report))
    storage.write_json(folder / "report.json", schema.check(report))
    (folder / LEDGER_FILE).unlink(missing_ok=True)


def attacked(
    model: nn.Module, dataset: data.Dataset, config: Config, ledger: Ledger, console: Console
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """The blocks "accuracy" and "verdict" of a report, and the outcome of each image (`evaluate_suite`)."""
    suite = config.attack
    with (
        EvaluationProgress(console) as progress,
        Evaluator(model, dataset.test, config.seed, suite.batch_size, ledger, progress.advance) as evaluator,
    ):
        progress.plan({name: attack.cost for name, attack in suite.build().items()}, int(evaluator.clean.sum()))
        accuracy, outcomes = evaluate_suite(evaluator, suite)
        judged = verdict.examine(evaluator, suite.counted(), outcomes["worst_case"], suite.verdict)
    return {"accuracy": accuracy} | ({"verdict": judged} if judged else {}), outcomes


def evaluate_run(folder: Path, overrides: Sequence[str], out: Path | None, console: Console) -> Path:
    """Attack a finished run's model.rcz with another suite; writes evaluation-<hash>.json and .npz there or into `out`.

    The file is the run's report with other accuracies and verdict, and a block "evaluation" that says how they were
    obtained. The same evaluation asked for again is read from its file; a stopped one goes on.
    """
    run = load(folder, overrides)
    config, report = run.config, run.report
    page = (
        out or folder
    ) / f"evaluation-{storage.digest([identity.evaluation(config, run.dataset), run.network])}.json"
    page.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(page.with_suffix(".lock") if out else folder / "lock"):
        if page.exists() and not config.fresh:
            console.print("already evaluated (fresh=true attacks again)")
            report = schema.read(page)
        else:
            ledger = _ledger(page.with_suffix(".part.npz"), folder / "model.rcz", run.dataset, config)
            evaluated, outcomes = attacked(run.model, run.dataset, config, ledger, console)
            report.pop("verdict", None)
            report |= {
                **evaluated,
                "evaluation": {
                    "finished": _now(),
                    "overrides": list(overrides),
                    "machine": machine(run.device, "float32"),
                    "threat": asdict(config.threat),
                    "data": _data(config, run.dataset),
                },
            }
            storage.write_atomic(page.with_suffix(".npz"), lambda path: _save_outcomes(path, outcomes))
            storage.write_json(page, schema.check(report))
            ledger.close()
    render.console(report, console)
    return page


def _ledger(path: Path, network: Path, dataset: data.Dataset, config: Config) -> Ledger:
    """What an evaluation that was stopped had found of this network on these images; nothing with fresh=true."""
    if config.fresh:
        path.unlink(missing_ok=True)
    return Ledger(path, storage.digest([storage.file_digest(network), dataset.checksum, len(dataset.test)]))


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def _data(config: Config, dataset: data.Dataset) -> dict[str, Any]:
    return {
        "name": dataset.name,
        **{name: len(getattr(dataset, name)) for name in ("train", "val", "test")},
        "classes": len(dataset.classes),
        "official": dataset.official,
        "own": config.dataset.path is not None,
        "checksum": dataset.checksum,
        "source": dataset.source,
    }


def _save_outcomes(path: Path, outcomes: dict[str, np.ndarray]) -> None:
    with path.open("wb") as stream:  # a file object: numpy would add .npz to a temporary name
        np.savez_compressed(stream, **outcomes)
