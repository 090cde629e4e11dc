"""What a user may say about a data set; read before torch is imported."""

import re
from dataclasses import dataclass

from robcomp.errors import UserError


@dataclass
class DatasetConfig:
    """Which images to train and test on, how many of them, and how training images are augmented.

    Raises UserError for a value outside its range; what only the data can tell (a `subset` larger than the set,
    a `shape` that is not the file's) is checked by `robcomp.data.load`.
    """

    name: str  # names the source and the file <data_dir>/<name>.safetensors
    shape: list[int]  # [channels, height, width]
    classes: int
    subset: int | None = None  # train on (and hold out from) the first N of the class-stratified order; null: all
    test_subset: int | None = None  # test on the first N of the test set's class-stratified order; null: all
    val: int = 1000  # training images held out for selection
    pad: int = 0  # random crop out of the image with this many zero pixels on every side
    flip: bool = False  # horizontal flip with probability 1/2

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", self.name):
            raise UserError(
                f"dataset.name={self.name!r} cannot name a file; use letters, digits, '_', '-' and '.', "
                "starting with a letter or a digit."
            )
        if len(self.shape) != 3 or min(self.shape) < 1:
            raise UserError(
                f"dataset.shape={list(self.shape)} is not an image shape; "
                "give three positive numbers, [channels, height, width]."
            )
        _at_least("classes", self.classes, 2)
        _at_least("subset", self.subset, 1)
        _at_least("test_subset", self.test_subset, 1)
        _at_least("val", self.val, 0)
        _at_least("pad", self.pad, 0)
        if self.pad >= min(self.shape[1:]):
            raise UserError(
                f"dataset.pad={self.pad} would let a crop miss the whole image of {self.shape[1]}x{self.shape[2]} "
                f"pixels; choose at most {min(self.shape[1:]) - 1}."
            )
        if self.subset is not None and self.val >= self.subset:
            raise UserError(
                f"dataset.val={self.val} holds out all of dataset.subset={self.subset} training images; "
                f"choose dataset.val below {self.subset} or a larger subset."
            )


def _at_least(field: str, value: int | None, low: int) -> None:
    if value is not None and value < low:
        raise UserError(f"dataset.{field}={value} is out of range; give a whole number of at least {low}.")
