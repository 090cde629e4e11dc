"""load: the parts of a data set against the file they were cut from."""

import numpy as np
import pytest
import torch
from data_archives import make_raw

from robcomp.data import Split, checksum, load, store
from robcomp.errors import UserError


@pytest.fixture
def data_dir(tmp_path, raw):
    store.write(tmp_path / "tiny.safetensors", raw)
    return tmp_path


def positions(split: Split, images: np.ndarray) -> list[int]:
    """Where each image of the split stands in `images` (all different)."""
    place = {image.tobytes(): index for index, image in enumerate(images)}
    return [place[image.numpy().tobytes()] for image in split.images]


def test_without_limits_the_splits_are_the_file(data_dir, raw, tiny):
    data = load(tiny(), data_dir)
    assert np.array_equal(data.train.images.numpy(), raw.train_images)
    assert np.array_equal(data.train.labels.numpy(), raw.train_labels)
    assert np.array_equal(data.test.images.numpy(), raw.test_images)
    assert np.array_equal(data.test.labels.numpy(), raw.test_labels)
    assert (data.name, data.classes, data.source, data.official) == ("tiny", raw.classes, "made up", True)
    assert data.checksum == store.checksum(data_dir / "tiny.safetensors", store.read(data_dir / "tiny.safetensors"))


def test_nothing_held_out_is_an_empty_split_of_the_right_shape(data_dir, tiny):
    data = load(tiny(val=0), data_dir)
    assert len(data.val) == 0
    assert data.val.images.shape == (0, 3, 6, 5)
    assert data.val.images.dtype == torch.uint8


def test_held_out_images_are_cut_from_the_training_set_with_their_labels(data_dir, raw, tiny):
    data = load(tiny(val=8), data_dir)
    train, held_out = positions(data.train, raw.train_images), positions(data.val, raw.train_images)
    assert (len(data.train), len(data.val)) == (32, 8)
    assert sorted(train + held_out) == list(range(40))
    assert train == sorted(train)
    assert raw.train_labels[train].tolist() == data.train.labels.tolist()
    assert raw.train_labels[held_out].tolist() == data.val.labels.tolist()
    assert data.val.labels.bincount().tolist() == [2, 2, 2, 2]


def test_a_subset_is_taken_before_the_held_out_slice(data_dir, raw, tiny):
    data = load(tiny(subset=20, val=4, test_subset=8), data_dir)
    assert (len(data.train), len(data.val), len(data.test)) == (16, 4, 8)
    assert torch.cat([data.train.labels, data.val.labels]).bincount().tolist() == [5, 5, 5, 5]
    assert data.test.labels.bincount().tolist() == [2, 2, 2, 2]
    test = positions(data.test, raw.test_images)
    assert test == sorted(test)
    assert raw.test_labels[test].tolist() == data.test.labels.tolist()


def test_loading_twice_gives_the_same_and_the_checksum_is_of_the_whole_file(data_dir, tiny):
    first, again, other = (load(tiny(subset=size, val=4), data_dir) for size in (20, 20, 24))
    assert torch.equal(first.train.images, again.train.images)
    assert torch.equal(first.val.images, other.val.images)
    assert first.checksum == again.checksum == other.checksum


def test_the_checksum_alone_is_that_of_load(data_dir, tiny):
    assert checksum(tiny(), data_dir) == load(tiny(), data_dir).checksum
    assert checksum(tiny(name="other"), data_dir) is None


@pytest.mark.parametrize(("subset", "val"), [(None, 4), (40, 4), (31, 4), (30, 3), (2, 1)])
def test_a_tenth_is_held_out_where_val_is_null(data_dir, tiny, subset, val):
    data = load(tiny(subset=subset, val=None), data_dir)
    assert (len(data.val), len(data.train)) == (val, (subset or 40) - val)


def test_a_tenth_is_a_thousand_at_most(tmp_path, tiny):
    store.write(tmp_path / "tiny.safetensors", make_raw(train=10500, shape=(1, 1, 1)))
    assert len(load(tiny(shape=[1, 1, 1], val=None), tmp_path).val) == 1000
    assert len(load(tiny(shape=[1, 1, 1], val=None, subset=9991), tmp_path).val) == 1000
    assert len(load(tiny(shape=[1, 1, 1], val=None, subset=9990), tmp_path).val) == 999


def test_a_tenth_of_one_image_leaves_nothing(data_dir, tiny):
    with pytest.raises(UserError, match="leaves nothing to train on"):
        load(tiny(subset=1, val=None), data_dir)


def test_classes_need_not_be_stated(data_dir, raw, tiny):
    assert load(tiny(classes=None), data_dir).classes == raw.classes


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"shape": [3, 5, 6]}, "set dataset.shape=[3, 6, 5]"),
        ({"classes": 10}, "set dataset.classes=4"),
        ({"subset": 41}, "tiny has 40 training images; choose at most 40"),
        ({"val": 40}, "tiny has 40 training images; choose dataset.val below 40"),
    ],
)
def test_a_configuration_that_does_not_fit_the_file_is_refused(data_dir, tiny, changes, said):
    field, value = next(iter(changes.items()))
    with pytest.raises(UserError) as caught:
        load(tiny(**changes), data_dir)
    assert f"dataset.{field}={value}" in str(caught.value)
    assert said in str(caught.value)


def test_limits_equal_to_the_sizes_are_allowed(data_dir, tiny):
    data = load(tiny(subset=40, test_subset=20, val=39), data_dir)
    assert (len(data.train), len(data.val), len(data.test)) == (1, 39, 20)


def test_a_missing_file_is_made_from_its_source(tmp_path, tiny):
    data = load(tiny(name="digits", shape=[1, 28, 28], classes=10, val=237), tmp_path / "new" / "folder")
    assert (len(data.train), len(data.val), len(data.test)) == (1200, 237, 360)
    assert (tmp_path / "new" / "folder" / "digits.safetensors").is_file()


def test_all_parts_go_to_the_device(data_dir, tiny):
    data = load(tiny(val=4), data_dir, device="meta")
    parts = [getattr(split, part) for split in (data.train, data.val, data.test) for part in ("images", "labels")]
    assert {part.device.type for part in parts} == {"meta"}
