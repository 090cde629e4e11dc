"""A data set in memory, cut into training, held-out and test images."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from robcomp.data import store
from robcomp.data.config import DatasetConfig
from robcomp.data.conversion import convert
from robcomp.data.splits import first_of, train_and_held_out
from robcomp.errors import UserError


@dataclass(frozen=True, eq=False)
class Split:
    """Images uint8 [N,C,H,W] and their labels int64 [N], on one device."""

    images: torch.Tensor
    labels: torch.Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def to(self, device: torch.device | str) -> "Split":
        return Split(self.images.to(device), self.labels.to(device))


@dataclass(frozen=True, eq=False)
class Dataset:
    """The three parts of a data set: gradients come from `train`, choices from `val`, figures from `test`.

    `checksum` hashes the tensors of the whole file (not only the parts in use); `official` says whether split and
    order of the file are the published ones; `source` says in words where it came from.
    """

    name: str
    classes: tuple[str, ...]
    train: Split
    val: Split
    test: Split
    checksum: str
    official: bool
    source: str


def load(cfg: DatasetConfig, data_dir: Path, device: torch.device | str = "cpu") -> Dataset:
    """The data set of `cfg` on `device`, made from its source under `data_dir` if its file is not there yet.

    Training and held-out images keep the file's order. Which images they are depends on the labels, `subset` and
    `val` alone (see `train_and_held_out`), never on a seed of the run. Raises UserError for data that are missing,
    damaged or other than `cfg` says.
    """
    path = convert(cfg.name, Path(data_dir).expanduser())
    stored = store.read(path)
    _check_against(cfg, stored, path)
    train, val = train_and_held_out(stored.tensors["train_labels"].numpy(), cfg.subset, cfg.val)
    test = None if cfg.test_subset is None else first_of(stored.tensors["test_labels"].numpy(), cfg.test_subset)
    return Dataset(
        name=cfg.name,
        classes=stored.classes,
        train=_part(stored, "train", train).to(device),
        val=_part(stored, "train", val).to(device),
        test=_part(stored, "test", test).to(device),
        checksum=store.checksum(path, stored.tensors),
        official=stored.official,
        source=stored.source,
    )


def checksum(name: str, data_dir: Path) -> str | None:
    """The checksum of the stored data set `name`, or None where it is not stored yet."""
    path = Path(data_dir).expanduser() / f"{name}.safetensors"
    return store.checksum(path, store.read(path).tensors) if path.exists() else None


def _part(stored: store.Stored, split: str, indices: np.ndarray | None) -> Split:
    """The images of `split` at `indices`, in that order; all of them, still memory-mapped, for None."""
    images, labels = stored.tensors[f"{split}_images"], stored.tensors[f"{split}_labels"]
    if indices is None:
        return Split(images, labels)
    index = torch.from_numpy(indices)
    return Split(images[index], labels[index])


def _check_against(cfg: DatasetConfig, stored: store.Stored, path: Path) -> None:
    shape = list(stored.tensors["train_images"].shape[1:])
    if list(cfg.shape) != shape:
        raise UserError(
            f"dataset.shape={list(cfg.shape)} but the images in {path} are {shape}; set dataset.shape={shape}."
        )
    if cfg.classes != len(stored.classes):
        raise UserError(
            f"dataset.classes={cfg.classes} but {path} has {len(stored.classes)} classes; "
            f"set dataset.classes={len(stored.classes)}."
        )
    for field, split in (("subset", "train"), ("test_subset", "test")):
        wanted, size = getattr(cfg, field), len(stored.tensors[f"{split}_labels"])
        if wanted is not None and wanted > size:
            raise UserError(
                f"dataset.{field}={wanted} but {cfg.name} has {size} {split} images; "
                f"choose at most {size}, or null for all of them."
            )
    size = len(stored.tensors["train_labels"])
    if cfg.val >= size:
        raise UserError(
            f"dataset.val={cfg.val} leaves nothing to train on: {cfg.name} has {size} training images; "
            f"choose dataset.val below {size}."
        )
