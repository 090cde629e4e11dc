"""Real images, where ROBCOMP_DATA_DIR holds them: sizes, classes and statistics as published."""

import os
from pathlib import Path

import pytest
import torch

from robcomp.data import Dataset, DatasetConfig, load

FOLDER = os.environ.get("ROBCOMP_DATA_DIR")


def real(name: str, shape: list[int], val: int = 1000, classes: int = 10) -> Dataset:
    if not FOLDER or not (Path(FOLDER) / f"{name}.safetensors").is_file():
        pytest.skip(f"ROBCOMP_DATA_DIR names no folder with {name}.safetensors")
    return load(DatasetConfig(name, shape, classes=classes, val=val), Path(FOLDER))


def statistics(data: Dataset) -> tuple[list[float], list[float]]:
    """Mean and standard deviation of each channel over the images trained on, on the scale [0, 1]."""
    levels = torch.arange(256, dtype=torch.float64) / 255
    counts = [channel.flatten().bincount(minlength=256).double() for channel in data.train.images.unbind(1)]
    means = [float(count @ levels / count.sum()) for count in counts]
    squares = [float(count @ levels.square() / count.sum()) for count in counts]
    return means, [(square - mean**2) ** 0.5 for square, mean in zip(squares, means, strict=True)]


def test_mnist_is_mnist():
    data = real("mnist", [1, 28, 28])
    assert (len(data.train), len(data.val), len(data.test)) == (59000, 1000, 10000)
    both = data.train.labels.bincount() + data.val.labels.bincount()
    assert both.tolist() == [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
    assert data.test.labels.bincount().tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    mean, deviation = statistics(data)
    assert mean == pytest.approx([0.1307], abs=5e-4)
    assert deviation == pytest.approx([0.3081], abs=5e-4)


def test_mnist_is_in_its_official_order():
    """The labels of the archive begin 5 0 4 1 9 2 1 3 1 4."""
    data = real("mnist", [1, 28, 28], val=0)
    assert data.official
    assert data.train.labels[:10].tolist() == [5, 0, 4, 1, 9, 2, 1, 3, 1, 4]


def test_cifar10_is_cifar10():
    data = real("cifar10", [3, 32, 32])
    assert (len(data.train), len(data.val), len(data.test)) == (49000, 1000, 10000)
    assert data.train.labels.bincount().tolist() == [4900] * 10
    assert data.val.labels.bincount().tolist() == [100] * 10
    assert data.test.labels.bincount().tolist() == [1000] * 10
    assert data.classes[:3] == ("airplane", "automobile", "bird")
    mean, deviation = statistics(data)
    assert mean == pytest.approx([0.4914, 0.4822, 0.4465], abs=2e-3)
    assert deviation == pytest.approx([0.2470, 0.2435, 0.2616], abs=2e-3)


def test_no_held_out_cifar10_image_is_also_trained_on_or_tested_on():
    data = real("cifar10", [3, 32, 32])
    held_out = {image.numpy().tobytes() for image in data.val.images}
    assert len(held_out) == 1000
    assert not held_out & {image.numpy().tobytes() for split in (data.train, data.test) for image in split.images}


def test_cifar100_is_cifar100():
    data = real("cifar100", [3, 32, 32], classes=100)
    assert (len(data.train), len(data.val), len(data.test)) == (49000, 1000, 10000)
    assert data.train.labels.bincount().tolist() == [490] * 100
    assert data.val.labels.bincount().tolist() == [10] * 100
    assert data.test.labels.bincount().tolist() == [100] * 100
    assert (data.classes[0], data.classes[99]) == ("apple", "worm")
    mean, deviation = statistics(data)
    assert mean == pytest.approx([0.5071, 0.4865, 0.4409], abs=2e-3)
    assert deviation == pytest.approx([0.2673, 0.2564, 0.2762], abs=2e-3)


def test_the_part_of_svhn_does_not_pass_for_svhn():
    data = real("svhn_part", [3, 32, 32], val=0)
    assert (len(data.train), len(data.test), data.official) == (9082, 2001, False)
    for split in (data.train, data.test):
        share = split.labels.bincount(minlength=10) / len(split)
        assert share.argmax() == 1, "house numbers begin with 1 most often"
        assert share.min() > 0.05
    tested = {image.numpy().tobytes() for image in data.test.images}
    assert not tested & {image.numpy().tobytes() for image in data.train.images}


def test_the_twenty_classes_of_tiny_imagenet():
    data = real("tiny_imagenet_20", [3, 64, 64], val=0, classes=20)
    assert (len(data.train), len(data.test), data.official) == (10000, 1000, False)
    assert data.train.labels.bincount().tolist() == [500] * 20
    assert data.test.labels.bincount().tolist() == [50] * 20
