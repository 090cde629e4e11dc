"""Crops, flips and rotations against references that treat one image at a time, and their distribution."""

import math

import numpy as np
import pytest
import torch

from robcomp.data import augment, to_float
from robcomp.data.augmentation import rotated
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
    assert augment(images, generator("cpu", 7), 0, False) is images
    assert augment(images, generator("cpu", 7), 0, False, "reflect", 0.0) is images


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


@pytest.mark.parametrize(("pad", "flip"), [(2, True), (2, False), (0, True)])
def test_the_draws_are_flips_then_offsets(pad, flip):
    """As ever: stages trained before reflection and rotation came keep their batches."""
    images, random = batch(40), generator("cpu", 9)
    mirrored = (torch.rand((40, 1), generator=random) < 0.5)[:, 0] if flip else torch.zeros(40, dtype=torch.bool)
    tops, lefts = torch.randint(2 * pad + 1, (2, 40, 1), generator=random)[..., 0] if pad else torch.zeros(2, 40).int()
    expected = [
        window(image, int(top), int(left), pad, bool(turn))
        for image, top, left, turn in zip(images, tops, lefts, mirrored, strict=True)
    ]
    assert torch.equal(augment(images, generator("cpu", 9), pad, flip), torch.stack(expected))


@pytest.mark.parametrize("pad", [1, 2, 4])
def test_reflected_crops_are_windows_of_numpys_reflected_image(pad):
    images = batch(60, height=6, width=5)
    borders = [(0, 0), (pad, pad), (pad, pad)]
    seen = set()
    for image, result in zip(images, augment(images, generator("cpu", 1), pad, True, "reflect"), strict=True):
        wide = torch.from_numpy(np.pad(image.numpy(), borders, mode="reflect"))
        cuts = {
            (top, left): wide[:, top : top + 6, left : left + 5]
            for top in range(2 * pad + 1)
            for left in range(2 * pad + 1)
        }
        places = [
            (place, turn)
            for place, cut in cuts.items()
            for turn in (False, True)
            if torch.equal(result, cut.flip(-1) if turn else cut)
        ]
        assert places
        seen.add(places[0])
    assert len(seen) > 10


def test_reflection_draws_what_black_borders_draw():
    """Where the window stays inside the image the two modes agree: both take the same windows."""
    images = batch(50, height=12, width=12)
    black, reflected = (augment(images, generator("cpu", 2), 3, True, mode) for mode in ("zero", "reflect"))
    inside = black > 0  # no pixel of the batch is 0
    assert inside.float().mean() > 0.6
    assert torch.equal(black[inside], reflected[inside])
    assert (reflected > 0).all()


@pytest.mark.parametrize("mode", ["zero", "reflect"])
@pytest.mark.parametrize(("height", "width"), [(6, 6), (7, 7)])
def test_a_quarter_turn_is_rot90(mode, height, width):
    images = batch(4, height=height, width=width)
    for turns in (0, 1, 2, 3, -1):
        angles = torch.full((4,), turns * math.pi / 2)
        assert torch.equal(rotated(images, angles, mode), torch.rot90(images, turns, (2, 3))), turns


@pytest.mark.parametrize("mode", ["zero", "reflect"])
def test_half_a_turn_of_an_oblong_image_and_no_turn_at_all(mode):
    images = batch(3, height=6, width=5)
    angles = torch.tensor([0.0, math.pi, 0.0])
    expected = torch.stack([images[0], images[1].flip((1, 2)), images[2]])
    assert torch.equal(rotated(images, angles, mode), expected)


def bilinear(image: np.ndarray, angle: float, reflect: bool) -> np.ndarray:
    """The reference, pixel by pixel in float64: where it comes from, and the mean of the four pixels around there."""
    channels, height, width = image.shape

    def pixel(row: int, column: int) -> np.ndarray:
        inside = 0 <= row < height and 0 <= column < width
        if not inside and not reflect:
            return np.zeros(channels)
        wide = np.pad(image, [(0, 0), (height, height), (width, width)], mode="reflect") if not inside else None
        return image[:, row, column] if inside else wide[:, row + height, column + width]

    result = np.zeros(image.shape)
    for row in range(height):
        for column in range(width):
            right, down = column - (width - 1) / 2, row - (height - 1) / 2
            x = math.cos(angle) * right - math.sin(angle) * down + (width - 1) / 2
            y = math.sin(angle) * right + math.cos(angle) * down + (height - 1) / 2
            left, top = math.floor(x), math.floor(y)
            for r, share_down in ((top, 1 - (y - top)), (top + 1, y - top)):
                for c, share_right in ((left, 1 - (x - left)), (left + 1, x - left)):
                    result[:, row, column] += share_down * share_right * pixel(r, c)
    return result


@pytest.mark.parametrize("mode", ["zero", "reflect"])
def test_any_angle_is_bilinear_about_the_centre(mode):
    images = batch(5, height=7, width=6)
    angles = torch.tensor([0.1, -0.5, 0.8, 2.0, -3.0])
    results = rotated(images, angles, mode)
    for image, angle, result in zip(images, angles.tolist(), results, strict=True):
        expected = bilinear(image.numpy(), angle, mode == "reflect")
        assert np.abs(result.numpy() - expected).max() <= 0.51


def test_the_corners_of_a_turned_image_are_black_or_reflected():
    images = torch.full((8, 1, 20, 20), 200, dtype=torch.uint8)
    eighth = torch.full((8,), math.pi / 4)
    assert set(rotated(images, eighth, "reflect").flatten().tolist()) == {200}
    black = rotated(images, eighth, "zero")
    assert (black[:, :, 0, 0] == 0).all()
    assert (black[:, :, 5:15, 5:15] == 200).all()


def test_angles_are_each_images_own_and_uniform_within_the_limit():
    """A short bright line from the centre to the right tells the angle of each result."""
    image = torch.zeros(1, 1, 41, 41, dtype=torch.uint8)
    image[:, :, 20, 30:36] = 255
    results = augment(image.expand(400, -1, -1, -1), generator("cpu", 3), 0, False, "zero", 30.0).double()[:, 0]
    place = torch.arange(41) - 20.0
    right, up = (results * place).sum((1, 2)), (results * -place[:, None]).sum((1, 2))
    degrees = torch.rad2deg(torch.atan2(up, right))
    assert degrees.abs().max() < 31
    assert degrees.min() < -28
    assert degrees.max() > 28
    counts = torch.histc(degrees, 6, -30, 30)
    assert counts.min() > 35  # 67 expected, standard deviation 7.5


def test_a_rotation_keeps_type_shape_and_input_and_follows_the_generator():
    images = batch(16)
    before = images.clone()
    first, same, other = (augment(images, generator("cpu", key), 1, True, "reflect", 15.0) for key in (4, 4, 5))
    assert torch.equal(first, same)
    assert not torch.equal(first, other)
    assert (first.dtype, first.shape, first.is_contiguous()) == (torch.uint8, images.shape, True)
    assert torch.equal(images, before)
    assert augment(images[:0], generator("cpu", 4), 1, True, "reflect", 15.0).shape == (0, 3, 6, 5)
    last = images.to(memory_format=torch.channels_last)
    assert torch.equal(augment(last, generator("cpu", 4), 1, True, "reflect", 15.0), first)


def test_to_float_divides_by_255():
    values = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16)
    floats = to_float(values)
    assert floats.dtype == torch.float32
    assert (floats.min(), floats.max()) == (0.0, 1.0)
    assert torch.equal((floats * 255).round().to(torch.uint8), values)
    assert floats.view(-1)[51] == pytest.approx(0.2)
