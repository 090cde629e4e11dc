"""The user's own folder: layouts, splits, and when it is read again."""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from data_folders import CLASSES, COLOURS, config, fill, paint

from robcomp.data import checksum, load, store
from robcomp.data.conversion import convert_folder, location
from robcomp.errors import UserError


@pytest.fixture
def trees(tmp_path) -> Path:
    return fill(tmp_path / "trees", {"ash": 10, "birch": 5, "Cedar": 2})


def colours_match(images: np.ndarray, labels: np.ndarray) -> bool:
    expected = np.array([COLOURS[name] for name in CLASSES])[labels] > 100
    return bool(((images[:, :, 4, 4] > 100) == expected).all())


def test_one_folder_a_class_is_split_by_class(trees, tmp_path):
    data = load(config(trees), tmp_path / "data")
    assert (data.name, data.classes, data.official) == ("trees", CLASSES, False)
    assert str(trees) in data.source
    assert data.train.labels.bincount().tolist() == [1, 8, 4]
    assert data.test.labels.bincount().tolist() == [1, 2, 1]
    both = np.concatenate([data.train.images.numpy(), data.test.images.numpy()])
    assert len({image.tobytes() for image in both}) == 17, "no image in two parts, none left out"
    assert colours_match(both, np.concatenate([data.train.labels.numpy(), data.test.labels.numpy()]))


@pytest.mark.parametrize(("fraction", "test"), [(0.5, [1, 5, 2]), (0.01, [1, 1, 1]), (0.99, [1, 9, 4])])
def test_every_class_keeps_an_image_on_either_side(trees, tmp_path, fraction, test):
    data = load(config(trees, test_fraction=fraction), tmp_path / "data")
    assert data.test.labels.bincount().tolist() == test
    assert (data.train.labels.bincount() + data.test.labels.bincount()).tolist() == [2, 10, 5]


@pytest.mark.parametrize(
    ("first", "name"),
    [
        ("train", "test"),
        ("train", "val"),
        ("train", "valid"),
        ("train", "validation"),
        ("Training", "Testing"),
        ("TRAIN", "Test"),
    ],
)
def test_a_split_of_its_own_is_kept(tmp_path, first, name):
    fill(tmp_path / "own" / first, {"ash": 3, "birch": 1, "Cedar": 4})
    fill(tmp_path / "own" / name, {"ash": 1, "birch": 2, "Cedar": 1})
    data = load(config(tmp_path / "own"), tmp_path / "data")
    assert data.train.labels.bincount().tolist() == [4, 3, 1]
    assert data.test.labels.bincount().tolist() == [1, 1, 2]
    assert colours_match(data.train.images.numpy(), data.train.labels.numpy())
    assert colours_match(data.test.images.numpy(), data.test.labels.numpy())


def test_test_goes_before_val(tmp_path):
    for part, count in (("train", 2), ("val", 3), ("test", 1)):
        fill(tmp_path / "own" / part, {"ash": count, "birch": count})
    assert len(load(config(tmp_path / "own"), tmp_path / "data").test) == 2


def test_images_lie_anywhere_below_and_other_files_are_ignored(tmp_path):
    top = fill(tmp_path / "deep", {"ash": 2, "birch": 2})
    paint(top / "ash" / "2019" / "may" / "a.JPeG", COLOURS["ash"])
    paint(top / "ash" / "b.tiff", COLOURS["ash"])
    for name in (".hidden.png", "notes.txt", ".cache/c.png"):
        (top / "birch" / name).parent.mkdir(exist_ok=True)
        (top / "birch" / name).write_text("no image")
    (top / ".git").mkdir()
    (top / "README.md").write_text("about trees")
    for name in ("loop", "loop2"):
        (top / "ash" / name).symlink_to(top / "ash")
    elsewhere = paint(tmp_path / "elsewhere" / "d.webp", COLOURS["birch"]).parent
    (top / "birch" / "link").symlink_to(elsewhere)
    data = load(config(top), tmp_path / "data")
    assert data.classes == ("ash", "birch")
    assert (data.train.labels.bincount() + data.test.labels.bincount()).tolist() == [4, 3]


