"""Which images a network classifies correctly, as they are and under an attack: what all analyses share."""

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import chain
from typing import Any, Self, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from robcomp.attacks.base import Attack, MinimumNorm, norms
from robcomp.data import Split, to_float
from robcomp.errors import UserError
from robcomp.evaluation.ledger import Ledger
from robcomp.evaluation.statistics import wilson
from robcomp.hardware import exact_float32
from robcomp.models.parameterisation import effective_weights
from robcomp.models.snapshot import Snapshot
from robcomp.report.accuracy import Proportion
from robcomp.seeding import generator
from robcomp.storage import digest

REVISION = 2  # rises when the same evaluation gives other outcomes: the attacks have revisions of their own
BATCH = 250
FAITHFUL = 1e-3  # largest difference between the logits of a network and its folded copy, of the logits' own size
FURTHER = (1e-3, 3e-3, 1e-2, 3e-2)  # of the way to a point that fools the copy, where the network itself is looked at
Advance = Callable[[str, float, int], None]
P = TypeVar("P", bound=Proportion)


@dataclass
class Outcome:
    """What an attack left of some images: arrays over all images of the split, False and nan where not attacked.

    correct: bool [N], still classified correctly. distance: float32 [N] or None, the norm of the smallest perturbation
    found by a minimum-norm attack, infinity where none was.
    """

    correct: np.ndarray
    attacked: int
    seconds: float
    distance: np.ndarray | None = None


