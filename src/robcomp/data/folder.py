"""The user's own images: DIR/CLASS/..., or DIR/train/CLASS/... and DIR/test/CLASS/... with a split of their own."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from robcomp.data.decoding import decode, picture, reason
from robcomp.data.sources import Raw
from robcomp.data.splits import chosen_for_test
from robcomp.errors import UserError
from robcomp.storage import digest

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".gif")
TRAIN_NAMES = ("train", "training")  # in any case of letters
TEST_NAMES = ("test", "testing", "val", "valid", "validation")  # the first that is there counts
LAYOUT = "give the folder that holds one folder of images for each class (or train/ and test/ with those)"


@dataclass(frozen=True)
class Listing:
    """The images under `root` with their class indices; `test` is empty where the folder has no test split of its own.

    `stamp` changes with the name, the size and the time of modification of any image.
    """

    root: Path
    classes: tuple[str, ...]
    train: list[tuple[Path, int]]
    test: list[tuple[Path, int]]
    stamp: str


def scan(root: Path) -> Listing:
    """Find the images without reading them. Raises UserError, naming the folder, for any other layout."""
    if not root.is_dir():
        raise UserError(f"dataset.path={root} is {'a file' if root.exists() else 'not there'}; {LAYOUT}.")
    first, own = _part(root, TRAIN_NAMES), _part(root, TEST_NAMES)
    if first and own:
        train, test = _by_class(first), _by_class(own)
        for there, here, lacking in ((own, train, test), (first, test, train)):
            if strange := sorted(set(here) - set(lacking)):
                raise UserError(
                    f"{there} has no folder {strange[0]}, as the other split has; "
                    "give both the same classes, with images of each."
                )
    else:
        train, test = _by_class(root), {}
        if small := [name for name, paths in train.items() if len(paths) < 2]:
            raise UserError(
                f"{root / small[0]} has a single image, but one to train on and one to test on are needed; "
                "add images, or take the folder away."
            )
    first_part, second_part = (
        [(path, index) for index, paths in enumerate(part.values()) for path in paths] for part in (train, test)
    )
    stamp = _stamp(root, [path for path, _ in first_part + second_part])
    return Listing(root, tuple(train), first_part, second_part, stamp)


def read(listing: Listing, shape: Sequence[int], test_fraction: float) -> Raw:
    """Decode every image to `shape` [C,H,W] (see `decoding.picture`); `test_fraction` makes a test part if need be.

    Raises UserError that names the first image that cannot be read, after having tried them all.
    """
    images = listing.train + listing.test
    pixels, failures = decode(images, lambda item: _pixels(item[0], shape), shape, f"reading {listing.root.name}")
    if failures:
        raise _broken(listing.root, {images[place][0]: failures[place] for place in sorted(failures)})
    labels = np.array([index for _, index in images], dtype=np.int64)
    test = np.arange(len(labels)) >= len(listing.train) if listing.test else chosen_for_test(labels, test_fraction)
    return Raw(
        pixels[~test],
        labels[~test],
        pixels[test],
        labels[test],
        classes=listing.classes,
        source=f"the images under {listing.root}",
        official=False,
    )


def _part(root: Path, names: Sequence[str]) -> Path | None:
    """The folder in `root` with the first of `names` that is there, in any case of letters."""
    folders = {path.name.lower(): path for path in sorted(root.iterdir()) if path.is_dir()}
    return next((folders[name] for name in names if name in folders), None)


def _by_class(folder: Path) -> dict[str, list[Path]]:
    """The images below each folder in `folder`, both sorted by name; two classes at least, none of them empty."""
    try:
        names = sorted(entry.name for entry in os.scandir(folder) if entry.is_dir() and not entry.name.startswith("."))
    except OSError as error:
        raise UserError(f"{folder} cannot be read: {error.strerror}; check its permissions.") from error
    if len(names) < 2:
        found = f"one class folder only, {names[0]}" if names else "no class folders"
        raise UserError(f"{folder} holds {found}; two or more are needed: {LAYOUT}.")
    classes = {name: _images(folder / name) for name in names}
    for name, paths in classes.items():
        if not paths:
            raise UserError(
                f"{folder / name} holds no images; put some there ({' '.join(SUFFIXES)}), or take the folder away."
            )
    return classes


def _images(top: Path) -> list[Path]:
    """All images below `top` that are not hidden; linked folders are followed, each once."""
    found, seen = [], set()
    for folder, folders, files in os.walk(top, followlinks=True):
        real = os.path.realpath(folder)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        found += [Path(folder, name) for name in files if _is_image(name)]
    return sorted(found)


def _is_image(name: str) -> bool:
    return name.lower().endswith(SUFFIXES) and not name.startswith(".")


def _stamp(root: Path, paths: Sequence[Path]) -> str:
    """A digest of the listing: relative path, size and time of modification of each image."""
    listing = []
    for path in sorted(paths):
        status = path.stat(follow_symlinks=path.exists())  # a dangling link is told later, as an image not readable
        listing.append([path.relative_to(root).as_posix(), status.st_size, status.st_mtime_ns])
    return digest(listing, 32)


def _pixels(path: Path, shape: Sequence[int]) -> np.ndarray:
    with path.open("rb") as file:
        return picture(file, shape)


def _broken(root: Path, failures: dict[Path, Exception]) -> UserError:
    path, error = next(iter(failures.items()))
    if len(failures) == 1:
        return UserError(f"{path} cannot be read as an image ({reason(error)}); replace it or take it away.")
    return UserError(
        f"{len(failures)} images under {root} cannot be read, the first of them {path} ({reason(error)}); "
        "replace them or take them away."
    )
