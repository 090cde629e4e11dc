"""Tiny-ImageNet (Stanford CS231n): 200 ImageNet classes at 64x64, read out of its zip without unpacking it."""

import io
from collections import Counter
from pathlib import Path
from zipfile import ZipFile

import numpy as np
from PIL import Image

from robcomp.data.archives import Archive, reading
from robcomp.data.decoding import decode, reason
from robcomp.data.sources import SOURCES, Raw

URL = "http://cs231n.stanford.edu/tiny-imagenet-200.zip"
MD5 = "90528d7ca1a48142e341f4ef8d21d0de"
SHAPE = (3, 64, 64)


@SOURCES.register("tiny_imagenet")
def tiny_imagenet(raw_dir: Path) -> Raw:
    """100,000 training images and, as the test part, the 10,000 labelled validation images (see `parse`).

    Archive raw_dir/tiny-imagenet-200.zip. Raises UserError when it is missing and cannot be downloaded, or is damaged.
    """
    from torchvision.datasets.utils import download_url

    path = raw_dir / "tiny-imagenet-200.zip"
    with reading("tiny_imagenet", None, [Archive(path, URL, MD5)]):
        download_url(URL, raw_dir, path.name, MD5)
        return parse(path)


def parse(path: Path) -> Raw:
    """The images of a zip laid out as Tiny-ImageNet, whatever its top folder and however many its classes.

    The images in train/ train, those in val/ test: the labels of the official test images are not public. Classes are
    numbered as in wnids.txt; training images stand in the order of the zip, test images in that of
    val_annotations.txt. Raises ValueError, KeyError or BadZipFile for a zip that is damaged or laid out otherwise.
    """
    with ZipFile(path) as archive:
        names = archive.namelist()
        root = next((name.removesuffix("wnids.txt") for name in names if name.endswith("/wnids.txt")), None)
        if root is None:
            raise ValueError("it holds no wnids.txt")
        wnids = _lines(archive, f"{root}wnids.txt")
        index = {wnid: place for place, wnid in enumerate(wnids)}
        train = [name for name in names if name.startswith(f"{root}train/") and name.upper().endswith(".JPEG")]
        rows = [line.split("\t") for line in _lines(archive, f"{root}val/val_annotations.txt")]
        of_train = [name.removeprefix(f"{root}train/").split("/")[0] for name in train]
        of_test = [row[1] for row in rows]
        if strangers := sorted({*of_train, *of_test} - set(wnids)):
            raise ValueError(f"class {strangers[0]} is not in wnids.txt")
        members = train + [f"{root}val/images/{row[0]}" for row in rows]
        images, failures = decode(members, lambda name: _image(archive, name), SHAPE, "reading Tiny-ImageNet")
        if failures:
            first = min(failures)
            raise ValueError(f"{members[first]}: {reason(failures[first])}")
        labels = np.array([index[wnid] for wnid in of_train + of_test], dtype=np.int64)
        return Raw(
            images[: len(train)],
            labels[: len(train)],
            images[len(train) :],
            labels[len(train) :],
            classes=_class_names(archive, root, wnids),
            source=f"{URL}, the labelled validation images as the test part",
            official=True,
        )


def _image(archive: ZipFile, name: str) -> np.ndarray:
    """The JPEG `name`, grey or colour, as uint8 [3,64,64]; a size that would need scaling is refused."""
    with Image.open(io.BytesIO(archive.read(name))) as image:
        if image.size != SHAPE[:0:-1]:
            raise ValueError(f"{image.width}x{image.height} pixels where {SHAPE[2]}x{SHAPE[1]} are expected")
        return np.asarray(image.convert("RGB")).transpose(2, 0, 1)


def _class_names(archive: ZipFile, root: str, wnids: list[str]) -> tuple[str, ...]:
    """The first synonym that words.txt gives for each wnid, with the wnid where two share it; else the wnid."""
    words = {}
    if f"{root}words.txt" in archive.namelist():
        words = dict(line.split("\t", 1) for line in _lines(archive, f"{root}words.txt") if "\t" in line)
    names = [words.get(wnid, wnid).split(",")[0].strip() for wnid in wnids]
    uses = Counter(names)
    return tuple(f"{name} ({wnid})" if uses[name] > 1 else name for name, wnid in zip(names, wnids, strict=True))


def _lines(archive: ZipFile, name: str) -> list[str]:
    return [line for line in archive.read(name).decode().splitlines() if line.strip()]
