"""A data set in memory, cut into training, held-out and test images."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from robcomp.data import folder, store
from robcomp.data.config import DatasetConfig, held_out
from robcomp.data.conversion import convert, convert_folder, location
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
    """The data set of `cfg` on `device`, its file under `data_dir` made from its source or folder where needed.

    Training and held-out images keep the file's order. Which images they are depends on the labels, `subset` and
    `val` alone (see `train_and_held_out`), never on a seed of the run. A `test_subset` of more test images than there
    are takes all of them. Raises UserError for data that are missing,
    damaged or other than `cfg` says.
    """
    path = _converted(cfg, Path(data_dir).expanduser())
    stored = store.read(path)
    _check_against(cfg, stored, path)
    labels = stored.tensors["train_labels"].numpy()
    train, val = train_and_held_out(labels, cfg.subset, _held_out(cfg, len(labels)))
    test = None if cfg.test_subset is None else first_of(stored.tensors["test_labels"].numpy(), cfg.test_subset)
    return Dataset(
        name=cfg.name,
        classes=stored.classes,
        train=_part(stored, "train", train).to(device),
        val=_part(stored, "train", val).to(device),
        test=_part(stored, "test", test).to(device),
        checksum=store.checksum(path, stored),
        official=stored.official,
        source=stored.source,
    )


def checksum(cfg: DatasetConfig, data_dir: Path) -> str | None:
    """The checksum of the data set of `cfg` as `load` would give it, or None where it is not stored yet."""
    data_dir = Path(data_dir).expanduser()
    if not location(cfg, data_dir).exists():
        return None
    path = _converted(cfg, data_dir)
    return store.checksum(path, store.read(path))


def stamp(cfg: DatasetConfig, data_dir: Path) -> str | None:
    """What tells one state of the folder at cfg.path from another, and from other folders, without reading the images.

    Where the folder is gone, the stamp of its converted file. Raises UserError where neither is there.
    """
    path = location(cfg, Path(data_dir).expanduser())
    root = Path(cfg.path or "")
    if path.exists() and not root.exists():
        return store.read(path).stamp
    return folder.scan(root).stamp


def _converted(cfg: DatasetConfig, data_dir: Path) -> Path:
    return convert_folder(cfg, data_dir) if cfg.path else convert(cfg.name, data_dir)


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
    if cfg.classes not in (None, len(stored.classes)):
        raise UserError(
            f"dataset.classes={cfg.classes} but {path} has {len(stored.classes)} classes; "
            f"set dataset.classes={len(stored.classes)}."
        )
    size = len(stored.tensors["train_labels"])
    if cfg.subset is not None and cfg.subset > size:
        raise UserError(
            f"dataset.subset={cfg.subset} but {cfg.name} has {size} training images; "
            f"choose at most {size}, or null for all of them."
        )


def _held_out(cfg: DatasetConfig, size: int) -> int:
    """How many of the `size` training images, or of cfg.subset of them, are held out."""
    available = cfg.subset or size
    count = held_out(1000, available) if cfg.val is None else cfg.val
    if count >= available:
        raise UserError(
            f"dataset.val={count} leaves nothing to train on: {cfg.name} has {available} training images; "
            f"choose dataset.val below {available}."
        )
    return count
