"""CIFAR-10 and CIFAR-100 (Krizhevsky, 2009) from their archives of Python batches."""

from pathlib import Path

import numpy as np

from robcomp.data.archives import Archive, reading
from robcomp.data.sources import SOURCES, Raw


@SOURCES.register("cifar10")
def cifar10(raw_dir: Path) -> Raw:
    """50,000 training and 10,000 test images of 10 classes; archive raw_dir/cifar-10-python.tar.gz."""
    return _cifar("CIFAR10", raw_dir)


@SOURCES.register("cifar100")
def cifar100(raw_dir: Path) -> Raw:
    """50,000 training and 10,000 test images, the 100 fine labels; archive raw_dir/cifar-100-python.tar.gz."""
    return _cifar("CIFAR100", raw_dir)


def _cifar(name: str, raw_dir: Path) -> Raw:
    """What torchvision's class `name` parses, images uint8 [N,3,32,32].

    Raises UserError when the archive is missing and cannot be downloaded, or is damaged.
    """
    from torchvision import datasets

    cls = getattr(datasets, name)
    folder = raw_dir / cls.base_folder
    archive = Archive(raw_dir / cls.filename, cls.url, cls.tgz_md5, folder)

    with reading(name.lower(), folder, [archive]):
        train = cls(raw_dir, train=True, download=True)
        test = cls(raw_dir, train=False, download=True)
    return Raw(
        train_images=train.data.transpose(0, 3, 1, 2),
        train_labels=np.asarray(train.targets, dtype=np.int64),
        test_images=test.data.transpose(0, 3, 1, 2),
        test_labels=np.asarray(test.targets, dtype=np.int64),
        classes=tuple(train.classes),
        source=f"torchvision {name}, {cls.url}",
        official=True,
    )
