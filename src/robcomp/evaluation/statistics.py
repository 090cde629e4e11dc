"""How sure an accuracy is, and whether two networks differ on the same images."""

import math
from statistics import NormalDist

import numpy as np

from robcomp.report.results import PairedDifference


def wilson(successes: int, n: int, level: float = 0.95) -> tuple[float, float]:
    """Wilson's score interval for a proportion of `successes` among `n`, as fractions (low, high) within [0, 1].

    Without data (n = 0) it is (0, 1). ValueError for counts that cannot be or a level outside (0, 1).
    Source: Wilson, 1927; Newcombe, Statistics in Medicine 17, 1998, 857-872, method 3.
    """
    if not 0 <= successes <= n:
        raise ValueError(f"{successes} successes among {n}: give 0 <= successes <= n")
    if not 0 < level < 1:
        raise ValueError(f"level {level}: give a fraction between 0 and 1, such as 0.95")
    if n == 0:
        return 0.0, 1.0
    z = NormalDist().inv_cdf((1 + level) / 2)
    p = successes / n
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    # at the ends a bound is exactly 0 or 1, which rounding would miss by 1e-17
    return (centre - half if successes else 0.0), (centre + half if successes < n else 1.0)


def mcnemar(only_a: int, only_b: int) -> float:
    """Two-sided exact p-value for "a and b are correct equally often", from how many images one alone has correct.

    Twice the smaller binomial tail at probability 1/2, at most 1; 1 where no image tells them apart.
    Source: McNemar, 1947, in its exact (binomial) form.
    """
    discordant, smaller = only_a + only_b, min(only_a, only_b)
    term = tail = 1
    for k in range(smaller):
        term = term * (discordant - k) // (k + 1)  # binomial(discordant, k + 1), in whole numbers: nothing under-flows
        tail += term
    return min(1.0, 2 * tail / 2**discordant)


def paired_difference(a: np.ndarray, b: np.ndarray, level: float = 0.95) -> PairedDifference:
    """How much more often `a` is correct than `b` on the same images, with an interval and a test.

    `a`, `b`: bool [n], outcome i of both belonging to image i, n > 0; else ValueError.
    Source of the interval: Newcombe, Statistics in Medicine 17, 1998, 2635-2650, method 10.
    """
    a, b = np.asarray(a), np.asarray(b)
    if a.dtype != bool or b.dtype != bool or a.ndim != 1 or a.shape != b.shape or a.size == 0:
        raise ValueError(
            f"outcomes {a.dtype} {a.shape} and {b.dtype} {b.shape}: give two bool arrays [n] on the same n > 0 images"
        )
    both, only_a, only_b = (int(np.count_nonzero(where)) for where in (a & b, a & ~b, ~a & b))
    neither = a.size - both - only_a - only_b
    low, high = _square_and_add(both, only_a, only_b, neither, level)
    return PairedDifference(
        n=a.size,
        difference=(only_a - only_b) / a.size,
        level=level,
        low=low,
        high=high,
        p_value=mcnemar(only_a, only_b),
        both=both,
        only_a=only_a,
        only_b=only_b,
        neither=neither,
    )


def _square_and_add(both: int, only_a: int, only_b: int, neither: int, level: float) -> tuple[float, float]:
    """Newcombe's interval: the two Wilson intervals' arms, added like the sides of a triangle with angle acos(phi)."""
    n = both + only_a + only_b + neither
    correct_a, correct_b = both + only_a, both + only_b
    p_a, p_b, difference = correct_a / n, correct_b / n, (only_a - only_b) / n
    (low_a, high_a), (low_b, high_b) = wilson(correct_a, n, level), wilson(correct_b, n, level)
    phi = _correlation(both, only_a, only_b, neither)

    def side(x: float, y: float) -> float:
        # with phi near 1 the sum may round to just below 0
        return math.sqrt(max(x * x - 2 * phi * x * y + y * y, 0.0))

    return difference - side(p_a - low_a, high_b - p_b), difference + side(high_a - p_a, p_b - low_b)


def _correlation(both: int, only_a: int, only_b: int, neither: int) -> float:
    """Phi of the 2 x 2 table, a positive one made smaller by a continuity correction; 0 where a margin is empty."""
    n = both + only_a + only_b + neither
    margins = (both + only_a) * (only_b + neither) * (both + only_b) * (only_a + neither)
    if margins == 0:
        return 0.0
    determinant: float = both * neither - only_a * only_b
    if determinant > 0:
        determinant = max(determinant - n / 2, 0.0)
    return determinant / math.sqrt(margins)
