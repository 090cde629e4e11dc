"""From archives in their official layout to the file that training reads, and what is said when that fails."""

import errno
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from robcomp.data import convert, sources, store
from robcomp.data.sources import SOURCES
from robcomp.errors import UserError

DIGITS = (
    "a4dd6ad129c5d79a4b3134a96eaa29a74f42ac2ef9451f71bcf0eaa3cd2083fd"  # the converted data, the same on every machine
)


def refusal(name: str, data_dir: Path) -> str:
    with pytest.raises(UserError) as caught:
        convert(name, data_dir)
    assert "\n" not in str(caught.value)
    assert not (data_dir / f"{name}.safetensors").exists()
    assert list(data_dir.glob("*.part")) == []
    return str(caught.value)


def assert_holds(path: Path, raw: sources.Raw) -> store.Stored:
    stored = store.read(path)
    for name in store.TENSORS:
        assert np.array_equal(stored.tensors[name].numpy(), getattr(raw, name)), name
    return stored


def test_mnist_is_parsed_from_its_archives_without_a_network(tmp_path, archives, mnist_raw, no_network):
    archives.mnist(tmp_path, mnist_raw)
    stored = assert_holds(convert("mnist", tmp_path), mnist_raw)
    assert stored.classes == tuple("0123456789")
    assert stored.official
    assert no_network == []


def test_cifar10_is_parsed_from_its_archive_without_a_network(tmp_path, archives, cifar10_raw, no_network):
    archives.cifar10(tmp_path, cifar10_raw)
    stored = assert_holds(convert("cifar10", tmp_path), cifar10_raw)
    assert stored.classes == cifar10_raw.classes
    assert stored.official
    assert no_network == []


def test_cifar100_is_parsed_with_its_fine_labels(tmp_path, archives, cifar100_raw, no_network):
    archives.cifar100(tmp_path, cifar100_raw)
    stored = assert_holds(convert("cifar100", tmp_path), cifar100_raw)
    assert stored.classes == cifar100_raw.classes
    assert (stored.official, "CIFAR100" in stored.source) == (True, True)
    assert no_network == []


def test_svhn_is_parsed_from_its_mat_files_and_ten_is_zero(tmp_path, archives, cifar10_raw, no_network):
    archives.svhn(tmp_path, cifar10_raw)
    assert 0 in cifar10_raw.train_labels
    stored = assert_holds(convert("svhn", tmp_path), cifar10_raw)
    assert stored.classes == tuple("0123456789")
    assert stored.official
    assert no_network == []


def test_svhn_missing_says_what_to_fetch_and_where_to_put_it(tmp_path, archives, cifar10_raw):
    archives.svhn(tmp_path, cifar10_raw)[1].unlink()
    text = refusal("svhn", tmp_path)
    assert f"put http://ufldl.stanford.edu/housenumbers/test_32x32.mat into {tmp_path / 'raw'}," in text
    assert "train_32x32" not in text


def test_a_mat_file_of_another_layout_is_named_and_no_folder_is_deleted(tmp_path, archives, cifar10_raw, monkeypatch):
    paths = archives.svhn(tmp_path, cifar10_raw)
    monkeypatch.setattr("scipy.io.loadmat", lambda path: {"X": np.zeros((32, 32, 3, 5), np.uint8)})
    text = refusal("svhn", tmp_path)
    assert text.startswith(str(paths[0]))
    assert "'y'" in text
    assert "delete" not in text


def test_svhn_labels_out_of_range_are_named(tmp_path, archives, cifar10_raw):
    archives.svhn(tmp_path, replace(cifar10_raw, train_labels=np.full(55, 11)))
    assert "train_labels run from 11 to 11 where 0 to 9 is allowed" in refusal("svhn", tmp_path)


def test_a_class_without_images_is_named(tmp_path, archives, cifar10_raw, cifar100_raw):
    labels = np.where(cifar10_raw.train_labels == 7, 3, cifar10_raw.train_labels)
    archives.svhn(tmp_path / "s", replace(cifar10_raw, train_labels=labels))
    assert "class 7 has no training images" in refusal("svhn", tmp_path / "s")
    archives.cifar100(tmp_path / "c", replace(cifar100_raw, test_labels=cifar100_raw.test_labels % 99))
    assert "class class 99 has no test images" in refusal("cifar100", tmp_path / "c")


