"""Clean accuracy, accuracy under each attack of a suite, and the worst case over them, image by image."""

import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from robcomp.attacks import Attack
from robcomp.data import Split, to_float
from robcomp.evaluation.statistics import wilson
from robcomp.hardware import exact_float32
from robcomp.models.parameterisation import effective_weights
from robcomp.seeding import generator

BATCH = 500


def evaluate(
    model: nn.Module, split: Split, suite: Mapping[str, Attack], seed: int,
    advance: Callable[[str, int, int], None] = lambda name, done, total: None,
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:  # fmt: skip
    """Evaluate `model` on `split`, in float32.

    Returns the report's "accuracy" block and, under the same keys, whether each image was classified right
    (bool [N]). An image that is wrong without an attack counts as wrong under every attack and is not attacked.
    `advance(name, done, total)` is told after each batch.
    """
    device = next(model.parameters()).device
    split = split.to(device)
    with exact_float32(), effective_weights(model):
        clean = _outcome(model, split, None, np.ones(len(split), bool), seed, "clean", advance)
        outcomes, records = {"clean": clean}, {"clean": proportion(clean)}
        worst = clean
        for name, attack in suite.items():
            started = time.monotonic()
            outcomes[name] = _outcome(model, split, attack, clean, seed, name, advance)
            seconds = round(time.monotonic() - started, 2)
            records[name] = {**proportion(outcomes[name]), "attack": attack.settings(), "seconds": seconds}
            worst = worst & outcomes[name]
    outcomes["worst_case"], records["worst_case"] = worst, proportion(worst)
    return records, outcomes


def proportion(outcome: np.ndarray) -> dict[str, Any]:
    """The fraction of True with its 95 % Wilson interval."""
    correct, images = int(outcome.sum()), len(outcome)
    return {
        "value": correct / images, "correct": correct, "images": images, "interval": list(wilson(correct, images))
    }  # fmt: skip


def _outcome(
    model: nn.Module, split: Split, attack: Attack | None, candidates: np.ndarray, seed: int, name: str,
    advance: Callable[[str, int, int], None],
) -> np.ndarray:  # fmt: skip
    """Which of the candidate images are classified right, after the attack if there is one."""
    device, result = split.labels.device, np.zeros(len(split), bool)
    index = np.flatnonzero(candidates)
    model.eval()
    for start in range(0, len(index), BATCH):
        chosen = torch.from_numpy(index[start : start + BATCH]).to(device)
        x, y = to_float(split.images[chosen]), split.labels[chosen]
        if attack is not None:
            x = attack(model, x, y, generator(device, seed, "evaluation", name, start))
        result[index[start : start + BATCH]] = _right(model, x, y).cpu().numpy()
        advance(name, min(start + BATCH, len(index)), len(index))
    return result


@torch.no_grad()
def _right(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    return model(x).argmax(1) == y
