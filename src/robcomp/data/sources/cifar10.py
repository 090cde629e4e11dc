"""CIFAR-10 (Krizhevsky, 2009) from its archive of Python batches."""

from pathlib import Path

import numpy as np

from robcomp.data.archives import Archive, reading
from robcomp.data.sources import SOURCES, Raw


@SOURCES.register("cifar10")
def cifar10(raw_dir: Path) -> Raw:
    """50,000 training and 10,000 test images, uint8 [N,3,32,32]; archive raw_dir/cifar-10-python.tar.gz.

    Raises UserError when the archive is missing and cannot be downloaded, or is damaged.
    """
    from torchvision.datasets import CIFAR10

    folder = raw_dir / CIFAR10.base_folder
    archive = Archive(raw_dir / CIFAR10.filename, folder, CIFAR10.url, CIFAR10.tgz_md5)

    with reading("cifar10", folder, [archive]):
        train = CIFAR10(raw_dir, train=True, download=True)
        test = CIFAR10(raw_dir, train=False, download=True)
    return Raw(
        train_images=train.data.transpose(0, 3, 1, 2),
        train_labels=np.asarray(train.targets, dtype=np.int64),
        test_images=test.data.transpose(0, 3, 1, 2),
        test_labels=np.asarray(test.targets, dtype=np.int64),
        classes=tuple(train.classes),
        source=f"torchvision CIFAR10, {CIFAR10.url}",
        official=True,
    )
