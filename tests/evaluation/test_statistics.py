"""Intervals and tests for proportions, against published values and by their coverage."""

import json
import math
from dataclasses import asdict
from fractions import Fraction

import numpy as np
import pytest

from robcomp.evaluation.statistics import mcnemar, paired_difference, wilson
from robcomp.report.records import to_json


def outcomes(both: int, only_a: int, only_b: int, neither: int) -> tuple[np.ndarray, np.ndarray]:
    """Two outcome arrays with these counts."""
    counts = [both, only_a, only_b, neither]
    return np.repeat([True, True, False, False], counts), np.repeat([True, False, True, False], counts)


@pytest.mark.parametrize(
    ("successes", "n", "low", "high"),
    [  # Newcombe 1998 (single proportion), Table I, method 3
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_wilson_published(successes: int, n: int, low: float, high: float) -> None:
    assert wilson(successes, n) == pytest.approx((low, high), abs=5e-5)
    assert wilson(n - successes, n) == pytest.approx((1 - high, 1 - low), abs=5e-5)


def test_wilson_bounds_solve_the_score_equation() -> None:
    for bound in wilson(37, 120, level=0.9):
        assert abs(37 / 120 - bound) / math.sqrt(bound * (1 - bound) / 120) == pytest.approx(1.6448536, abs=1e-6)


def test_wilson_ends_are_exact() -> None:
    for n in (1, 3, 20, 1000):
        assert wilson(0, n)[0] == 0.0
        assert wilson(n, n)[1] == 1.0
    assert wilson(0, 0) == (0.0, 1.0)


@pytest.mark.parametrize(("successes", "n", "level"), [(-1, 5, 0.95), (6, 5, 0.95), (1, 5, 95), (1, 5, 0.0)])
def test_wilson_refuses(successes: int, n: int, level: float) -> None:
    with pytest.raises(ValueError, match="give"):
        wilson(successes, n, level)


@pytest.mark.parametrize("level", [0.8, 0.95])
def test_wilson_coverage_is_nominal(level: float) -> None:
    """The exact coverage at n = 200, averaged over p, is the level: that is what the score interval is known for."""
    n = 200
    bounds = [wilson(k, n, level) for k in range(n + 1)]
    ps = np.linspace(0.02, 0.98, 97)
    coverage = [
        sum(math.comb(n, k) * p**k * (1 - p) ** (n - k) for k, (low, high) in enumerate(bounds) if low <= p <= high)
        for p in ps
    ]
    assert np.mean(coverage) == pytest.approx(level, abs=0.003)


@pytest.mark.parametrize(
    ("counts", "low", "high"),
    [
        ((14, 5, 0, 22), 0.011, 0.226),  # Altman et al., Statistics with Confidence, 2000, Table 6.2
        ((1, 1, 7, 12), -0.507, -0.026),  # Bentur et al., 2009, in Fagerland, Lydersen and Laake, 2014
    ],
)
def test_paired_interval_published(counts: tuple[int, int, int, int], low: float, high: float) -> None:
    result = paired_difference(*outcomes(*counts))
    assert (result.low, result.high) == pytest.approx((low, high), abs=5e-4)


def test_paired_interval_by_hand() -> None:
    """e, f, g, h = 60, 10, 5, 25: eh - fg = 1450, less n/2 = 50 makes 1400; margins 70, 30, 65, 35."""
    result = paired_difference(*outcomes(60, 10, 5, 25))
    phi = 1400 / math.sqrt(70 * 30 * 65 * 35)
    (l1, u1), (l2, u2) = wilson(70, 100), wilson(65, 100)
    below = (0.70 - l1) ** 2 + (u2 - 0.65) ** 2 - 2 * phi * (0.70 - l1) * (u2 - 0.65)
    above = (u1 - 0.70) ** 2 + (0.65 - l2) ** 2 - 2 * phi * (u1 - 0.70) * (0.65 - l2)
    assert result.difference == pytest.approx(0.05)
    assert result.low == pytest.approx(0.05 - math.sqrt(below))
    assert result.high == pytest.approx(0.05 + math.sqrt(above))


def test_negative_correlation_is_not_corrected() -> None:
    """e, f, g, h = 5, 40, 35, 20: eh - fg = -1300 enters as it is, and widens the interval."""
    result = paired_difference(*outcomes(5, 40, 35, 20))
    phi = -1300 / math.sqrt(45 * 55 * 40 * 60)
    (l1, _), (_, u2) = wilson(45, 100), wilson(40, 100)
    below = (0.45 - l1) ** 2 + (u2 - 0.40) ** 2 - 2 * phi * (0.45 - l1) * (u2 - 0.40)
    assert result.low == pytest.approx(0.05 - math.sqrt(below))


def test_swapping_the_networks_mirrors_the_result() -> None:
    a, b = outcomes(40, 20, 7, 13)
    one, other = paired_difference(a, b, 0.9), paired_difference(b, a, 0.9)
    assert (one.difference, one.low, one.high) == pytest.approx((-other.difference, -other.high, -other.low))
    assert one.p_value == other.p_value
    assert (one.only_a, one.only_b) == (other.only_b, other.only_a) == (20, 7)


def test_equal_outcomes_and_extremes() -> None:
    same = paired_difference(*outcomes(30, 0, 0, 10))
    assert same.difference == 0.0
    assert same.p_value == 1.0
    assert same.low < 0 < same.high
    for counts in ((40, 0, 0, 0), (0, 40, 0, 0), (0, 0, 40, 0), (0, 0, 0, 40), (1, 0, 0, 0)):
        result = paired_difference(*outcomes(*counts))
        assert -1 <= result.low <= result.difference <= result.high <= 1


def test_result_is_json_and_counts_add_up() -> None:
    a, b = outcomes(3, 4, 5, 6)
    result = paired_difference(a, b)
    assert json.loads(json.dumps(to_json(result), allow_nan=False)) == asdict(result)
    assert (result.both, result.only_a, result.only_b, result.neither, result.n) == (3, 4, 5, 6, 18)


@pytest.mark.parametrize(
    ("only_a", "only_b", "p"),
    [
        (12, 2, Fraction(2 * (1 + 14 + 91), 2**14)),  # Armitage and Berry's two media: 0.0129
        (5, 0, Fraction(1, 16)),
        (1, 0, Fraction(1)),
        (3, 3, Fraction(1)),
        (0, 0, Fraction(1)),
    ],
)
def test_mcnemar_by_hand(only_a: int, only_b: int, p: Fraction) -> None:
    assert mcnemar(only_a, only_b) == mcnemar(only_b, only_a) == pytest.approx(float(p), rel=1e-12)


def test_mcnemar_of_many_images() -> None:
    """Where factorials overflow a float it agrees with the continuity-corrected normal tail."""
    z = (5100 - 4900 - 1) / math.sqrt(10_000)
    assert mcnemar(4900, 5100) == pytest.approx(math.erfc(z / math.sqrt(2)), rel=1e-3)
    assert mcnemar(0, 10_000) == 0.0


@pytest.mark.parametrize("cells", [(0.5, 0.15, 0.05, 0.3), (0.75, 0.1, 0.1, 0.05), (0.1, 0.4, 0.4, 0.1)])
def test_paired_interval_covers_the_difference(cells: tuple[float, ...]) -> None:
    """1,500 draws of 100 images: at least nominal within three standard errors, and not much above it."""
    draws = np.random.default_rng(11).multinomial(100, cells, size=1500)
    truth = cells[1] - cells[2]
    results = [paired_difference(*outcomes(*draw)) for draw in draws]
    coverage = np.mean([result.low <= truth <= result.high for result in results])
    assert 0.933 < coverage < 0.985


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ([True, False], [True]),
        ([1, 0], [True, False]),
        ([0.5, 0.2], [0.1, 0.3]),
        ([[True]], [[True]]),
        (np.zeros(0, dtype=bool), np.zeros(0, dtype=bool)),
    ],
)
def test_other_outcomes_are_refused(a: object, b: object) -> None:
    with pytest.raises(ValueError, match="give two bool arrays"):
        paired_difference(a, b)
