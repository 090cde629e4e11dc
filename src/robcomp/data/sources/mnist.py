"""MNIST (LeCun, Cortes, Burges) from its four idx.gz archives."""

from pathlib import Path

import numpy as np

from robcomp.data.archives import Archive, reading
from robcomp.data.sources import SOURCES, Raw


@SOURCES.register("mnist")
def mnist(raw_dir: Path) -> Raw:
    """60,000 training and 10,000 test digits, uint8 [N,1,28,28]; archives in raw_dir/MNIST/raw.

    Raises UserError when the archives are missing and cannot be downloaded, or are damaged.
    """
    from torchvision.datasets import MNIST

    folder = raw_dir / "MNIST" / "raw"
    archives = [
        Archive(folder / name, MNIST.mirrors[0] + name, md5, folder / name.removesuffix(".gz"))
        for name, md5 in MNIST.resources
    ]

    def split(train: bool) -> tuple[np.ndarray, np.ndarray]:
        parsed = MNIST(raw_dir, train=train, download=True)
        return parsed.data[:, None].numpy(), parsed.targets.numpy()

    with reading("mnist", folder, archives):
        train_images, train_labels = split(train=True)
        test_images, test_labels = split(train=False)
    return Raw(
        train_images,
        train_labels,
        test_images,
        test_labels,
        classes=tuple(str(digit) for digit in range(10)),
        source=f"torchvision MNIST, {MNIST.mirrors[0]}",
        official=True,
    )
