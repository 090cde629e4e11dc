"""Pictures as they come (any format Pillow reads, any size, mode and orientation) to uint8 arrays."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import IO, TypeVar

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

THREADS = 8

T = TypeVar("T")


def decode(
    items: Sequence[T], read: Callable[[T], np.ndarray], shape: Sequence[int], title: str
) -> tuple[np.ndarray, dict[int, Exception]]:
    """uint8 [N,*shape] of read(item) for every item, and for each that failed its place and the error.

    A few threads work (Pillow decodes outside Python's lock) and a bar named `title` shows on a terminal.
    """
    images = np.zeros((len(items), *shape), dtype=np.uint8)
    failures: dict[int, Exception] = {}

    def fill(place: int) -> None:
        try:
            images[place] = read(items[place])
        except Exception as error:  # a broken picture shows itself as almost any exception
            failures[place] = error

    Image.init()  # now: threads that load Pillow's formats at the same time may miss one
    console = Console(stderr=True)
    bar = Progress(
        TextColumn("[bold]{task.description}"),
        BarColumn(24),
        MofNCompleteColumn(),
        TimeRemainingColumn(compact=True),
        console=console,
        disable=not console.is_terminal,
        transient=True,
    )
    with bar, ThreadPoolExecutor(THREADS) as pool:
        task = bar.add_task(title, total=len(items))
        for _ in pool.map(fill, range(len(items))):
            bar.advance(task)
    return images, failures


def picture(file: IO[bytes], shape: Sequence[int]) -> np.ndarray:
    """The first picture in `file` as uint8 of `shape` [C,H,W], C = 1 grey or 3 colour.

    Turned upright as its EXIF orientation says, its transparency laid on white, 16-bit greys scaled from 0..65535,
    then scaled to cover the shape (Lanczos) and its centre cut out. Raises whatever Pillow does for a broken one.
    """
    channels, height, width = shape
    with Image.open(file) as opened:
        image = _opaque(_eight_bits(ImageOps.exif_transpose(opened))).convert("L" if channels == 1 else "RGB")
    fitted = ImageOps.fit(image, (width, height), Image.Resampling.LANCZOS)
    return np.atleast_3d(np.asarray(fitted)).transpose(2, 0, 1)


def reason(error: Exception) -> str:
    """What went wrong with a picture, as a clause without its path and without a full stop."""
    if isinstance(error, UnidentifiedImageError):
        return "it is in no image format"
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return (text.strip().splitlines() or [type(error).__name__])[0].rstrip(".:")


def _eight_bits(image: Image.Image) -> Image.Image:
    """Greys of 16 bits divided by 257 and rounded; any other image as it is, but for those without a known range."""
    if image.mode == "F":
        raise ValueError("its pixels are floating-point numbers, of which nothing says what is white")
    if not image.mode.startswith("I"):
        return image
    grey = np.asarray(image).astype(np.int64)
    if grey.min() < 0 or grey.max() > 65535:
        raise ValueError("its greys are outside 0..65535")
    return Image.fromarray(((grey + 128) // 257).astype(np.uint8))


def _opaque(image: Image.Image) -> Image.Image:
    if not image.has_transparency_data:
        return image
    layer = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer)
