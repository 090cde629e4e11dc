"""Random rotations, crops and flips of a batch where it lies; uint8 to the floats that networks read."""

import math

import torch
from torch.nn.functional import grid_sample
from torch.nn.functional import pad as pad_borders


def augment(
    images: torch.Tensor, generator: torch.Generator, pad: int, flip: bool, pad_mode: str = "zero", rotate: float = 0.0
) -> torch.Tensor:
    """Each image turned by up to `rotate` degrees, cropped to its size with a border of `pad`, mirrored half the time.

    `images` uint8 [N,C,H,W]; `generator` on the same device decides everything; returns uint8 [N,C,H,W], contiguous,
    or `images` itself when there is nothing to do. Every image has its own angle (uniform in [-rotate, rotate]), its
    own offsets (0..2*pad rows and columns) and its own flip. Beyond the border lies black (`pad_mode` zero) or the
    image mirrored at the centres of its border pixels (reflect).
    """
    if rotate:
        draws = torch.rand(len(images), generator=generator, device=images.device)
        images = rotated(images, (2 * draws - 1) * math.radians(rotate), pad_mode)
    return _windows(images, generator, pad, flip, pad_mode) if pad or flip else images


def rotated(images: torch.Tensor, angles: torch.Tensor, pad_mode: str) -> torch.Tensor:
    """Each image [N,C,H,W] turned counter-clockwise about its centre by its angle [N] in radians; bilinear, rounded."""
    count, _, height, width = images.shape
    if not count:
        return images
    rows = torch.arange(height, device=images.device)[:, None] - (height - 1) / 2
    columns = torch.arange(width, device=images.device) - (width - 1) / 2
    cos, sin = angles.cos().view(count, 1, 1), angles.sin().view(count, 1, 1)
    # where each pixel of the result comes from, in units of half the distance between the outermost pixel centres
    x = (cos * columns - sin * rows) * (2 / max(width - 1, 1))
    y = (sin * columns + cos * rows) * (2 / max(height - 1, 1))
    beyond = "zeros" if pad_mode == "zero" else "reflection"
    floats = images.to(torch.float32)
    turned = grid_sample(floats, torch.stack([x, y], 3), mode="bilinear", padding_mode=beyond, align_corners=True)
    return turned.round().to(torch.uint8).contiguous()


def to_float(images: torch.Tensor) -> torch.Tensor:
    """uint8 [N,C,H,W] -> float32 in [0, 1]: x / 255; floats are in [0, 1] already."""
    if images.is_floating_point():
        return images
    return images.to(torch.float32) / 255


def _windows(images: torch.Tensor, generator: torch.Generator, pad: int, flip: bool, pad_mode: str) -> torch.Tensor:
    """Crops and flips as one gather."""
    count, channels, height, width = images.shape
    device = images.device
    rows = torch.arange(height, device=device).expand(count, height)
    columns = torch.arange(width, device=device).expand(count, width)
    if flip:
        mirrored = torch.rand((count, 1), generator=generator, device=device) < 0.5
        columns = torch.where(mirrored, width - 1 - columns, columns)
    if pad:
        offsets = torch.randint(2 * pad + 1, (2, count, 1), generator=generator, device=device)
        rows, columns = rows + offsets[0], columns + offsets[1]
        if pad_mode == "reflect":
            rows, columns = _reflected(rows - pad, height), _reflected(columns - pad, width)
        else:
            images = pad_borders(images, (pad, pad, pad, pad))
    index = rows[:, :, None] * images.shape[3] + columns[:, None, :]
    index = index.view(count, 1, height * width).expand(count, channels, height * width)
    return images.flatten(2).gather(2, index).view(count, channels, height, width)


def _reflected(index: torch.Tensor, size: int) -> torch.Tensor:
    """-size < index < 2 * size - 1 mirrored at 0 and size - 1: -1 is 1, size is size - 2."""
    return size - 1 - (size - 1 - index.abs()).abs()
