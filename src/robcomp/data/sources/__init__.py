"""Where data sets come from: one file a source, entered in SOURCES by its function's decorator.

A source is a function `raw_dir -> Raw` that finds or downloads the original files under `raw_dir` and parses them.
Every module of this package is imported below, so a new data set is one file here and one YAML in conf/dataset.
Torch and torchvision are imported inside the functions: the names can be listed without them.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from robcomp.registry import Registry, import_modules


@dataclass(frozen=True, eq=False)
class Raw:
    """A parsed data set: images uint8 [N,C,H,W], labels int64 [N] indexing `classes`.

    `source` says in words where it came from; `official` whether split and order are those of the published set.
    """

    train_images: np.ndarray
    train_labels: np.ndarray
    test_images: np.ndarray
    test_labels: np.ndarray
    classes: tuple[str, ...]
    source: str
    official: bool


SOURCES: Registry[Callable[[Path], Raw]] = Registry("dataset")

import_modules(__name__, __path__)
