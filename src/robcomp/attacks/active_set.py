"""What an attack has found so far, image by image."""

import torch
from torch import Tensor

from robcomp.attacks.base import norms, per_image

ROWS = 128  # few images are attacked by several runs at once, up to as many rows: small batches waste the machine


def runs_at_once(images: int, batch: int) -> int:
    """How many runs over `images` left of a `batch` fit side by side, in at most the batch's memory or ROWS."""
    return max(max(batch, ROWS) // max(images, 1), 1)


class ActiveSet:
    """The images that an attack has not fooled so far: tensors of one row an image, or one for each run of an image.

    index [n]: where each stands in the batch; best [n, C, H, W]: its best point so far, of loss best_loss [n]. Several
    runs stand one after the other, each with the same images in the same order.
    """

    def __init__(self, index: Tensor, x: Tensor, y: Tensor, start: Tensor) -> None:
        self.index, self.x, self.y, self.best = index, x, y, start
        self.best_loss = start.new_full((len(x),), -torch.inf)

    def drop_fooled(self, fooled: Tensor, x_adv: Tensor, result: Tensor) -> None:
        """Write the rows of `x_adv` where `fooled` [n] holds into the batch's `result`, and drop those images here."""
        if fooled.any():
            gone = fooled.nonzero()[:, 0]
            result[self.index[gone]] = x_adv[gone]
            done = torch.zeros(len(result), dtype=torch.bool, device=fooled.device)
            done[self.index[gone]] = True  # in every run
            stay = (~done[self.index]).nonzero()[:, 0]
            for name, rows in vars(self).items():
                setattr(self, name, rows[stay])

    def keep_best(self, result: Tensor, highest: Tensor, runs: int = 1) -> Tensor:
        """Write the best points into `result` where they beat the batch's `highest` losses; returns the images left."""
        for index, best, loss in zip(
            self.index.chunk(runs), self.best.chunk(runs), self.best_loss.chunk(runs), strict=True
        ):
            better = loss > highest[index]
            result[index] = torch.where(per_image(better, best), best, result[index])
            highest[index] = torch.where(better, loss, highest[index])
        return self.index[: len(self.index) // runs]


class Nearest:
    """The nearest misclassified point found so far of each image x [N, ...]: `points` like x and `distance` [N]."""

    def __init__(self, x: Tensor, wrong: Tensor, norm: str, enough: float) -> None:
        self.x, self.norm, self.enough = x, norm, enough
        self.points = x.clone()
        self.distance = torch.where(wrong, 0.0, torch.inf).to(x.dtype)

    def update(self, rows: Tensor, points: Tensor, wrong: Tensor, runs: int = 1) -> None:
        """Points of the images `rows`, kept where they are misclassified and nearer than those before.

        With several `runs`, which stand one after the other, an image has a point of each.
        """
        for images, found, fooled in zip(rows.chunk(runs), points.chunk(runs), wrong.chunk(runs), strict=True):
            distance = norms(found - self.x[images], self.norm)
            nearer = fooled & (distance < self.distance[images])
            self.points[images] = torch.where(per_image(nearer, found), found, self.points[images])
            self.distance[images] = torch.where(nearer, distance, self.distance[images])

    def active(self, rows: Tensor | slice) -> Tensor:
        """Which of the images `rows` are not done: True where the distance exceeds `enough`."""
        return self.distance[rows] > self.enough

    def active_rows(self) -> Tensor:
        """The indices of all images that are not done."""
        return (self.distance > self.enough).nonzero()[:, 0]
