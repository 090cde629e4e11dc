"""The file: what is read back, its checksum, and every defect told in one sentence."""

import json
import os
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from robcomp.data import store
from robcomp.errors import UserError

# of the sound file below, worked out with hashlib and struct alone
CHECKSUM = "8460b5d03b8bd725bf14f2127845ef5555d160dcefb40286045fe223130e4e82"


def write_file(path: Path, metadata: dict[str, str] | None = None, **changes: torch.Tensor | None) -> Path:
    """A sound file of 6 training and 4 test images, with changes; None leaves a tensor out."""
    tensors = {
        "train_images": torch.arange(6 * 12, dtype=torch.uint8).view(6, 3, 2, 2),
        "train_labels": torch.tensor([0, 1, 2, 0, 1, 2]),
        "test_images": torch.zeros(4, 3, 2, 2, dtype=torch.uint8),
        "test_labels": torch.tensor([2, 1, 0, 0]),
    }
    kept = {name: tensor for name, tensor in {**tensors, **changes}.items() if tensor is not None}
    if metadata is None:
        metadata = {"classes": '["a", "b", "c"]', "source": "here", "official": "false"}
    save_file(kept, path, metadata)
    return path


def refusal(path: Path) -> str:
    with pytest.raises(UserError) as caught:
        store.read(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_what_was_written_is_read_back(tmp_path, raw):
    store.write(tmp_path / "tiny.safetensors", raw)
    stored = store.read(tmp_path / "tiny.safetensors")
    for name in store.TENSORS:
        assert np.array_equal(stored.tensors[name].numpy(), getattr(raw, name))
    assert (stored.classes, stored.source, stored.official) == (raw.classes, raw.source, True)
    assert [path.name for path in tmp_path.iterdir()] == ["tiny.safetensors"]


def test_a_transposed_array_is_written_in_its_logical_order(tmp_path, raw):
    turned = replace(
        raw, train_images=np.ascontiguousarray(raw.train_images.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)
    )
    store.write(tmp_path / "tiny.safetensors", turned)
    assert np.array_equal(store.read(tmp_path / "tiny.safetensors").tensors["train_images"].numpy(), raw.train_images)


def test_a_label_out_of_range_is_not_written(tmp_path, raw):
    labels = raw.train_labels.copy()
    labels[3] = 4
    with pytest.raises(UserError, match="train_labels run from 0 to 4 where 0 to 3 is allowed"):
        store.write(tmp_path / "tiny.safetensors", replace(raw, train_labels=labels))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("split", "words"), [("train", "training"), ("test", "test")])
def test_a_class_without_images_is_not_written_but_read(tmp_path, raw, split, words):
    labels = getattr(raw, f"{split}_labels") % 3
    with pytest.raises(UserError, match=f"class class 3 has no {words} images"):
        store.write(tmp_path / "tiny.safetensors", replace(raw, **{f"{split}_labels": labels}))
    assert list(tmp_path.iterdir()) == []
    path = write_file(tmp_path / "there.safetensors", test_labels=torch.tensor([2, 2, 0, 0]))
    assert store.read(path).tensors["test_labels"].tolist() == [2, 2, 0, 0]


def test_a_stamp_is_kept_where_there_is_one(tmp_path, raw):
    for stamp in (None, "abc"):
        store.write(tmp_path / "tiny.safetensors", raw, stamp)
        assert store.read(tmp_path / "tiny.safetensors").stamp == stamp


