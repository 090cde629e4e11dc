"""What can be wrong with a folder of images, each told in one sentence."""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from data_folders import config, fill
from PIL import Image

from robcomp.data import load
from robcomp.errors import UserError


def refusal(path: Path, **changes: object) -> str:
    data_dir = path.parent / "data"
    with pytest.raises(UserError) as caught:
        load(config(path, **changes), data_dir)
    text = str(caught.value)
    assert "\n" not in text
    assert text.endswith(".")
    assert not list(data_dir.glob("*.safetensors"))
    return text


# What is wrong with a folder, each after `fill(top, ash: 3, birch: 3)`: what to do to it, and what is said.
def only_one(top: Path) -> None:
    shutil.rmtree(top / "birch")


def all_gone(top: Path) -> None:
    shutil.rmtree(top)


def a_file(top: Path) -> None:
    shutil.rmtree(top)
    top.write_text("no folder")


def no_classes(top: Path) -> None:
    only_one(top)
    (top / "ash").rename(top / ".ash")


def emptied(top: Path) -> None:
    for path in (top / "birch").iterdir():
        path.rename(path.with_suffix(".txt"))


def single(top: Path) -> None:
    for i in range(2):
        (top / "birch" / f"{i}.png").unlink()


def no_image(top: Path) -> None:
    (top / "ash" / "1.png").write_text("these are words")


def cut_short(top: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    Image.fromarray(noise).save(top / "birch" / "2.jpg")
    (top / "birch" / "2.jpg").write_bytes((top / "birch" / "2.jpg").read_bytes()[:-500])


def dangling(top: Path) -> None:
    (top / "ash" / "x.png").symlink_to(top / "nowhere.png")


def several(top: Path) -> None:
    no_image(top)
    cut_short(top)
    dangling(top)


def unlike_train(top: Path) -> None:
    fill(top / "train", {"ash": 2, "birch": 2})
    fill(top / "test", {"ash": 2, "birch": 2, "Cedar": 2})


def unlike_test(top: Path) -> None:
    fill(top / "train", {"ash": 2, "birch": 2, "Cedar": 2})
    fill(top / "val", {"ash": 2, "birch": 2})


def empty_test(top: Path) -> None:
    fill(top / "train", {"ash": 2, "birch": 2})
    fill(top / "test", {"ash": 2})
    (top / "test" / "birch").mkdir()


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (all_gone, ["dataset.path=TOP is not there", "one folder of images for each class"]),
        (a_file, ["dataset.path=TOP is a file", "one folder of images for each class"]),
        (no_classes, ["TOP holds no class folders", "one folder of images for each class"]),
        (only_one, ["TOP holds one class folder only, ash", "two or more"]),
        (emptied, ["TOP/birch holds no images", ".jpeg", "take the folder away"]),
        (single, ["TOP/birch has a single image", "add images"]),
        (no_image, ["TOP/ash/1.png cannot be read as an image", "no image format", "replace it"]),
        (cut_short, ["TOP/birch/2.jpg cannot be read as an image", "truncated", "replace it"]),
        (dangling, ["TOP/ash/x.png cannot be read as an image", "No such file", "replace it"]),
        (several, ["3 images under TOP cannot be read", "first of them TOP/ash/1.png", "replace them"]),
        (unlike_train, ["TOP/train has no folder Cedar", "the same classes"]),
        (unlike_test, ["TOP/val has no folder Cedar", "the same classes"]),
        (empty_test, ["TOP/test/birch holds no images"]),
    ],
)
def test_what_is_wrong_is_named_with_its_cure(tmp_path, spoil, said):
    top = fill(tmp_path / "trees", {"ash": 3, "birch": 3})
    spoil(top)
    text = refusal(top)
    for words in said:
        assert words.replace("TOP", str(top)) in text


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_folder_that_may_not_be_read_is_named(tmp_path):
    trees = fill(tmp_path / "trees", {"ash": 3, "birch": 3})
    trees.chmod(0)
    try:
        assert "Permission denied" in refusal(trees)
    finally:
        trees.chmod(0o755)
