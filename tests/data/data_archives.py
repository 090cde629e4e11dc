"""A tiny data set in memory, and written as the archives that data sets are published in."""

import gzip
import hashlib
import io
import pickle
import struct
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

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


def md5(data: bytes) -> str:
    return hashlib.md5(data).hexdigest()


class Archives:
    """Writes a Raw in an official layout, and makes the sources expect the checksums of what was written."""

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
        parts = np.array_split(np.arange(len(raw.train_labels)), 5)
        batches = {f"data_batch_{i + 1}": (raw.train_images[p], raw.train_labels[p]) for i, p in enumerate(parts)}
        batches["test_batch"] = (raw.test_images, raw.test_labels)
        files = {
            name: {"data": images.reshape(len(images), -1), "labels": labels.tolist()}
            for name, (images, labels) in batches.items()
        }
        files["batches.meta"] = {"label_names": list(raw.classes)}
        return self._cifar("CIFAR10", data_dir / "raw" / "cifar-10-python.tar.gz", "cifar-10-batches-py", files)

    def cifar100(self, data_dir: Path, raw: Raw) -> Path:
        """The coarse labels are all 0: whoever reads them finds one class."""
        files = {
            name: {
                "data": images.reshape(len(images), -1),
                "fine_labels": labels.tolist(),
                "coarse_labels": [0] * len(labels),
            }
            for name, images, labels in (
                ("train", raw.train_images, raw.train_labels),
                ("test", raw.test_images, raw.test_labels),
            )
        }
        files["meta"] = {"fine_label_names": list(raw.classes), "coarse_label_names": ["all"]}
        return self._cifar("CIFAR100", data_dir / "raw" / "cifar-100-python.tar.gz", "cifar-100-python", files)

    def _cifar(self, cls_name: str, path: Path, folder: str, contents: dict[str, dict]) -> Path:
        from torchvision import datasets

        cls = getattr(datasets, cls_name)
        files = {name: pickle.dumps(content) for name, content in contents.items()}
        assert list(files) == [name for name, _ in cls.train_list + cls.test_list] + [cls.meta["filename"]]
        stream = io.BytesIO()
        with tarfile.open(fileobj=stream, mode="w:gz") as archive:
            for name, data in files.items():
                member = tarfile.TarInfo(f"{folder}/{name}")
                member.size = len(data)
                archive.addfile(member, io.BytesIO(data))
        path.parent.mkdir(parents=True)
        path.write_bytes(stream.getvalue())
        *train, test, meta = ([name, md5(data)] for name, data in files.items())
        self.monkeypatch.setattr(cls, "tgz_md5", md5(path.read_bytes()))
        self.monkeypatch.setattr(cls, "train_list", train)
        self.monkeypatch.setattr(cls, "test_list", [test])
        self.monkeypatch.setattr(cls, "meta", {**cls.meta, "md5": meta[1]})
        return path

    def svhn(self, data_dir: Path, raw: Raw) -> list[Path]:
        """Images [H,W,C,N] under X and labels [N,1] under y, the digit 0 as 10."""
        from scipy.io import savemat
        from torchvision.datasets import SVHN

        paths, expected = [], dict(SVHN.split_list)
        for split in ("train", "test"):
            images, labels = getattr(raw, f"{split}_images"), getattr(raw, f"{split}_labels")
            url, name, _ = SVHN.split_list[split]
            path = data_dir / "raw" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            y = np.where(labels == 0, 10, labels).astype(np.uint8)[:, None]
            savemat(path, {"X": images.transpose(2, 3, 1, 0), "y": y})
            expected[split] = [url, name, md5(path.read_bytes())]
            paths.append(path)
        self.monkeypatch.setattr(SVHN, "split_list", expected)
        return paths

    def tiny_imagenet(self, data_dir: Path, **changes: bytes | str | None) -> Path:
        """`tiny_imagenet_members` with changes (None takes a member out), under its official name."""
        from robcomp.data.sources import tiny_imagenet

        path = data_dir / "raw" / "tiny-imagenet-200.zip"
        path.parent.mkdir(parents=True)
        write_zip(path, "tiny-imagenet-200", {**tiny_imagenet_members(), **changes})
        self.monkeypatch.setattr(tiny_imagenet, "MD5", md5(path.read_bytes()))
        return path


WNIDS = ["n03", "n01", "n02"]  # not in alphabetical order


def jpeg(value: tuple[int, int, int] | int, size: tuple[int, int] = (64, 64)) -> bytes:
    """A picture of one colour, or grey of one value; JPEG keeps it to within 2."""
    stream = io.BytesIO()
    Image.new("L" if isinstance(value, int) else "RGB", size, value).save(stream, "JPEG", quality=95)
    return stream.getvalue()


def tiny_imagenet_members() -> dict[str, bytes | str | None]:
    """Four training and two validation images of each of three classes; red tells the class, green the picture."""
    members: dict[str, bytes | str | None] = {"wnids.txt": "\n".join(WNIDS) + "\n"}
    members["words.txt"] = "n00\tentity\nn01\tcrane, bird\nn02\tcrane\nn03\tgoldfish, Carassius auratus\n"
    annotations = ""
    for label, wnid in enumerate(WNIDS):
        for i in range(4):
            members[f"train/{wnid}/images/{wnid}_{i}.JPEG"] = jpeg((80 * label, 40 * i, 0))
        members[f"train/{wnid}/{wnid}_boxes.txt"] = f"{wnid}_0.JPEG\t0\t0\t63\t63\n"
    for i, wnid in enumerate(WNIDS[::-1] * 2):
        members[f"val/images/val_{i}.JPEG"] = jpeg((80 * WNIDS.index(wnid), 40 * i, 255))
        annotations += f"val_{i}.JPEG\t{wnid}\t0\t0\t63\t63\n"
    members["val/val_annotations.txt"] = annotations
    members["test/images/test_0.JPEG"] = jpeg((9, 9, 9))
    return members


def write_zip(path: Path, root: str, members: dict[str, bytes | str | None]) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            if content is not None:
                archive.writestr(f"{root}/{name}", content)
    return path
