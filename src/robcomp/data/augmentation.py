"""Random crops and flips of a batch where it lies, as one gather; uint8 to the floats that networks read."""

import torch
from torch.nn.functional import pad as pad_borders


def augment(images: torch.Tensor, generator: torch.Generator, pad: int, flip: bool) -> torch.Tensor:
    """Each image cropped to its own size at a uniform offset after zero padding by `pad`, then mirrored half the time.

    `images` uint8 [N,C,H,W]; `generator` on the same device decides everything; returns uint8 [N,C,H,W], contiguous,
    or `images` itself when there is nothing to do. Every image has its own offsets (0..2*pad rows and columns) and
    its own flip.
    """
    if not pad and not flip:
        return images
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
        images = pad_borders(images, (pad, pad, pad, pad))
    index = rows[:, :, None] * images.shape[3] + columns[:, None, :]
    index = index.view(count, 1, height * width).expand(count, channels, height * width)
    return images.flatten(2).gather(2, index).view(count, channels, height, width)


def to_float(images: torch.Tensor) -> torch.Tensor:
    """uint8 [N,C,H,W] -> float32 in [0, 1]: x / 255."""
    return images.to(torch.float32) / 255
