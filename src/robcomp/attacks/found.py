"""What an attack has found so far, image by image."""

import torch
from torch import Tensor

from robcomp.attacks.base import norms, per_image


class Survivors:
    """The images that an attack has not fooled so far: tensors of one row an image, all dropped together.

    index [n]: where each stands in the batch; best [n, C, H, W]: its best point so far, of loss best_loss [n].
    """

    def __init__(self, index: Tensor, x: Tensor, y: Tensor, start: Tensor) -> None:
        self.index, self.x, self.y, self.best = index, x, y, start
        self.best_loss = start.new_full((len(x),), -torch.inf)

    def leave(self, fooled: Tensor, x_adv: Tensor, result: Tensor) -> None:
        """Write the rows of `x_adv` where `fooled` [n] holds into the batch's `result`, and drop them here."""
        if fooled.any():
            gone, stay = fooled.nonzero()[:, 0], (~fooled).nonzero()[:, 0]
            result[self.index[gone]] = x_adv[gone]
            for name, rows in vars(self).items():
                setattr(self, name, rows[stay])

    def settle(self, result: Tensor, highest: Tensor) -> Tensor:
        """Write the best points into `result` where they beat the batch's `highest` losses; returns `index`."""
        better = self.best_loss > highest[self.index]
        result[self.index] = torch.where(per_image(better, self.best), self.best, result[self.index])
        highest[self.index] = torch.where(better, self.best_loss, highest[self.index])
        return self.index


class Nearest:
    """The nearest misclassified point found so far of each image x [N, ...]: `points` like x and `distance` [N]."""

    def __init__(self, x: Tensor, wrong: Tensor, norm: str, enough: float) -> None:
        self.x, self.norm, self.enough = x, norm, enough
        self.points = x.clone()
        self.distance = torch.where(wrong, 0.0, torch.inf)

    def offer(self, rows: Tensor, points: Tensor, wrong: Tensor) -> None:
        """Points of the images `rows`, kept where they are misclassified and nearer than those before."""
        distance = norms(points - self.x[rows], self.norm)
        nearer = wrong & (distance < self.distance[rows])
        self.points[rows] = torch.where(per_image(nearer, points), points, self.points[rows])
        self.distance[rows] = torch.where(nearer, distance, self.distance[rows])

    def open(self, rows: Tensor) -> Tensor:
        """Which of the images `rows` are not done: True where the distance exceeds `enough`."""
        return self.distance[rows] > self.enough

    def all_open(self) -> Tensor:
        """The indices of all images that are not done."""
        return (self.distance > self.enough).nonzero()[:, 0]
