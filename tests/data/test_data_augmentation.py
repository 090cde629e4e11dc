"""Crops and flips against a reference that treats one image at a time, and their distribution."""

import pytest
import torch

from robcomp.data import augment, to_float
from robcomp.seeding import generator


def batch(count: int, channels: int = 3, height: int = 6, width: int = 5) -> torch.Tensor:
    return torch.randint(1, 256, (count, channels, height, width), generator=generator("cpu", 0), dtype=torch.uint8)


def window(image: torch.Tensor, top: int, left: int, pad: int, mirrored: bool) -> torch.Tensor:
    """The reference: write the image into a canvas of zeros, cut the window out, mirror it."""
    channels, height, width = image.shape
    canvas = torch.zeros(channels, height + 2 * pad, width + 2 * pad, dtype=image.dtype)
    canvas[:, pad : pad + height, pad : pad + width] = image
    cut = canvas[:, top : top + height, left : left + width]
    return cut.flip(-1) if mirrored else cut


def explanations(image: torch.Tensor, result: torch.Tensor, pad: int) -> list[tuple[int, int, bool]]:
    """All (top, left, mirrored) that turn `image` into `result`."""
    shifts = range(2 * pad + 1)
    choices = [(top, left, mirrored) for top in shifts for left in shifts for mirrored in (False, True)]
    return [choice for choice in choices if torch.equal(window(image, choice[0], choice[1], pad, choice[2]), result)]


@pytest.mark.parametrize(("pad", "flip"), [(2, True), (2, False), (0, True), (1, True)])
def test_every_image_is_one_window_of_its_own_padded_self(pad, flip):
    images = batch(120)
    found = [
        explanations(a, b, pad) for a, b in zip(images, augment(images, generator("cpu", 1), pad, flip), strict=True)
    ]
    assert all(len(choices) == 1 for choices in found)
    assert {choices[0][2] for choices in found} == ({False, True} if flip else {False})


def test_windows_are_uniform_and_half_are_mirrored():
    count, pad = 9000, 1
    image = batch(1)
    results = augment(image.expand(count, -1, -1, -1), generator("cpu", 2), pad, True)
    tally = {}
    for top in range(3):
        for left in range(3):
            for mirrored in (False, True):
                same = (results == window(image[0], top, left, pad, mirrored)).flatten(1).all(1)
                tally[top, left, mirrored] = int(same.sum())
    assert sum(tally.values()) == count
    expected = count / 18  # standard deviation 21.7; the largest of 18 deviations is within 4 of them
    assert max(abs(seen - expected) for seen in tally.values()) < 4 * 21.7


def test_the_generator_decides_everything():
    images = batch(32)
    first = augment(images, generator("cpu", 3), 2, True)
    assert torch.equal(first, augment(images, generator("cpu", 3), 2, True))
    assert not torch.equal(first, augment(images, generator("cpu", 4), 2, True))


def test_images_of_a_batch_move_independently():
    image = batch(1)
    results = augment(image.expand(64, -1, -1, -1), generator("cpu", 5), 2, True)
    assert len({result.numpy().tobytes() for result in results}) > 20


@pytest.mark.parametrize("count", [0, 1, 7])
@pytest.mark.parametrize(("pad", "flip"), [(0, False), (2, True), (0, True), (3, False)])
def test_shape_and_type_are_kept_and_the_input_is_left_alone(count, pad, flip):
    images = batch(count, channels=1)
    before = images.clone()
    results = augment(images, generator("cpu", 6), pad, flip)
    assert results.shape == images.shape
    assert results.dtype == torch.uint8
    assert results.is_contiguous()
    assert torch.equal(images, before)


def test_nothing_to_do_returns_the_images():
    images = batch(4)
    assert torch.equal(augment(images, generator("cpu", 7), 0, False), images)


def test_memory_layout_does_not_change_the_result():
    images = batch(16)
    last = images.to(memory_format=torch.channels_last)
    assert torch.equal(augment(images, generator("cpu", 8), 2, True), augment(last, generator("cpu", 8), 2, True))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_on_a_gpu_every_image_is_one_window_too():
    images = batch(60)
    results = augment(images.cuda(), generator("cuda", 1), 2, True)
    assert results.is_cuda
    assert all(len(explanations(a, b, 2)) == 1 for a, b in zip(images, results.cpu(), strict=True))


def test_to_float_divides_by_255():
    values = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16)
    floats = to_float(values)
    assert floats.dtype == torch.float32
    assert (floats.min(), floats.max()) == (0.0, 1.0)
    assert torch.equal((floats * 255).round().to(torch.uint8), values)
    assert floats.view(-1)[51] == pytest.approx(0.2)
