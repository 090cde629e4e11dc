"""The file a data set is trained from: four tensors in one safetensors file, read through a memory map.

train_images and test_images uint8 [N,C,H,W], train_labels and test_labels int64 [N]; in the metadata, all strings:
classes (a JSON list of names), source (words), official ("true" or "false") and, for data made from a folder, stamp
(which state of the folder they show).
"""

import hashlib
import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from robcomp.data.sources import Raw
from robcomp.errors import UserError
from robcomp.storage import write_atomic, write_json

TENSORS = ("train_images", "train_labels", "test_images", "test_labels")


@dataclass(frozen=True, eq=False)
class Stored:
    """The contents of a file: `tensors` by the names in TENSORS, backed by the memory map.

    `version` is the size and time of modification (ns) that the file had when it was opened.
    """

    tensors: dict[str, torch.Tensor]
    classes: tuple[str, ...]
    source: str
    official: bool
    stamp: str | None
    version: dict[str, int]


def defect(tensors: Mapping[str, torch.Tensor], classes: tuple[str, ...]) -> str | None:
    """The first thing wrong with the four tensors, as a clause without a full stop; None if nothing is."""
    for split in ("train", "test"):
        images, labels = tensors[f"{split}_images"], tensors[f"{split}_labels"]
        if images.dtype != torch.uint8 or images.ndim != 4:
            return f"{split}_images is {images.dtype} {list(images.shape)} where uint8 [N,C,H,W] is expected"
        if labels.dtype != torch.int64 or labels.ndim != 1:
            return f"{split}_labels is {labels.dtype} {list(labels.shape)} where int64 [N] is expected"
        if len(images) != len(labels) or not len(images):
            return f"the {split} split has {len(images)} images and {len(labels)} labels"
        low, high = int(labels.min()), int(labels.max())
        if low < 0 or high >= len(classes):
            return f"{split}_labels run from {low} to {high} where 0 to {len(classes) - 1} is allowed"
    train, test = tensors["train_images"].shape[1:], tensors["test_images"].shape[1:]
    return None if train == test else f"train images are {list(train)} but test images {list(test)}"


def absent(tensors: Mapping[str, torch.Tensor], classes: tuple[str, ...]) -> str | None:
    """The first class without an image in one of the splits, as a clause without a full stop; None if there is none."""
    for split, words in (("train", "training"), ("test", "test")):
        counts = tensors[f"{split}_labels"].bincount(minlength=len(classes))
        if not counts.all():
            return f"class {classes[int(counts.argmin())]} has no {words} images"
    return None


def write(path: Path, raw: Raw, stamp: str | None = None) -> None:
    """Write `raw` to `path` atomically.

    Raises UserError, and writes nothing, where the tensors have a defect or a class is absent from a split.
    """
    tensors = {name: torch.from_numpy(np.ascontiguousarray(getattr(raw, name))) for name in TENSORS}
    if wrong := defect(tensors, raw.classes) or absent(tensors, raw.classes):
        raise UserError(
            f"{path} cannot be made: the original files under {path.parent / 'raw'} are damaged ({wrong}); "
            "delete them and run again."
        )
    metadata = {"classes": json.dumps(raw.classes), "source": raw.source, "official": json.dumps(raw.official)}
    if stamp is not None:
        metadata["stamp"] = stamp
    write_atomic(path, lambda temporary: save_file(tensors, temporary, metadata))


def read(path: Path) -> Stored:
    """Map the file at `path` into memory and check it. Raises UserError naming the file, its defect and the cure."""
    try:
        status = path.stat()  # before it is opened: whoever replaces it meanwhile makes this look old, not new
        with safe_open(path, framework="pt") as file:
            names, metadata = set(file.keys()), file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in TENSORS if name in names}
    except SafetensorError as error:
        raise _broken(path, f"it is not a whole safetensors file: {error}") from error
    except OSError as error:
        raise UserError(
            f"{path} cannot be read: {error.strerror or error}; check the file and its permissions."
        ) from error
    if missing := [name for name in TENSORS if name not in tensors]:
        raise _broken(path, f"it has no tensor {', '.join(missing)}")
    classes = _class_names(path, metadata)
    if wrong := defect(tensors, classes):
        raise _broken(path, wrong)
    official = metadata.get("official") == "true"
    version = {"size": status.st_size, "mtime_ns": status.st_mtime_ns}
    return Stored(tensors, classes, metadata.get("source", "unknown"), official, metadata.get("stamp"), version)


def checksum(path: Path, stored: Stored) -> str:
    """SHA-256, in hex, over names, types, shapes and bytes of the tensors read from `path`; the metadata do not count.

    Kept beside the file in <name>.checksum.json with the size and time of modification it was computed for, so
    that an unchanged file is hashed once; a folder that cannot be written only costs the time to hash again.
    """
    beside = path.with_suffix(".checksum.json")
    try:
        kept = json.loads(beside.read_text(encoding="utf-8"))
        if {key: kept[key] for key in stored.version} == stored.version:
            return str(kept["sha256"])
    except (OSError, ValueError, KeyError, TypeError):
        pass  # absent, or not what we wrote: computed again and overwritten below
    sha = hashlib.sha256()
    for name in sorted(stored.tensors):
        array = stored.tensors[name].contiguous().numpy()
        little = array.astype(array.dtype.newbyteorder("<"), copy=False)
        sha.update(f"{name} {array.dtype.name} {list(array.shape)}\n".encode())
        sha.update(little.reshape(-1).view(np.uint8).data)
    with suppress(OSError):
        write_json(beside, {**stored.version, "sha256": sha.hexdigest()})
    return sha.hexdigest()


def _class_names(path: Path, metadata: Mapping[str, str]) -> tuple[str, ...]:
    try:
        names = json.loads(metadata["classes"])
    except (KeyError, ValueError):
        names = None
    if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
        raise _broken(path, "its metadata do not hold the class names as a JSON list under 'classes'")
    return tuple(names)


def _broken(path: Path, wrong: str) -> UserError:
    return UserError(f"{path} cannot be used: {wrong}; delete it and run again to make it afresh.")
