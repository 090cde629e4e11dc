"""SVHN (Netzer et al., 2011), the cropped house-number digits, from its two .mat files."""

from pathlib import Path

from robcomp.data.archives import Archive, reading
from robcomp.data.sources import SOURCES, Raw


@SOURCES.register("svhn")
def svhn(raw_dir: Path) -> Raw:
    """73,257 training and 26,032 test digits, uint8 [N,3,32,32]; raw_dir/train_32x32.mat and test_32x32.mat.

    The 531,131 images of the extra part are not used; the files' label 10 is the digit 0. Raises UserError when a file
    is missing and cannot be downloaded, or is damaged.
    """
    from torchvision.datasets import SVHN

    files = {split: SVHN.split_list[split] for split in ("train", "test")}
    with reading("svhn", None, [Archive(raw_dir / name, url, md5) for url, name, md5 in files.values()]):
        train, test = (SVHN(raw_dir, split, download=True) for split in files)
    return Raw(
        train.data,
        train.labels,
        test.data,
        test.labels,
        classes=tuple(str(digit) for digit in range(10)),
        source=f"torchvision SVHN, {files['train'][0]} and {files['test'][1]}",
        official=True,
    )
