"""Folders of images, one folder a class."""

from pathlib import Path

from PIL import Image

from robcomp.data import DatasetConfig

COLOURS = {"ash": (250, 0, 0), "birch": (0, 250, 0), "Cedar": (0, 0, 250)}
CLASSES = ("Cedar", "ash", "birch")  # sorted as code points


def paint(path: Path, colour: tuple[int, int, int]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (10, 8), colour).save(path)
    return path


def fill(folder: Path, counts: dict[str, int]) -> Path:
    """`counts` PNG images of each class, of its colour and each a little different."""
    for name, count in counts.items():
        for i in range(count):
            red, green, blue = COLOURS[name]
            paint(folder / name / f"{i}.png", (red or i, green or i, blue or i))
    return folder


def config(path: Path, **changes: object) -> DatasetConfig:
    return DatasetConfig(**{"name": "folder", "shape": [3, 8, 8], "val": 0, "path": str(path), **changes})
