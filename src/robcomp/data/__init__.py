"""Image data sets: fetched once, kept as one memory-mapped file each, augmented on the device.

Everything here is loaded on first use, so that reading a configuration or listing the data sets does not import torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from robcomp.data.config import DatasetConfig

if TYPE_CHECKING:
    from robcomp.data.augmentation import augment, to_float
    from robcomp.data.conversion import convert
    from robcomp.data.loading import Dataset, Split, checksum, load, stamp

__all__ = ["Dataset", "DatasetConfig", "Split", "augment", "checksum", "convert", "load", "stamp", "to_float"]

_MODULES = {
    "Dataset": "loading",
    "Split": "loading",
    "checksum": "loading",
    "load": "loading",
    "stamp": "loading",
    "augment": "augmentation",
    "to_float": "augmentation",
    "convert": "conversion",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module 'robcomp.data' has no attribute '{name}'")
    return getattr(import_module(f"robcomp.data.{_MODULES[name]}"), name)
