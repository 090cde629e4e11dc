"""Sharing out a budget: totals to the unit, and closeness to the real solution found by bisection."""

import random
from fractions import Fraction

import pytest

from robcomp.projections import apportion

Case = tuple[int, list[float], list[int], list[int], list[int]]


def case(seed: int) -> Case:
    """budget, ideal, caps, sizes, floors of a feasible problem, about a third of the ideals 0."""
    rng = random.Random(seed)
    count = rng.randint(1, 6)
    caps = [rng.choice([0, 1, 7, 100, 10**7]) for _ in range(count)]
    floors = [rng.randint(0, min(cap, 9)) for cap in caps]
    sizes = [rng.choice([1, 3, 10, 999]) for _ in range(count)]
    ideal = [rng.choice([0.0, rng.random(), rng.random() * 1e6]) for _ in range(count)]
    least = sum(n * size for n, size in zip(floors, sizes, strict=True))
    most = sum(n * size for n, size in zip(caps, sizes, strict=True))
    return rng.randint(least, most + 10), ideal, caps, sizes, floors


def real_solution(budget: int, ideal: list[float], caps: list[int], floors: list[int]) -> list[float]:
    """min(max(s ideal, floor), cap) with s by bisection; units of size 1."""
    if sum(cap if w else floor for w, cap, floor in zip(ideal, caps, floors, strict=True)) <= budget:
        floors = [cap if w else floor for w, cap, floor in zip(ideal, caps, floors, strict=True)]
        ideal = [0.0 if w else float(cap) for w, cap in zip(ideal, caps, strict=True)]
    low, high = 0.0, 1e20
    for _ in range(300):
        s = (low + high) / 2
        x = [min(max(s * w, floor), cap) for w, cap, floor in zip(ideal, caps, floors, strict=True)]
        low, high = (s, high) if sum(x) <= budget else (low, s)
    return [min(max(low * w, floor), cap) for w, cap, floor in zip(ideal, caps, floors, strict=True)]


@pytest.mark.parametrize("seed", range(200))
def test_bounds_hold_and_the_budget_is_spent(seed: int) -> None:
    budget, ideal, caps, sizes, floors = case(seed)
    counts = apportion(budget, ideal, caps, sizes, floors)
    assert all(type(n) is int and f <= n <= cap for n, f, cap in zip(counts, floors, caps, strict=True))
    left = budget - sum(n * size for n, size in zip(counts, sizes, strict=True))
    assert left >= 0
    assert all(n == cap or size > left for n, cap, size in zip(counts, caps, sizes, strict=True))


@pytest.mark.parametrize("seed", range(200))
def test_units_of_one_spend_all_and_stay_within_one_unit_of_the_real_solution(seed: int) -> None:
    _, ideal, caps, _, floors = case(seed)
    budget = random.Random(seed).randint(sum(floors), sum(caps) + 5)
    counts = apportion(budget, ideal, caps, floors=floors)
    assert sum(counts) == min(budget, sum(caps))
    x = real_solution(budget, ideal, caps, floors)
    assert all(abs(n - value) < 1 + 1e-6 * (1 + value) for n, value in zip(counts, x, strict=True))


@pytest.mark.parametrize("budget", [10**7 + 1, 10**8 - 1, 10**8])
def test_no_unit_is_lost_in_large_budgets(budget: int) -> None:
    ideal = [0.1 * (i + 1) for i in range(37)]
    counts = apportion(budget, ideal, [10**8] * 37)
    assert sum(counts) == budget
    exact = [Fraction(value) * budget / sum(map(Fraction, ideal)) for value in ideal]
    assert all(abs(n - value) < 1 for n, value in zip(counts, exact, strict=True))


def test_by_hand() -> None:
    assert apportion(10, [1, 1, 1], [10, 10, 10]) == [4, 3, 3]  # a tie goes to the lower index
    assert apportion(10, [3.5, 3.4, 3.1], [10, 10, 10]) == [4, 3, 3]  # the remainder .5 is the largest
    assert apportion(10, [8, 1, 1], [4, 9, 9]) == [4, 3, 3]  # what overflows a cap is spread
    assert apportion(12, [2, 1, 0], [20, 20, 20]) == [8, 4, 0]  # ideals that do not spend the budget are scaled
    assert apportion(9, [0, 0], [4, 8]) == [3, 6]  # nothing wanted: by the caps
    assert apportion(9, [1, 0, 0], [3, 4, 8]) == [3, 2, 4]  # what no one wants goes to the others by their caps
    assert apportion(10, [9, 1], [10, 10], floors=[0, 4]) == [6, 4]
    assert apportion(99, [1, 1], [3, 4]) == [3, 4]
    assert apportion(10, [1, 1], [9, 9], sizes=[4, 3]) == [1, 2]  # 10/7 and 10/7: the tie has room for 3, not for 4
    assert apportion(5, [], []) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"ideal": [1.0], "caps": [1, 2]}, "lengths"),
        ({"ideal": [1.0, 1.0], "caps": [1, 2], "sizes": [1]}, "lengths"),
        ({"ideal": [-1.0, 1.0], "caps": [1, 2]}, "not negative"),
        ({"ideal": [float("nan"), 1.0], "caps": [1, 2]}, "finite"),
        ({"ideal": [float("inf"), 1.0], "caps": [1, 2]}, "finite"),
        ({"ideal": [1.0, 1.0], "caps": [1, 2], "sizes": [0, 1]}, "at least 1"),
        ({"ideal": [1.0, 1.0], "caps": [1, 2], "floors": [2, 0]}, "floors"),
        ({"ideal": [1.0, 1.0], "caps": [1, 2], "floors": [-1, 0]}, "floors"),
        ({"ideal": [1.0, 1.0], "caps": [9, 9], "floors": [2, 2]}, "the floors take 4, and the budget is 3"),
    ],
)
def test_refusals(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=f"^apportion: .*{message}"):
        apportion(3, **arguments)


def test_a_negative_budget_is_refused() -> None:
    with pytest.raises(ValueError, match="the budget is -1"):
        apportion(-1, [1.0], [1])
