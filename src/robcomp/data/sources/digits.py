"""scikit-learn's bundled handwritten digits: real images that need no download."""

from pathlib import Path

import numpy as np

from robcomp.data.sources import SOURCES, Raw
from robcomp.data.splits import stratified_order

TEST_IMAGES = 360  # a fifth of the 1,797 images; the set has no official split
SIZE = 28  # pixels a side, as MNIST, so that the same networks fit
LEVELS = 16  # the original grey values are 0..16


@SOURCES.register("digits")
def digits(raw_dir: Path) -> Raw:
    """The 1,797 8x8 digits as uint8 [N,1,28,28], bilinearly enlarged; 1,437 train and 360 test, class-stratified."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    images = _enlarge(bunch.images)
    labels = bunch.target.astype(np.int64)
    test = np.zeros(len(labels), dtype=bool)
    test[stratified_order(labels)[:TEST_IMAGES]] = True
    return Raw(
        train_images=images[~test],
        train_labels=labels[~test],
        test_images=images[test],
        test_labels=labels[test],
        classes=tuple(str(digit) for digit in range(10)),
        source=f"scikit-learn load_digits, enlarged from 8x8 to {SIZE}x{SIZE}, split by robcomp",
        official=False,
    )


def _enlarge(images: np.ndarray) -> np.ndarray:
    """Grey values 0..16 [N,8,8] -> uint8 [N,1,28,28]."""
    import torch
    from torch.nn.functional import interpolate

    values = torch.from_numpy(images).to(torch.float64)[:, None]
    values = interpolate(values, size=(SIZE, SIZE), mode="bilinear", align_corners=False) * (255 / LEVELS)
    # Exact halves are common (grey 8 is 127.5) and any other value is at least 1e-4 away from one: the nudge sends
    # them all upwards, so that rounding errors, which differ between machines, cannot change the data's checksum.
    return (values + 0.5 + 1e-6).floor().to(torch.uint8).numpy()