def test_a_write_that_is_stopped_half_way_leaves_nothing(tmp_path, raw, monkeypatch):
    def stopped(_: object, path: Path, __: object) -> None:
        Path(path).write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(store, "save_file", stopped)
    with pytest.raises(KeyboardInterrupt):
        store.write(tmp_path / "tiny.safetensors", raw)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_the_file_is_memory_mapped(tmp_path):
    path = write_file(tmp_path / "mapped.safetensors")
    stored = store.read(path)
    assert str(path) in Path("/proc/self/maps").read_text()
    assert stored.tensors["train_images"][0, 0, 0, 1] == 1


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"test_labels": None}, "no tensor test_labels"),
        ({"train_images": torch.zeros(6, 3, 2, 2)}, "train_images is torch.float32"),
        ({"train_images": torch.zeros(6, 3, 2, 2, dtype=torch.bfloat16)}, "train_images is torch.bfloat16"),
        ({"train_images": torch.zeros(6, 4, dtype=torch.uint8)}, "train_images is torch.uint8 [6, 4]"),
        ({"test_labels": torch.zeros(4, dtype=torch.int32)}, "test_labels is torch.int32 [4]"),
        ({"test_labels": torch.zeros(4, 1, dtype=torch.int64)}, "test_labels is torch.int64 [4, 1]"),
        ({"train_labels": torch.zeros(5, dtype=torch.int64)}, "6 images and 5 labels"),
        ({"train_labels": torch.tensor([0, 1, 2, 3, 0, 0])}, "train_labels run from 0 to 3 where 0 to 2"),
        ({"test_labels": torch.tensor([-1, 1, 2, 0])}, "test_labels run from -1 to 2"),
        ({"test_images": torch.zeros(4, 3, 2, 5, dtype=torch.uint8)}, "test images [3, 2, 5]"),
        (
            {
                "test_images": torch.zeros(0, 3, 2, 2, dtype=torch.uint8),
                "test_labels": torch.zeros(0, dtype=torch.int64),
            },
            "test split has 0 images",
        ),
    ],
)
def test_a_wrong_tensor_is_named(tmp_path, changes, said):
    text = refusal(write_file(tmp_path / "bad.safetensors", **changes))
    assert said in text
    assert "delete it and run again" in text


@pytest.mark.parametrize("classes", [None, "not json", "{}", "[]", "[1, 2, 3]"])
def test_missing_or_odd_class_names_are_named(tmp_path, classes):
    metadata = {"source": "here"} if classes is None else {"classes": classes}
    assert "class names" in refusal(write_file(tmp_path / "bad.safetensors", metadata))


@pytest.mark.parametrize("size", [0, 4, 200, -1])
def test_a_truncated_file_is_named(tmp_path, size):
    path = write_file(tmp_path / "cut.safetensors")
    path.write_bytes(path.read_bytes()[:size])
    assert "not a whole safetensors file" in refusal(path)


def test_a_file_that_is_something_else_is_named(tmp_path):
    (tmp_path / "text.safetensors").write_text("these are not tensors, but a sentence of some length")
    assert "not a whole safetensors file" in refusal(tmp_path / "text.safetensors")


def sum_of(path: Path) -> str:
    return store.checksum(path, store.read(path))


def test_the_checksum_covers_the_tensors_and_not_the_metadata(tmp_path):
    first = sum_of(write_file(tmp_path / "a.safetensors"))
    assert first == CHECKSUM
    other_words = {"classes": '["x", "y", "z"]', "source": "elsewhere", "official": "true"}
    assert sum_of(write_file(tmp_path / "b.safetensors", other_words)) == first
    assert sum_of(write_file(tmp_path / "c.safetensors", test_labels=torch.tensor([2, 1, 0, 1]))) != first
    assert sum_of(write_file(tmp_path / "d.safetensors", train_labels=torch.tensor([0, 1, 2, 0, 2, 1]))) != first


def test_the_checksum_is_computed_once_and_again_when_the_file_changes(tmp_path, monkeypatch):
    path = write_file(tmp_path / "a.safetensors")
    first = sum_of(path)
    with monkeypatch.context() as patch:
        patch.setattr(store.hashlib, "sha256", lambda: pytest.fail("hashed a second time"))
        assert sum_of(path) == first
    write_file(path, test_labels=torch.tensor([2, 1, 0, 1]))
    os.utime(path, ns=(1, 1))  # a changed time alone, the size being the same
    assert sum_of(path) != first


def test_a_file_replaced_between_reading_and_hashing_is_not_mistaken_for_the_new_one(tmp_path):
    path = write_file(tmp_path / "a.safetensors")
    old = store.read(path)
    first = sum_of(write_file(tmp_path / "b.safetensors"))
    write_file(path, test_labels=torch.tensor([2, 1, 0, 1]))
    os.utime(path, ns=(1, 1))
    assert store.checksum(path, old) == first
    assert sum_of(path) != first


@pytest.mark.parametrize("content", ["", "[]", '{"size": 1}', "\x00"])
def test_a_spoilt_checksum_file_is_replaced(tmp_path, content):
    path = write_file(tmp_path / "a.safetensors")
    first = sum_of(path)
    beside = tmp_path / "a.checksum.json"
    beside.write_text(content)
    assert sum_of(path) == first
    assert json.loads(beside.read_text())["sha256"] == first


def test_a_folder_that_cannot_be_written_still_gives_the_checksum(tmp_path, monkeypatch):
    path = write_file(tmp_path / "a.safetensors")

    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(store, "write_json", refuse)
    assert sum_of(path) == CHECKSUM
