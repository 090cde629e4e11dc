"""The figures of a run: its packed network, read back from disk, attacked and weighed."""

import datetime
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

import robcomp
from robcomp import artifact, data, storage
from robcomp.config import Config
from robcomp.errors import UserError
from robcomp.evaluation.cost import macs
from robcomp.evaluation.robustness import evaluate
from robcomp.evaluation.size import sizes
from robcomp.hardware import choose_device, machine
from robcomp.models.parameterisation import LowRankForm, dense_weight_counts, form_of, stored_weights, weight_layers
from robcomp.progress import EvaluationProgress
from robcomp.report import render, schema
from robcomp.trainers.state import Environment


def report(
    config: Config, overrides: Sequence[str], folder: Path, dataset: data.Dataset, env: Environment,
    stages: list[dict[str, Any]], console: Console,
) -> dict[str, Any]:  # fmt: skip
    """report.json's content, all of it measured on `folder`/model.rcz; writes outcomes.npz beside it."""
    network = folder / "model.rcz"
    model, spec, bits = artifact.load(network)
    started = time.monotonic()
    with EvaluationProgress(console) as progress:
        accuracy, outcomes = evaluate(
            model.to(env.device), dataset.test, config.attack.build(), config.seed, progress.advance
        )  # fmt: skip
    seconds = time.monotonic() - started
    storage.write_atomic(folder / "outcomes.npz", lambda path: _save_outcomes(path, outcomes))
    layers = {name: dict(stored_weights(layer)) for name, layer in weight_layers(model.cpu()).items()}
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
            "selection": config.training.selection,
            "overrides": list(overrides),
            "machine": machine(env.device, env.precision),
        },
        "data": _data(config, dataset),
        "threat": asdict(config.threat),
        "stages": stages,
        "accuracy": accuracy,
        **sizes(layers, dense_weight_counts(model), bits, network.stat().st_size, dense_bytes, ranks),
        "macs": macs(model, spec.shape),
    }


def evaluate_run(folder: Path, config: Config, overrides: Sequence[str], console: Console) -> Path:
    """Attack a finished run's model.rcz with another suite; writes evaluation-<hash>.json and .npz there.

    The file is the run's report with other accuracies, and a block "evaluation" that says how they were measured.
    """
    finished = schema.read(folder / "report.json")
    if config.dataset.name != finished["run"]["dataset"]:
        raise UserError(
            f"dataset={config.dataset.name} is not what {folder} was trained on; leave dataset= out "
            f"({finished['run']['dataset']} is taken)."
        )
    model, spec, _ = artifact.load(folder / "model.rcz")
    device = choose_device(config.device)
    dataset = data.load(config.dataset, Path(config.data_dir), device)
    if dataset.checksum != finished["data"]["checksum"] or spec.shape != tuple(config.dataset.shape):
        raise UserError(
            f"{folder} was trained on other {dataset.name} images, or on another split of them, than those at hand, so "
            "its test images may be among them; bring the former state back, or train on this one."
        )
    with EvaluationProgress(console) as progress:
        accuracy, outcomes = evaluate(
            model.to(device), dataset.test, config.attack.build(), config.seed, progress.advance
        )
    finished |= {
        "accuracy": accuracy,
        "evaluation": {
            "finished": _now(),
            "overrides": list(overrides),
            "machine": machine(device, "float32"),
            "threat": asdict(config.threat),
            "data": _data(config, dataset),
        },
    }
    how = [settings["attack"] for settings in accuracy.values() if "attack" in settings]
    name = f"evaluation-{storage.digest([how, config.seed, config.dataset.test_subset, dataset.checksum])}"
    storage.write_atomic(folder / f"{name}.npz", lambda path: _save_outcomes(path, outcomes))
    storage.write_json(folder / f"{name}.json", schema.check(finished))
    render.console(finished, console)
    return folder / f"{name}.json"


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