@pytest.mark.parametrize("suffix", ["jpg", "jpeg", "png", "bmp", "webp", "tif", "tiff", "gif"])
def test_every_format_is_read(tmp_path, suffix):
    top = fill(tmp_path / "formats", {"ash": 2})
    for i in range(2):
        paint(top / "birch" / f"{i}.{suffix.upper()}", COLOURS["birch"])
    data = load(config(top), tmp_path / "data")
    assert data.train.images[data.train.labels == 1].float().mean((0, 2, 3)).tolist() == pytest.approx(
        [0, 250, 0], abs=3
    )


def test_grey_on_request(trees, tmp_path):
    data = load(config(trees, shape=[1, 6, 6]), tmp_path / "data")
    assert data.train.images.shape == (13, 1, 6, 6)


def test_a_tenth_is_held_out_unless_said_otherwise(trees, tmp_path):
    def sizes(**changes: object) -> tuple[int, int]:
        data = load(config(trees, **changes), tmp_path / "data")
        return len(data.train), len(data.val)

    assert sizes(val=None) == (11, 2)
    assert sizes(val=None, subset=10) == (9, 1)
    assert sizes(val=5) == (8, 5)


def test_a_stated_number_of_classes_is_checked(trees, tmp_path):
    assert len(load(config(trees, classes=3), tmp_path / "data").classes) == 3
    with pytest.raises(UserError, match=r"set dataset\.classes=3"):
        load(config(trees, classes=4), tmp_path / "data")


def test_the_folder_counts_whatever_the_name(trees, tmp_path):
    data = load(config(trees, name="cifar10", classes=3), tmp_path / "data")
    assert (data.name, data.classes) == ("cifar10", CLASSES)
    assert not (tmp_path / "data" / "cifar10.safetensors").exists()


def test_where_it_is_kept_depends_on_folder_shape_and_fraction(trees, tmp_path):
    places = [
        location(config(trees, **changes), tmp_path)
        for changes in ({}, {"shape": [1, 8, 8]}, {"test_fraction": 0.3}, {"name": "x"}, {"val": 1}, {"pad": 2})
    ] + [location(config(tmp_path / "other" / "trees"), tmp_path)]
    assert len(set(places)) == 5
    assert places[0] == places[4] == places[5]
    assert places[0].name.startswith("trees-")
    assert len(places[0].stem) == len("trees-") + 8


def test_it_is_read_once_and_again_when_an_image_changes(trees, tmp_path, monkeypatch):
    cfg, data_dir = config(trees), tmp_path / "data"
    reads = []
    real = store.write
    monkeypatch.setattr(store, "write", lambda *args: (reads.append(1), real(*args)))
    first = load(cfg, data_dir)
    assert load(cfg, data_dir).checksum == checksum(cfg, data_dir) == first.checksum
    assert len(reads) == 1

    os.utime(trees / "ash" / "3.png", ns=(1, 1))  # a time alone: read again, the same images
    assert checksum(cfg, data_dir) == first.checksum
    assert len(reads) == 2

    paint(trees / "birch" / "new.png", (7, 7, 7))
    assert checksum(cfg, data_dir) != first.checksum, "never that of the images as they were"
    assert len(reads) == 3
    assert len(load(cfg, data_dir).train) + len(load(cfg, data_dir).test) == 18

    (trees / "ash" / "9.png").rename(trees / "birch" / "-.png")  # sizes and times in the same order as before
    changed = load(cfg, data_dir)
    assert (changed.train.labels.bincount() + changed.test.labels.bincount()).tolist() == [2, 9, 7]
    (trees / "ash" / "notes.txt").write_text("not an image")
    load(cfg, data_dir)
    assert len(reads) == 4
    assert len(list(data_dir.glob("*.safetensors"))) == 1


def test_it_is_used_after_the_folder_is_gone(trees, tmp_path):
    cfg, data_dir = config(trees), tmp_path / "data"
    assert checksum(cfg, data_dir) is None
    first = load(cfg, data_dir)
    shutil.rmtree(trees)
    again = load(cfg, data_dir)
    assert again.checksum == checksum(cfg, data_dir) == first.checksum
    assert len(again.train) == 13


def test_a_copy_of_the_folder_is_the_same_data_in_a_file_of_its_own(trees, tmp_path):
    shutil.copytree(trees, tmp_path / "copy" / "trees")
    one, two = (convert_folder(config(path), tmp_path / "data") for path in (trees, tmp_path / "copy" / "trees"))
    assert one != two
    assert store.checksum(one, store.read(one)) == store.checksum(two, store.read(two))
