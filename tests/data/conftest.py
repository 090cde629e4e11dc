"""Tiny data sets: as the file that training reads, and as the archives they are published in."""

import gzip
import hashlib
import io
import pickle
import struct
import tarfile
import urllib.request
from collections.abc import Callable
from pathlib import Path
from urllib.error import URLError

import numpy as np
import pytest

from robcomp.data import DatasetConfig
from robcomp.data.sources import Raw


def make_raw(train: int = 40, test: int = 20, classes: int = 4, shape: tuple[int, ...] = (3, 6, 5)) -> Raw:
    rng = np.random.default_rng(1)
    return Raw(
        rng.integers(0, 256, (train, *shape), dtype=np.uint8),
        rng.permutation(np.arange(train) % classes).astype(np.int64),
        rng.integers(0, 256, (test, *shape), dtype=np.uint8),
        rng.permutation(np.arange(test) % classes).astype(np.int64),
        classes=tuple(f"class {index}" for index in range(classes)),
        source="made up",
        official=True,
    )


@pytest.fixture
def raw() -> Raw:
    return make_raw()


@pytest.fixture
def tiny() -> Callable[..., DatasetConfig]:
    """The configuration that fits `raw`, with changes."""

    def build(**changes: object) -> DatasetConfig:
        return DatasetConfig(**{"name": "tiny", "shape": [3, 6, 5], "classes": 4, "val": 0, **changes})

    return build


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Every download fails as on a machine without a network; the list fills with the addresses that were asked for."""
    asked: list[str] = []

    def refuse(request: urllib.request.Request, *_: object, **__: object) -> None:
        asked.append(request.full_url)
        raise URLError("no network in this test")

    monkeypatch.setattr(urllib.request, "urlopen", refuse)
    return asked


def md5(data: bytes) -> str:
    return hashlib.md5(data).hexdigest()


class Archives:
    """Writes a Raw in an official layout, and makes torchvision expect the checksums of what was written."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.monkeypatch = monkeypatch

    def mnist(self, data_dir: Path, raw: Raw) -> list[Path]:
        from torchvision.datasets import MNIST

        folder = data_dir / "raw" / "MNIST" / "raw"
        folder.mkdir(parents=True)
        contents = {
            "train-images-idx3-ubyte.gz": raw.train_images[:, 0],
            "train-labels-idx1-ubyte.gz": raw.train_labels.astype(np.uint8),
            "t10k-images-idx3-ubyte.gz": raw.test_images[:, 0],
            "t10k-labels-idx1-ubyte.gz": raw.test_labels.astype(np.uint8),
        }
        assert list(contents) == [name for name, _ in MNIST.resources]
        resources = []
        for name, array in contents.items():
            header = bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
            data = gzip.compress(header + array.tobytes())
            (folder / name).write_bytes(data)
            resources.append((name, md5(data)))
        self.monkeypatch.setattr(MNIST, "resources", resources)
        return [folder / name for name in contents]

    def cifar10(self, data_dir: Path, raw: Raw) -> Path:
        from torchvision.datasets import CIFAR10

        parts = np.array_split(np.arange(len(raw.train_labels)), 5)
        batches = {f"data_batch_{i + 1}": (raw.train_images[p], raw.train_labels[p]) for i, p in enumerate(parts)}
        batches["test_batch"] = (raw.test_images, raw.test_labels)
        files = {
            name: pickle.dumps({"data": images.reshape(len(images), -1), "labels": labels.tolist()})
            for name, (images, labels) in batches.items()
        }
        assert list(files) == [name for name, _ in CIFAR10.train_list + CIFAR10.test_list]
        files["batches.meta"] = pickle.dumps({"label_names": list(raw.classes)})
        stream = io.BytesIO()
        with tarfile.open(fileobj=stream, mode="w:gz") as archive:
            for name, data in files.items():
                member = tarfile.TarInfo(f"cifar-10-batches-py/{name}")
                member.size = len(data)
                archive.addfile(member, io.BytesIO(data))
        path = data_dir / "raw" / "cifar-10-python.tar.gz"
        path.parent.mkdir(parents=True)
        path.write_bytes(stream.getvalue())
        *train, test, meta = ([name, md5(data)] for name, data in files.items())
        self.monkeypatch.setattr(CIFAR10, "tgz_md5", md5(path.read_bytes()))
        self.monkeypatch.setattr(CIFAR10, "train_list", train)
        self.monkeypatch.setattr(CIFAR10, "test_list", [test])
        self.monkeypatch.setattr(CIFAR10, "meta", {**CIFAR10.meta, "md5": meta[1]})
        return path


@pytest.fixture
def archives(monkeypatch: pytest.MonkeyPatch, no_network: list[str]) -> Archives:
    return Archives(monkeypatch)


@pytest.fixture
def mnist_raw() -> Raw:
    return make_raw(train=30, test=20, classes=10, shape=(1, 28, 28))


@pytest.fixture
def cifar10_raw() -> Raw:
    return make_raw(train=55, test=20, classes=10, shape=(3, 32, 32))
