"""Which images belong to which part of a data set: fixed once and for all, the classes evenly represented."""

import numpy as np


def stratified_order(labels: np.ndarray) -> np.ndarray:
    """A fixed permutation of the indices of `labels` (int [N]) of which every prefix mixes the classes in proportion.

    The images of each class are shuffled; the j-th of a class of n stands at the fraction (j + 1/2) / n of the order.
    A prefix of k images thus holds k/N of every class up to rounding (exactly k/C for C equal classes where C
    divides k). The same labels give the same order on every machine: RandomState's stream is frozen by NumPy.
    """
    shuffled = np.random.RandomState(0).permutation(len(labels))
    by_class = shuffled[np.argsort(labels[shuffled], kind="stable")]
    counts = np.bincount(labels) if len(labels) else np.zeros(0, dtype=np.int64)
    first = np.cumsum(counts) - counts
    fraction = (np.arange(len(labels)) - np.repeat(first, counts) + 0.5) / np.repeat(counts, counts)
    place = np.empty(len(labels), dtype=np.int64)
    place[shuffled] = np.arange(len(labels))
    # equal fractions are common (equal classes): the shuffle breaks the tie, so that no class is favoured
    return by_class[np.lexsort((place[by_class], fraction))]


def train_and_held_out(labels: np.ndarray, subset: int | None, val: int) -> tuple[np.ndarray, np.ndarray]:
    """Indices (train, held out), each ascending and disjoint: `val` held out of the first `subset` of the fixed order.

    The held-out images are the first of the order, so they are the same whatever the `subset`, and a smaller
    subset's training images are among a larger one's.
    """
    chosen = stratified_order(labels)[:subset]
    return np.sort(chosen[val:]), np.sort(chosen[:val])


def first_of(labels: np.ndarray, subset: int) -> np.ndarray:
    """Indices, ascending, of the first `subset` images of the fixed order."""
    return np.sort(stratified_order(labels)[:subset])


def chosen_for_test(labels: np.ndarray, fraction: float) -> np.ndarray:
    """bool [N]: the first `fraction` of each class in the fixed order, rounded, leaving one image on either side.

    Every class must have two images or more.
    """
    order = stratified_order(labels)
    chosen = np.zeros(len(labels), dtype=bool)
    for label in np.unique(labels):
        members = order[labels[order] == label]
        chosen[members[: min(max(round(fraction * len(members)), 1), len(members) - 1)]] = True
    return chosen
