"""Made-up runs: a report with every key of the schema, and run directories that hold one."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from robcomp.report.schema import Report

IMAGES = 400


def outcomes(accuracy: float, images: int = IMAGES, start: int = 0) -> np.ndarray:
    """Correct on `accuracy` of the images: on those from image `start` on, so that two runs can share many of them."""
    return np.roll(np.arange(images) < round(accuracy * images), start)


def make_report(
    *,
    method: str = "atmc",
    accuracy: dict[str, float] | None = None,
    nonzero: int = 645,
    bits: int = 8,
    images: int = IMAGES,
    rank: int | None = None,
) -> dict[str, Any]:
    """A report with the given accuracies; sizes follow from `nonzero` and `bits`."""
    values = accuracy or {"clean": 0.97, "fgsm": 0.81, "pgd": 0.7, "worst_case": 0.69}
    entries = {key: _entry(key, value, images) for key, value in values.items()}
    counted = {"bits": nonzero * bits, "fraction": nonzero * bits / 13776000}
    tensor = {"name": "U", "shape": [20, 20], "weights": 400, "nonzero": 3, "distinct": 3}
    layer = {"name": "conv1", "weights": 500, "nonzero": 120, "density": 0.24, "tensors": [tensor]}
    layer |= {"rank": rank} if rank else {}
    return {
        "schema": "robcomp-report/3",
        "robcomp": "0.1.0",
        "run": {
            "id": "ab12cd34ef56",
            "dataset": "mnist",
            "model": "lenet",
            "method": method,
            "seed": 0,
            "finished": "2026-11-20T18:00:00+00:00",
            "seconds": 812.3,
            "train_epochs": 12,
            "selection": "last",
            "overrides": ["method=atmc"],
            "machine": {"device": "cpu", "name": "Some CPU", "torch": "2.9.0", "precision": "bf16"},
        },
        "data": {
            "name": "mnist",
            "train": 19000,
            "val": 1000,
            "test": images,
            "classes": 10,
            "official": True,
            "checksum": "0123",
        },
        "threat": {"norm": "Linf", "eps": 76 / 255},
        "stages": [
            {"name": "dense", "key": "aa", "epochs": 5, "seconds": 140.2, "cached": False, "images_per_second": 700.1}
        ],
        "accuracy": {
            "clean": entries.pop("clean"),
            "worst_case": entries.pop("worst_case"),
            "attacks": entries,
        },
        "size": {
            "dense_weights": 430500,
            "nonzero": nonzero,
            "bits": bits,
            "nominal": {**counted, "definition": "non-zeros x bits [all]"},
            "coded": {**counted, "definition": "nominal and codebooks"},
            "file": {"definition": "real bytes", "bytes": 2400, "dense_bytes": 1724320, "fraction": 2400 / 1724320},
        },
        "density": {"total": nonzero / 430500, "layers": [layer]},
        "macs": {"definition": "products", "dense": 2293000, "executed": 2293000, "nonzero": 12345, "layers": []},
    }


def make_evaluation(*, threat: dict[str, Any] | None = None, images: int = IMAGES) -> dict[str, Any]:
    """The block "evaluation" of a later evaluation of `make_report`'s run."""
    report = make_report(images=images)
    return {
        "finished": "2026-11-21T09:00:00+00:00",
        "overrides": ["attack=atmc"],
        "machine": report["run"]["machine"] | {"precision": "float32"},
        "threat": threat or report["threat"],
        "data": report["data"],
    }


def parsed(report: dict[str, Any]) -> Report:
    """The report as robcomp reads it."""
    return Report.parse(report, "this report")


def make_epoch(stage: str, epoch: int, **values: float | None) -> str:
    """The line of an epoch in log.jsonl."""
    base = {"event": "epoch", "stage": stage, "epoch": epoch, "loss": 1.0, "clean": 0.9, "robust": 0.5}
    return json.dumps({**base, "val_clean": 0.9, "val_robust": 0.5, **values})


def make_run(folder: Path, accuracy: dict[str, float], **settings: Any) -> Path:
    """A run directory with report.json and outcomes.npz that agree with each other."""
    folder.mkdir(parents=True)
    report = make_report(accuracy={"worst_case": min(accuracy.values()), **accuracy}, **settings)
    (folder / "report.json").write_text(json.dumps(report))
    np.savez(folder / "outcomes.npz", **{key: outcomes(value) for key, value in accuracy.items()})
    return folder


def _entry(key: str, value: float, images: int) -> dict[str, Any]:
    interval = [max(0.0, value - 0.02), min(1.0, value + 0.02)]
    entry = {"value": value, "correct": round(value * images), "images": images, "interval": interval}
    if key in ("clean", "worst_case"):
        return entry
    attack = {"name": key, "norm": "Linf", "eps": 76 / 255, "steps": 16, "random_start": True, "step_size": None}
    return {**entry, "attack": attack, "seconds": 1.2}
