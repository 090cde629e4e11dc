"""What a user may say about a data set; read before torch is imported."""

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from robcomp.errors import UserError, unknown

PAD_MODES = ("zero", "reflect")


@dataclass
class DatasetConfig:
    """Which images to train and test on, how many of them, and how training images are augmented.

    With `path` the images come from that folder (see `robcomp.data.folder`), made absolute here, and the name `folder`
    becomes the folder's own. Raises UserError for a value outside its range; what only the data can tell (a `subset`
    larger than the set, a `shape` that is not the file's) is checked by `robcomp.data.load`.
    """

    kind: ClassVar[str] = "dataset"

    name: str  # names the source and the file <data_dir>/<name>.safetensors
    shape: list[int]  # [channels, height, width]
    classes: int | None = None  # null: as many as the data have
    subset: int | None = None  # train on (and hold out from) the first N of the class-stratified order; null: all
    test_subset: int | None = None  # test on the first N of the test set's class-stratified order; null: all
    # Training images held out for selection; null: a tenth of them, at most 1000. The number that a data set brings is
    # for all of its images, and of a `subset` a tenth is held out at most (`held_out`); one that is typed is kept.
    val: int | None = 1000
    pad: int = 0  # random crop out of the image with this many more pixels on every side
    flip: bool = False  # horizontal flip with probability 1/2
    pad_mode: str = "zero"  # what lies beyond the border for crops and rotations: black, or the image reflected
    rotate: float = 0.0  # rotation about the centre by up to this many degrees either way
    path: str | None = None  # a folder of the user's own images, one folder per class
    test_fraction: float = 0.2  # of the images under `path` that have no test split of their own

    def __post_init__(self) -> None:
        if self.path:
            folder = Path(os.path.expanduser(self.path)).resolve()
            self.path = str(folder)
            if self.name == "folder":
                self.name = re.sub(r"[^A-Za-z0-9_.-]+", "-", folder.name).strip("_.-") or self.name
        elif self.name == "folder":
            raise UserError(
                "dataset=folder needs your images; add dataset.path=DIR, a folder with one folder per class."
            )
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", self.name):
            raise UserError(
                f"dataset.name={self.name!r} cannot name a file; use letters, digits, '_', '-' and '.', "
                "starting with a letter or a digit."
            )
        self._check_shape()
        _at_least("classes", self.classes, 2)
        _at_least("subset", self.subset, 1)
        _at_least("test_subset", self.test_subset, 1)
        _at_least("val", self.val, 0)
        self._check_augmentation()
        if self.subset is not None and self.val is not None and self.val >= self.subset:
            raise UserError(
                f"dataset.val={self.val} holds out all of dataset.subset={self.subset} training images; "
                f"choose dataset.val below {self.subset} or a larger subset."
            )
        if not 0 < self.test_fraction < 1:
            raise UserError(f"dataset.test_fraction={self.test_fraction:g} is out of range; allowed is (0, 1).")

    def _check_shape(self) -> None:
        if len(self.shape) != 3 or min(self.shape) < 1:
            raise UserError(
                f"dataset.shape={list(self.shape)} is not an image shape; "
                "give three positive numbers, [channels, height, width]."
            )
        if self.path and self.shape[0] not in (1, 3):
            raise UserError(
                f"dataset.shape={list(self.shape)} asks for {self.shape[0]} channels, but images under dataset.path "
                "are read as grey or as colour; choose 1 or 3."
            )

    def _check_augmentation(self) -> None:
        _at_least("pad", self.pad, 0)
        if self.pad >= min(self.shape[1:]):
            raise UserError(
                f"dataset.pad={self.pad} would let a crop miss the whole image of {self.shape[1]}x{self.shape[2]} "
                f"pixels; choose at most {min(self.shape[1:]) - 1}."
            )
        if self.pad_mode not in PAD_MODES:
            raise unknown("dataset.pad_mode", self.pad_mode, PAD_MODES)
        if not 0 <= self.rotate <= 180:
            raise UserError(f"dataset.rotate={self.rotate:g} is out of range; give degrees in [0, 180].")


def held_out(whole: int, subset: int | None) -> int:
    """How many images of a `subset` are held out where it is `whole` of all: at most a tenth of it, rounded up."""
    return whole if subset is None else min(whole, -(-subset // 10))


def _at_least(field: str, value: int | None, low: int) -> None:
    if value is not None and value < low:
        raise UserError(f"dataset.{field}={value} is out of range; give a whole number of at least {low}.")
