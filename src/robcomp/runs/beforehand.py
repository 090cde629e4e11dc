"""What would otherwise go wrong after hours of work, asked before it: where results go, and what only data can tell."""

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from robcomp.errors import UserError

if TYPE_CHECKING:
    from robcomp.data import Dataset
    from robcomp.settings.schema import Config


def writable(folder: Path, key: str = "out") -> None:
    """UserError unless `folder`, which key= names, can be made and written to. Nothing is left behind."""
    try:
        nearest = next(path for path in (folder, *folder.parents) if path.exists())
        if not nearest.is_dir():
            raise NotADirectoryError(0, f"{nearest} is a file")
        with tempfile.TemporaryDirectory(dir=nearest, prefix=".robcomp-") as probe:
            if nearest != folder:  # under names of these lengths, too
                Path(probe, *folder.relative_to(nearest).parts).mkdir(parents=True)
    except OSError as error:
        raise UserError(
            f"{key}={folder} cannot be written to ({error.strerror or error}); give a folder that is there or can be "
            f"made, as in {key}=somewhere/else."
        ) from None


def fits(config: "Config", overrides: Sequence[str], dataset: "Dataset") -> list[str]:
    """What a user should know of settings that the data set cut short, a sentence each.

    UserError for what cannot be meant: an attack on more classes than there are, a batch larger than all images.
    """
    config.attack.check(len(dataset.classes))
    size, images = config.training.batch_size, len(dataset.train)
    if size > images and any(override.startswith("training.batch_size=") for override in overrides):
        raise UserError(
            f"training.batch_size={size} is more than the {images} training images of {dataset.name}; give at most "
            f"{images}."
        )
    batches = [f"training.batch_size={size}, but there are {images} training images: one batch holds all of them."]
    return [*config.misplaced().values(), *shortened(config, dataset), *(batches if size > images else [])]


def shortened(config: "Config", dataset: "Dataset") -> list[str]:
    """A sentence where fewer test images are there than dataset.test_subset asks for."""
    asked, there = config.dataset.test_subset, len(dataset.test)
    if asked is None or asked <= there:
        return []
    return [f"dataset.test_subset={asked}, but {dataset.name} has {there} test images: all of them are taken."]
