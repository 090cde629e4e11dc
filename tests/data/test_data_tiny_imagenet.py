"""Tiny-ImageNet out of a zip of its layout: classes, order, grey pictures, and what is said of a damaged one."""

import os
from pathlib import Path

import numpy as np
import pytest
from data_archives import WNIDS, jpeg, tiny_imagenet_members, write_zip

from robcomp.data import convert, store
from robcomp.data.sources.tiny_imagenet import parse
from robcomp.errors import UserError

LAST = "train/n02/images/n02_3.JPEG"


def parsed(folder: Path, **changes: bytes | str | None):
    return parse(write_zip(folder / "any.zip", "some-root", {**tiny_imagenet_members(), **changes}))


def test_it_is_converted_from_its_archive_without_a_network(tmp_path, archives, no_network):
    archives.tiny_imagenet(tmp_path)
    stored = store.read(convert("tiny_imagenet", tmp_path))
    assert stored.tensors["train_images"].shape == (12, 3, 64, 64)
    assert stored.tensors["test_images"].shape == (6, 3, 64, 64)
    assert stored.official
    assert "validation" in stored.source
    assert no_network == []
    assert [path.name for path in (tmp_path / "raw").iterdir()] == ["tiny-imagenet-200.zip"], "nothing is unpacked"


def test_every_image_has_its_class_in_the_order_of_wnids(tmp_path):
    raw = parsed(tmp_path)
    assert raw.train_labels.tolist() == [0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2]
    assert raw.test_labels.tolist() == [2, 1, 0, 2, 1, 0]
    for images, labels, blue in ((raw.train_images, raw.train_labels, 0), (raw.test_images, raw.test_labels, 255)):
        greens = np.arange(len(labels)) % (4 if blue == 0 else 6) * 40
        expected = np.stack([80 * labels, greens, np.full(len(labels), blue)], axis=1)
        assert np.abs(images.astype(int) - expected[:, :, None, None]).max() <= 3


def test_classes_are_named_by_their_first_word_and_made_unique(tmp_path):
    assert WNIDS == ["n03", "n01", "n02"]
    assert parsed(tmp_path).classes == ("goldfish", "crane (n01)", "crane (n02)")
    assert parsed(tmp_path, **{"words.txt": "n01\tcrane, bird\n"}).classes == ("n03", "crane", "n02")
    assert parsed(tmp_path, **{"words.txt": None}).classes == ("n03", "n01", "n02")


def test_a_grey_picture_becomes_colour(tmp_path):
    image = parsed(tmp_path, **{LAST: jpeg(100)}).train_images[-1]
    assert image.shape == (3, 64, 64)
    assert np.abs(image.astype(int) - 100).max() <= 2


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"wnids.txt": None}, "it holds no wnids.txt"),
        ({"wnids.txt": "n03\nn01\n"}, "class n02 is not in wnids.txt"),
        ({"val/val_annotations.txt": None}, "val/val_annotations.txt"),
        ({"val/images/val_3.JPEG": None}, "val/images/val_3.JPEG"),
        ({LAST: jpeg((1, 2, 3))[:-20]}, "n02_3.JPEG: image file is truncated"),
        ({LAST: b"no picture"}, "n02_3.JPEG: it is in no image format"),
        ({LAST: jpeg((1, 2, 3), (64, 32))}, "n02_3.JPEG: 64x32 pixels where 64x64 are expected"),
        ({LAST: jpeg((1, 2, 3), (1, 1))}, "n02_3.JPEG: 1x1 pixels"),
    ],
)
def test_what_is_wrong_in_the_archive_is_named(tmp_path, archives, changes, said):
    path = archives.tiny_imagenet(tmp_path, **changes)
    with pytest.raises(UserError) as caught:
        convert("tiny_imagenet", tmp_path)
    text = str(caught.value)
    assert text.startswith(str(path))
    assert said in text
    assert "\n" not in text
    assert not (tmp_path / "tiny_imagenet.safetensors").exists()


def test_a_class_without_images_is_named(tmp_path, archives):
    gone = {f"train/n01/images/n01_{i}.JPEG": None for i in range(4)}
    archives.tiny_imagenet(tmp_path, **gone)
    with pytest.raises(UserError, match=r"class crane \(n01\) has no training images"):
        convert("tiny_imagenet", tmp_path)


def test_missing_it_says_what_to_fetch_and_where_to_put_it(tmp_path, no_network):
    with pytest.raises(UserError) as caught:
        convert("tiny_imagenet", tmp_path)
    assert f"put http://cs231n.stanford.edu/tiny-imagenet-200.zip into {tmp_path / 'raw'}," in str(caught.value)
    assert len(no_network) > 0


def test_no_bar_is_drawn_where_there_is_no_terminal(tmp_path, capsys):
    parsed(tmp_path)
    assert capsys.readouterr() == ("", "")


def test_the_real_archive_of_20_classes_holds_the_images_of_the_converted_file():
    folder = Path(os.environ.get("ROBCOMP_DATA_DIR", ""))
    path, converted = folder / "raw" / "tiny-imagenet-20.zip", folder / "tiny_imagenet_20.safetensors"
    if not path.is_file() or not converted.is_file():
        pytest.skip("ROBCOMP_DATA_DIR holds no raw/tiny-imagenet-20.zip and what was converted from it")
    raw, tensors = parse(path), store.read(converted).tensors
    assert raw.classes[:2] == ("goldfish", "centipede")
    for split, count in (("train", 10000), ("test", 1000)):
        ours = zip(getattr(raw, f"{split}_images"), getattr(raw, f"{split}_labels").tolist(), strict=True)
        theirs = zip(tensors[f"{split}_images"].numpy(), tensors[f"{split}_labels"].tolist(), strict=True)
        found = sorted((image.tobytes(), label) for image, label in ours)
        assert len(found) == count
        assert found == sorted((image.tobytes(), label) for image, label in theirs)