def test_mnist_missing_says_what_to_fetch_and_where_to_put_it(tmp_path, no_network):
    text = refusal("mnist", tmp_path)
    for file in ("train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1"):
        assert f"https://ossci-datasets.s3.amazonaws.com/mnist/{file}-ubyte.gz" in text
    assert f"into {tmp_path / 'raw' / 'MNIST' / 'raw'}" in text
    assert "ROBCOMP_DATA_DIR" in text
    assert "no network in this test" in text


def test_only_the_archives_that_are_missing_are_named(tmp_path, archives, mnist_raw):
    archives.mnist(tmp_path, mnist_raw)[2].unlink()
    text = refusal("mnist", tmp_path)
    assert "t10k-images" in text
    assert "train-" not in text


def test_cifar10_missing_says_what_to_fetch_and_where_to_put_it(tmp_path, no_network):
    text = refusal("cifar10", tmp_path)
    assert "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz" in text
    assert f"into {tmp_path / 'raw'}," in text
    assert "ROBCOMP_DATA_DIR" in text


@pytest.mark.parametrize(
    "damage", [lambda data: data[: len(data) // 2], lambda data: data[:-1] + b"!", lambda data: b""]
)
def test_a_damaged_archive_is_named(tmp_path, archives, mnist_raw, cifar10_raw, cifar100_raw, damage):
    victims = {
        "mnist": archives.mnist(tmp_path / "m", mnist_raw)[1],
        "cifar10": archives.cifar10(tmp_path / "c", cifar10_raw),
        "cifar100": archives.cifar100(tmp_path / "cifar100", cifar100_raw),
        "svhn": archives.svhn(tmp_path / "s", cifar10_raw)[1],
        "tiny_imagenet": archives.tiny_imagenet(tmp_path / "t"),
    }
    for name, path in victims.items():
        path.write_bytes(damage(path.read_bytes()))
        text = refusal(name, tmp_path / path.relative_to(tmp_path).parts[0])
        assert text.startswith(f"{path} is damaged")
        assert text.count("http") == 1


def test_an_unpacked_file_cut_short_is_named(tmp_path, archives, mnist_raw):
    archives.mnist(tmp_path, mnist_raw)
    folder = tmp_path / "raw" / "MNIST" / "raw"
    convert("mnist", tmp_path).unlink()
    cut = folder / "train-images-idx3-ubyte"
    cut.write_bytes(cut.read_bytes()[:-50])
    text = refusal("mnist", tmp_path)
    assert f"under {folder} are damaged" in text
    assert "delete that folder" in text


def test_cifar10_unpacks_again_over_a_damaged_batch(tmp_path, archives, cifar10_raw):
    archives.cifar10(tmp_path, cifar10_raw)
    convert("cifar10", tmp_path).unlink()
    (tmp_path / "raw" / "cifar-10-batches-py" / "data_batch_3").write_bytes(b"gone")
    assert_holds(convert("cifar10", tmp_path), cifar10_raw)


def test_labels_out_of_range_in_an_archive_are_named(tmp_path, archives, mnist_raw, cifar10_raw):
    labels = np.full(20, 10)
    archives.mnist(tmp_path / "m", replace(mnist_raw, test_labels=labels))
    archives.cifar10(tmp_path / "c", replace(cifar10_raw, test_labels=labels))
    for name in ("mnist", "cifar10"):
        text = refusal(name, tmp_path / name[0])
        assert "test_labels run from 10 to 10 where 0 to 9 is allowed" in text
        assert str(tmp_path / name[0] / "raw") in text


def test_as_many_labels_as_images_are_required(tmp_path, archives, mnist_raw):
    archives.mnist(tmp_path, replace(mnist_raw, train_labels=mnist_raw.train_labels[:-1]))
    assert "30 images and 29 labels" in refusal("mnist", tmp_path)


def test_a_full_disk_is_not_called_a_damaged_archive(tmp_path, archives, mnist_raw, monkeypatch):
    archives.mnist(tmp_path, mnist_raw)

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("torchvision.datasets.mnist.download_and_extract_archive", full)
    text = refusal("mnist", tmp_path)
    assert "No space left on device" in text
    assert "damaged" not in text


def test_an_unwritable_data_folder_is_named(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(UserError, match=r"cannot be written to .*file.*ROBCOMP_DATA_DIR"):
        convert("digits", tmp_path / "file" / "data")


def test_an_unknown_data_set_is_refused_with_the_nearest_name(tmp_path):
    text = refusal("cifar", tmp_path)
    assert "unknown dataset 'cifar'" in text
    assert "cifar10" in text


def test_digits_need_no_download_and_are_split_by_class(tmp_path, no_network):
    stored = store.read(convert("digits", tmp_path))
    tensors = stored.tensors
    assert tensors["train_images"].shape == (1437, 1, 28, 28)
    assert tensors["test_images"].shape == (360, 1, 28, 28)
    share = tensors["test_labels"].bincount() / (tensors["test_labels"].bincount() + tensors["train_labels"].bincount())
    assert (share - 0.2).abs().max() < 0.01
    assert tensors["train_images"].max() == 255
    assert not stored.official
    assert no_network == []
    assert store.checksum(tmp_path / "digits.safetensors", stored) == DIGITS


def test_enlarged_digits_are_the_bilinear_ones_in_exact_arithmetic(tmp_path):
    """Pixel i of 28 lies at (4i - 5) / 14 of 8 cells, so weights are whole numbers over 14 and halves round up."""
    from sklearn.datasets import load_digits

    weights = np.zeros((28, 8), dtype=np.int64)
    for pixel in range(28):
        cell, part = divmod(max(4 * pixel - 5, 0), 14)
        weights[pixel, cell] += 14 - part
        weights[pixel, min(cell + 1, 7)] += part
    grey = weights @ load_digits().images.astype(np.int64) @ weights.T  # 0 to 16 * 14 * 14
    expected = ((2 * 255 * grey + 3136) // (2 * 3136)).astype(np.uint8)

    tensors = store.read(convert("digits", tmp_path)).tensors
    stored = np.concatenate([tensors["train_images"].numpy(), tensors["test_images"].numpy()])
    labels = np.concatenate([tensors["train_labels"].numpy(), tensors["test_labels"].numpy()])
    found = sorted((image.tobytes(), label) for image, label in zip(stored, labels, strict=True))
    assert found == sorted(
        (image.tobytes(), label) for image, label in zip(expected, load_digits().target, strict=True)
    )


def test_a_file_that_is_there_is_used_even_without_a_source(tmp_path, raw):
    store.write(tmp_path / "mine.safetensors", raw)
    assert convert("mine", tmp_path) == tmp_path / "mine.safetensors"


def test_two_at_once_convert_once(tmp_path, raw, monkeypatch):
    calls = []

    def slow(raw_dir: Path) -> sources.Raw:
        calls.append(raw_dir)
        time.sleep(0.3)
        return raw

    monkeypatch.setitem(SOURCES._entries, "slow", slow)
    with ThreadPoolExecutor(4) as pool:
        paths = list(pool.map(lambda _: convert("slow", tmp_path), range(4)))
    assert calls == [tmp_path / "raw"]
    assert set(paths) == {tmp_path / "slow.safetensors"}


def test_a_conversion_that_fails_leaves_nothing_and_does_not_keep_the_lock(tmp_path, raw, monkeypatch):
    answers = iter([UserError("first time unlucky"), raw])

    def source(_: Path) -> sources.Raw:
        answer = next(answers)
        if isinstance(answer, UserError):
            raise answer
        return answer

    monkeypatch.setitem(SOURCES._entries, "twice", source)
    assert refusal("twice", tmp_path) == "first time unlucky"
    assert_holds(convert("twice", tmp_path), raw)