class Evaluator:
    """A network and its test images. Within `with`, all is computed in float32 and weights are multiplied out once.

    The images are uint8, or float32 in [0, 1]. Attacks run on a folded copy of the network where that gives the same
    logits (FAITHFUL); whether an image was fooled is asked of the network itself. `advance(name, done, total)` is told
    how far an attack is, in images, `goes_on` the same of one that the ledger knows, and `finished(name, outcome)` when
    it is done.
    """

    def __init__(
        self,
        model: nn.Module,
        split: Split,
        seed: int,
        batch_size: int = BATCH,
        ledger: Ledger | None = None,
        advance: Advance = lambda name, done, total: None,
    ) -> None:
        self.model, self.seed, self.batch_size, self.advance = model, seed, batch_size, advance
        self.device = next(chain(model.parameters(), model.buffers()), split.images).device
        self.split = split.to(self.device)
        self.ledger = ledger or Ledger()
        self.goes_on: Callable[[str, int, int], None] = lambda name, done, total: None
        self.finished: Callable[[str, Outcome], None] = lambda name, outcome: None

    def __len__(self) -> int:
        return len(self.split)

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            stack.enter_context(exact_float32())
            stack.enter_context(effective_weights(self.model))
            stack.enter_context(_eval_mode(self.model))
            self.view = self._folded()
            self.answers = self._answers()
            self.clean = self.answers == self.split.labels.cpu().numpy()
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def images(self, index: np.ndarray) -> tuple[Tensor, Tensor]:
        """The images (float32 [n, C, H, W] in [0, 1]) and labels (int64 [n]) at `index`, on the network's device."""
        chosen = torch.from_numpy(index).to(self.device)
        return to_float(self.split.images[chosen]), self.split.labels[chosen]

    def under(self, name: str, attack: Attack, candidates: np.ndarray, distances: bool = False) -> Outcome:
        """The images of `candidates` (bool [N]) after the attack, batch by batch, from where the ledger stands.

        `distances` asks a minimum-norm attack for its distances; eps then plays no part in when it stops.
        """
        distances = distances and isinstance(attack, MinimumNorm)
        entry = self.entry(name, attack, candidates, distances)
        arrays, done, seconds = self.ledger.recall(entry)
        if "correct" not in arrays:  # new, or noted by a version that called it otherwise
            arrays, done, seconds = {"correct": np.zeros(len(self), bool)}, 0, 0.0
            arrays |= {"distance": np.full(len(self), np.nan, np.float32)} if distances else {}
        if done:
            self.goes_on(name, done, int(candidates.sum()))
        began = time.monotonic()
        for chosen, x_adv, y, distance in self.batches(name, attack, candidates, done, distances):
            correct = self.correct(x_adv, y)
            if distance is not None:
                distance = self._own_distance(chosen, x_adv, y, distance, correct, attack.norm)
                arrays["distance"][chosen] = distance.cpu().numpy()
                correct = distance > attack.threat.eps
            arrays["correct"][chosen] = correct.cpu().numpy()
            done += len(chosen)
            self.ledger.note(entry, arrays, done, seconds + time.monotonic() - began)
        outcome = Outcome(
            arrays["correct"], int(candidates.sum()), seconds + time.monotonic() - began, arrays.get("distance")
        )
        self.finished(name, outcome)
        return outcome

    def _own_distance(
        self, chosen: np.ndarray, x_adv: Tensor, y: Tensor, distance: Tensor, correct: Tensor, norm: str
    ) -> Tensor:
        """The distances [n] at which the network itself is fooled, not only its folded copy.

        A point on the copy's boundary that the network still classifies correctly is moved further from the image, by
        the shares FURTHER of the way, up to the first one that it does not; infinity where there is none.
        """
        only_copy = (correct & distance.isfinite()).nonzero()[:, 0]
        if not len(only_copy):
            return distance
        x, found = self.images(chosen)[0][only_copy], torch.full_like(distance[only_copy], torch.inf)
        for share in FURTHER:
            point = (x + (1 + share) * (x_adv[only_copy] - x)).clamp(0, 1)
            fooled = found.isinf() & ~self.correct(point, y[only_copy])
            found = torch.where(fooled, norms(point - x, norm), found)
        return distance.index_put((only_copy,), found)

    def entry(self, name: str, attack: Attack, candidates: np.ndarray, *more: object) -> list[object]:
        """What names an attack in the ledger: all that decides its outcomes, the network and the images apart."""
        index = np.flatnonzero(candidates).tolist()
        return [REVISION, name, attack.settings(), self.seed, self.batch_size, digest(index), *more]

    def batches(
        self, name: str, attack: Attack, candidates: np.ndarray, done: int = 0, distances: bool = False
    ) -> Iterator[tuple[np.ndarray, Tensor, Tensor, Tensor | None]]:
        """(index, x_adv, y, distance or None) of the candidates (bool [N]) attacked, without the first `done`."""
        index = np.flatnonzero(candidates)
        target = self.model if attack.bn_mode == "train" else self.view
        for start in range(done, len(index), self.batch_size):
            chosen = index[start : start + self.batch_size]
            x, y = self.images(chosen)
            view = _Counted(target, self._told(name, attack, start, len(chosen), len(index)))
            yield chosen, *self._attack(name, attack, view, x, y, start, distances)
            self.advance(name, start + len(chosen), len(index))

    def _attack(
        self, name: str, attack: Attack, view: nn.Module, x: Tensor, y: Tensor, start: int, distances: bool
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        random = generator(self.device, self.seed, "evaluation", name, start)
        try:
            if distances and isinstance(attack, MinimumNorm):
                x_adv, distance = attack.find(view, x, y, random)
            else:
                x_adv, distance = attack(view, x, y, random), None
        except UserError:
            raise
        except ValueError as error:
            raise UserError(f"attack {name} failed on this network: {error}.") from None
        return x_adv, y, distance

    def _told(self, name: str, attack: Attack, start: int, size: int, total: int) -> Callable[[int], None]:
        """Turns the passes spent on a batch into images done, for the bar."""
        passes, whole = 0, attack.cost * size

        def spent(count: int) -> None:
            nonlocal passes
            passes += count
            self.advance(name, start + size * min(passes / whole, 1.0), total)

        return spent

    def correct(self, x: Tensor, y: Tensor) -> Tensor:
        """Which images are classified correctly (bool [n]); one with NaN or infinity in its logits is not."""
        logits = self.logits(x)
        return (logits.argmax(1) == y) & logits.isfinite().all(1)

    @torch.no_grad()
    def logits(self, x: Tensor) -> Tensor:
        """The network's own logits, by batches."""
        return torch.cat([self.model(part).float() for part in x.split(self.batch_size)])

    @property
    def only_class(self) -> int | None:
        """The class that is answered for every image, where the images are of several; None where answers differ."""
        constant = len(np.unique(self.answers)) == 1 and len(self.split.labels.unique()) > 1
        return int(self.answers[0]) if constant else None

    def _answers(self) -> np.ndarray:
        """The class that the network gives each image as it is: int64 [N]."""
        if not len(self):
            raise UserError("there is no image to evaluate on; give test images, or a larger dataset.test_subset.")
        answers = np.zeros(len(self), np.int64)
        for start in range(0, len(self), self.batch_size):
            index = np.arange(start, min(start + self.batch_size, len(self)))
            x, _ = self.images(index)
            logits = self.logits(x)
            if not bool(logits.isfinite().all()):
                bad = int(index[(~logits.isfinite().all(1)).cpu().numpy()][0])
                raise UserError(
                    f"the network returns NaN or infinity for test image {bad}; a diverged training does that: train "
                    "it again with a smaller learning rate (training.lr_scale=0.2), or give other weights."
                )
            answers[index] = logits.argmax(1).cpu().numpy()
        return answers

    def _folded(self) -> nn.Module:
        """The folded copy, or the network itself where a copy does not compute the same (own modules, randomness)."""
        x, _ = self.images(np.arange(min(len(self), 8)))
        with torch.no_grad():
            mine = self.model(x).float()
        try:
            folded = Snapshot(self.model, torch.float32, torch.channels_last)
            with torch.no_grad():
                copied = folded(x)
        except Exception:  # a network from elsewhere may mind being copied in any way
            return self.model
        return folded if bool(((mine - copied).abs() <= FAITHFUL * (1 + mine.abs())).all()) else self.model


@contextmanager
def _eval_mode(model: nn.Module) -> Iterator[None]:
    """Inside, every module is in eval mode; afterwards each is in its own again."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


def proportion(outcome: np.ndarray, kind: type[P] = Proportion, **more: Any) -> P:  # type: ignore[assignment]
    """The fraction of True in `outcome` (bool [N]) with its 95 % Wilson interval, as a record with `more` fields."""
    correct, images = int(outcome.sum()), len(outcome)
    return kind(value=correct / images, correct=correct, images=images, interval=wilson(correct, images), **more)


class _Counted(nn.Module):
    """The network, telling `spent` how many passes each call took: a forward one, and a backward where one follows."""

    def __init__(self, model: nn.Module, spent: Callable[[int], None]) -> None:
        super().__init__()
        self.model, self._spent = model, spent

    def forward(self, x: Tensor) -> Tensor:
        self._spent(len(x) * (2 if x.requires_grad and torch.is_grad_enabled() else 1))
        return self.model(x)
