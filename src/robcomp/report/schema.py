"""What report.json holds: every key with its meaning and unit, and the check that a report has them.

Paths: `a.b` is key b of mapping a, `*` any key of a mapping, `[]` each item of a list. A trailing `?` marks a key that
may be absent. docs/report.md says the same in prose.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from robcomp.errors import UserError

SCHEMA = "robcomp-report/2"
DOUBT = " (!)"  # behind each figure under attack whose verdict has a flag

KEYS = {
    "schema": f"'{SCHEMA}'; the number rises when a key changes its meaning or goes",
    "robcomp": "version of robcomp that wrote the report",
    "run.id": "hash of the resolved configuration; the name of the run directory",
    "run.dataset": "name of the data set",
    "run.model": "name of the model",
    "run.method": "name of the method",
    "run.seed": "the one seed of the run",
    "run.finished": "when the run ended, ISO 8601 with time zone",
    "run.seconds": "seconds of all stages and the evaluation; a cached stage counts the time that it once took",
    "run.train_epochs": "epochs of all stages together, cached ones included",
    "run.selection": "whose weights a stage hands on: 'last'; 'best' on held-out training images; 'best_on_test'",
    "run.settings?": "in words: an objective other than the method's own, averaged weights, quirks asked for by name",
    "run.overrides": "what the command line set, in its order",
    "run.machine.device": "'cpu' or 'cuda'",
    "run.machine.name": "the processor's or accelerator's name",
    "run.machine.threads?": "CPU threads of torch",
    "run.machine.torch": "version of torch",
    "run.machine.precision": "number format of the forward and backward passes in training",
    "data.name": "name of the data set",
    "data.train": "training images used, without the held-out ones",
    "data.val": "training images held out for selection and progress",
    "data.test": "test images that were evaluated",
    "data.classes": "number of classes",
    "data.official": "whether the data are the published set with its own test split",
    "data.own?": "whether they are the user's own images, of a folder",
    "data.source?": "in words: where the data came from",
    "data.checksum": "digest of the stored data",
    "threat.norm": "norm of the perturbations that the model is trained against",
    "threat.eps": "their largest size, as a fraction of the [0, 1] pixel range",
    "stages[].name": "name of the stage",
    "stages[].key": "hash of everything that led to its result; the name in the stage cache",
    "stages[].epochs": "epochs of the stage",
    "stages[].seconds": "wall-clock seconds of training the stage, when it was trained",
    "stages[].cached": "whether its result came from the cache",
    "stages[].images_per_second": "training images a second, the median epoch; null for a stage without epochs",
    "accuracy.clean": "on the unchanged test images",
    "accuracy.worst_case": "an image counts only where it withstands every attack of the suite",
    "accuracy.*.value": "fraction of the test images classified correctly; wrong without attack is wrong under each",
    "accuracy.*.cumulative?": "true where the value is the worst case over this attack and all cheaper ones",
    "accuracy.*.excluded?": "true where the attack is no part of the worst case: another norm, or a penalty for a ball",
    "accuracy.*.attacked?": "how many images the attack was run on",
    "accuracy.*.median_distance?": "of a minimum-norm attack: median over the correct images; null where infinite",
    "accuracy.*.correct": "how many images that is",
    "accuracy.*.images": "how many images were evaluated",
    "accuracy.*.interval": "95 % interval of `value` over draws of test images, [low, high]",
    "accuracy.*.attack?": "the attack's name, norm, eps (fraction of the [0, 1] range) and its further settings",
    "accuracy.*.seconds?": "wall-clock seconds of the attack on all images",
    "verdict?": "whether the worst case can be trusted; absent where attack.verdict=0 or every eps is 0",
    "verdict.trusted?": "no check raised a flag; null where fewer than 20 images were looked at and none did",
    "verdict.images?": "how many images the checks looked at",
    "verdict.checks[]?": "name, flag (true speaks against the figure) and evidence, a sentence, of each check",
    "evaluation?": "only in evaluation-*.json: finished, overrides, machine, threat and data of the later evaluation",
    "size.dense_weights": "convolution and linear weights of the dense model (no biases, no batch norm)",
    "size.nonzero": "stored non-zero weights, over all tensors that store a layer's weight",
    "size.bits": "bits of one stored weight",
    "size.a.definition": "in words: the papers' size, non-zeros x bits",
    "size.a.bits": "size (a) in bits",
    "size.a.fraction": "size (a) / the dense weights at 32 bits",
    "size.b.definition": "in words: size (a) and the codebooks",
    "size.b.bits": "size (b) in bits",
    "size.b.fraction": "size (b) / the dense weights at 32 bits",
    "size.c.definition": "in words: real bytes of the file, everything included",
    "size.c.bytes": "bytes of model.rcz",
    "size.c.dense_bytes": "bytes of the same model as a dense float32 file",
    "size.c.fraction": "bytes / dense_bytes",
    "density.total": "size.nonzero / size.dense_weights; factors can bring it above the density of the product",
    "density.channels?": "[input channels with a non-zero weight, all] of the convolutions together; null for factors",
    "density.layers[].name": "name of the layer in the model",
    "density.layers[].weights": "weights of the dense layer",
    "density.layers[].nonzero": "stored non-zeros of the layer's tensors together",
    "density.layers[].density": "nonzero / weights of the layer",
    "density.layers[].rank?": "rank of a layer stored as U V of low rank, null for any other",
    "density.layers[].channels?": "[inputs with a non-zero weight, all inputs]; null for a layer stored as factors",
    "density.layers[].filters?": "[outputs with a non-zero weight, all outputs]; null for a layer stored as factors",
    "density.layers[].tensors[].name": "the tensor: weight, or a factor U, V, C",
    "density.layers[].tensors[].shape": "its shape",
    "density.layers[].tensors[].weights": "its number of entries",
    "density.layers[].tensors[].nonzero": "its non-zero entries",
    "density.layers[].tensors[].distinct": "its distinct non-zero values",
    "macs?": "multiply-accumulate operations for one image; absent from reports before robcomp counted them",
    "macs.definition?": "in words: what counts",
    "macs.dense?": "of the dense network",
    "macs.executed?": "as this network is computed: low-rank layers as two products, zeros like any number",
    "macs.nonzero?": "those of the executed ones whose weight is not zero",
    "macs.layers[]?": "name, dense, executed and nonzero of each layer",
}


def check(report: dict[str, Any], name: str = "this report") -> dict[str, Any]:
    """The report itself, when its schema is the one above and no required key is missing; UserError otherwise."""
    found = report.get("schema") if isinstance(report, dict) else None
    if found != SCHEMA:
        raise UserError(
            f"{name} has schema {found!r}, and this robcomp reads '{SCHEMA}': another version wrote it. Train again; "
            "the new run has a directory of its own."
        )
    required = [path for path in KEYS if not path.endswith("?")]
    missing = dict.fromkeys(place for path in required for place in _missing(report, path.split("."), ""))
    if missing:
        raise UserError(f"{name} lacks {', '.join(missing)}; docs/report.md lists all keys. Run the evaluation again.")
    return report


def read(path: Path) -> dict[str, Any]:
    """The checked report in the file `path`; UserError when it is absent, not JSON or incomplete."""
    try:
        report = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"no report at {path}; give the directory of a finished run.") from None
    except json.JSONDecodeError as error:
        raise UserError(f"{path} is not JSON ({error}); delete it and run the evaluation again.") from None
    return check(report, str(path))


def threat_of(report: dict[str, Any]) -> dict[str, Any]:
    """The threat model of the figures: that of a later evaluation where the report is of one."""
    return report.get("evaluation", report)["threat"]


def doubt(report: dict[str, Any]) -> str:
    """The mark behind a figure under attack: empty where no flag was raised."""
    return DOUBT if report.get("verdict", {}).get("trusted") is False else ""


def _missing(value: Any, parts: list[str], place: str) -> Iterator[str]:
    """The places under `place` where the path `parts` leads to nothing."""
    if not parts:
        return
    name, rest = parts[0].removesuffix("[]"), parts[1:]
    names = list(value) if name == "*" and isinstance(value, dict) else [name]
    for key in names:
        here = f"{place}.{key}" if place else key
        if not isinstance(value, dict) or key not in value:
            yield here
        elif not parts[0].endswith("[]"):
            yield from _missing(value[key], rest, here)
        elif isinstance(value[key], list):
            for index, item in enumerate(value[key]):
                yield from _missing(item, rest, f"{here}[{index}]")
        else:
            yield here
