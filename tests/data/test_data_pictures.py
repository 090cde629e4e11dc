"""One picture of any kind to an array: colours, greys, orientation, transparency, depth, size."""

import io
import time

import numpy as np
import pytest
from PIL import Image

from robcomp.data.decoding import decode, picture, reason

RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)


def stored(image: Image.Image, kind: str = "PNG", **options: object) -> io.BytesIO:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    stream.seek(0)
    return stream


def halves(left: tuple[int, ...], right: tuple[int, ...], size: int = 32, mode: str = "RGB") -> Image.Image:
    image = Image.new(mode, (size, size), left)
    image.paste(right, (size // 2, 0, size, size))
    return image


def corner(array: np.ndarray, row: int, column: int) -> tuple[int, ...]:
    return tuple(array[:, row, column].tolist())


def test_colours_keep_their_channels_and_places():
    array = picture(stored(halves(RED, BLUE)), (3, 32, 32))
    assert (array.shape, array.dtype) == ((3, 32, 32), np.uint8)
    assert (corner(array, 0, 0), corner(array, 31, 31)) == (RED, BLUE)
    assert np.array_equal(array, np.asarray(halves(RED, BLUE)).transpose(2, 0, 1)), "no scaling, no change"


def test_grey_and_colour_become_what_is_asked_for():
    grey = Image.fromarray(np.arange(256, dtype=np.uint8).reshape(16, 16))
    assert np.array_equal(picture(stored(grey), (3, 16, 16)), np.stack([np.asarray(grey)] * 3))
    assert np.array_equal(picture(stored(grey), (1, 16, 16)), np.asarray(grey)[None])
    green = picture(stored(Image.new("RGB", (16, 16), GREEN)), (1, 16, 16))
    assert green.shape == (1, 16, 16)
    assert set(green.flat) == {150}  # 0.587 * 255


def test_a_palette_and_a_bitmap_are_read_as_what_they_show():
    shown = picture(stored(halves(RED, GREEN).quantize(4), "GIF"), (3, 32, 32))
    assert (corner(shown, 5, 3), corner(shown, 5, 28)) == (RED, GREEN)
    bits = Image.new("1", (8, 8), 1)
    assert set(picture(stored(bits), (1, 8, 8)).flat) == {255}


@pytest.mark.parametrize(("orientation", "row", "column"), [(1, 0, 0), (3, 31, 31), (6, 0, 31), (8, 31, 0), (2, 0, 31)])
def test_a_photograph_is_turned_upright(orientation, row, column):
    """A red patch in the file's first corner ends up where the orientation says that corner belongs."""
    image = Image.new("RGB", (32, 32), BLUE)
    image.paste(RED, (0, 0, 16, 16))
    exif = Image.Exif()
    exif[0x0112] = orientation
    array = picture(stored(image, "PNG", exif=exif), (3, 32, 32))
    corners = {(r, c): corner(array, r, c) for r in (0, 31) for c in (0, 31)}
    assert [place for place, colour in corners.items() if colour == RED] == [(row, column)]


@pytest.mark.parametrize("channels", [1, 3])
def test_transparency_is_laid_on_white(channels):
    image = halves((255, 0, 0, 0), (0, 0, 0, 128), mode="RGBA")
    array = picture(stored(image), (channels, 32, 32))
    assert set(array[:, :, :14].flat) == {255}
    assert set(array[:, :, 18:].flat) == {127}
    palette = halves(RED, GREEN).quantize(4)
    clear = palette.getpixel((0, 0))
    shown = picture(stored(palette, "PNG", transparency=clear), (3, 32, 32))
    assert (corner(shown, 5, 3), corner(shown, 5, 28)) == (WHITE, GREEN)


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_greys_of_16_bits_are_scaled_and_not_clipped(kind):
    values = np.array([[0, 128, 129, 257], [25700, 32896, 65406, 65535]], np.uint16)
    array = picture(stored(Image.fromarray(values), kind), (1, 2, 4))
    assert array[0].tolist() == [[0, 0, 1, 1], [100, 128, 254, 255]]


def test_pixels_without_a_known_white_are_refused():
    with pytest.raises(ValueError, match="floating-point"):
        picture(stored(Image.fromarray(np.zeros((4, 4), np.float32)), "TIFF"), (1, 4, 4))
    with pytest.raises(ValueError, match=r"outside 0\.\.65535"):
        picture(stored(Image.fromarray(np.full((4, 4), 70000, np.int32)), "TIFF"), (1, 4, 4))


def test_a_wide_picture_is_scaled_to_cover_and_its_centre_kept():
    image = Image.new("RGB", (300, 100), RED)
    image.paste(BLUE, (100, 0, 200, 100))
    array = picture(stored(image), (3, 20, 20))
    assert array.shape == (3, 20, 20)
    assert set(array[2, :, 4:16].flat) == {255}, "the middle third is blue"
    assert set(array[0, :, 4:16].flat) == {0}


def test_a_tall_shape_takes_the_middle_columns():
    array = picture(stored(halves(RED, BLUE, 40)), (3, 20, 10))
    assert array.shape == (3, 20, 10)
    assert (corner(array, 0, 0), corner(array, 19, 9)) == (RED, BLUE)


def test_a_small_picture_is_enlarged():
    assert set(picture(stored(Image.new("L", (1, 1), 77)), (1, 9, 9)).flat) == {77}


def test_everything_is_tried_and_the_failures_are_told_by_place():
    def read(item: int) -> np.ndarray:
        time.sleep(0.001 * (item % 3))  # so that the threads finish out of order
        if item % 10 == 7:
            raise ValueError(f"no {item}")
        return np.full((1, 2, 2), item, np.uint8)

    images, failures = decode(range(40), read, (1, 2, 2), "trying")
    assert {place: str(error) for place, error in failures.items()} == {i: f"no {i}" for i in (7, 17, 27, 37)}
    assert [int(image.max()) for image in images] == [0 if i % 10 == 7 else i for i in range(40)]


def test_reasons_are_one_clause():
    assert reason(FileNotFoundError(2, "No such file or directory", "/x")) == "No such file or directory"
    assert reason(ValueError("first line.\nsecond")) == "first line"
    assert reason(KeyError()) == "KeyError"
