"""Sharing out a budget in whole units: the method of largest remainders with lower and upper bounds, exactly.

All arithmetic is that of integers and fractions, so that no unit is lost to rounding however large the budget is.
"""

import math
from collections.abc import Sequence
from fractions import Fraction


def apportion(
    budget: int,
    ideal: Sequence[float],
    caps: Sequence[int],
    sizes: Sequence[int] | None = None,
    floors: Sequence[int] | None = None,
) -> list[int]:
    """Whole numbers n_l with floors_l <= n_l <= caps_l and sum n_l sizes_l <= budget, in proportion to `ideal`.

    The real solution is x_l = min(max(s ideal_l, floors_l), caps_l) with the scale s that spends the budget (1 where
    the ideals do so themselves): what overflows a cap goes to the others in proportion. Parts of ideal 0 get more than
    their floor only once all others are at their caps, then in proportion to the caps. x is rounded down, and what is
    left goes out one unit each by the largest remainder, ties to the lower index.

    sizes: what one unit of a part costs, 1 each if None. Then the sum equals min(budget, sum of caps). Otherwise whole
    units are handed out in this way again and again until no unit of any part below its cap fits in what is left.

    ValueError: lengths that differ, ideals that are negative or not finite, sizes below 1, floors that are negative,
    above their caps or, together, above the budget. Source: the method of Hamilton (Balinski and Young, 1982).
    """
    sizes = [1] * len(caps) if sizes is None else [int(size) for size in sizes]
    counts = [0] * len(caps) if floors is None else [int(floor) for floor in floors]
    caps = [int(cap) for cap in caps]
    left = int(budget) - _check(budget, ideal, caps, sizes, counts)
    wish = [Fraction(float(value)) for value in ideal]
    # In each round some part with a remainder finds no room for its next unit and drops out, so rounds <= parts.
    while open_parts := [i for i, n in enumerate(counts) if n < caps[i] and sizes[i] <= left]:
        left += sum(counts[i] * sizes[i] for i in open_parts)
        bounds = ([of[i] for i in open_parts] for of in (caps, sizes, counts))
        shares = _shares(left, [wish[i] for i in open_parts], *bounds)
        for i, share in zip(open_parts, shares, strict=True):
            counts[i] = math.floor(share)
            left -= counts[i] * sizes[i]
        remainders = {i: share - counts[i] for i, share in zip(open_parts, shares, strict=True) if share > counts[i]}
        for i in sorted(remainders, key=lambda i: -remainders[i]):
            if sizes[i] <= left:
                counts[i] += 1
                left -= sizes[i]
    return counts


def _check(
    budget: int, ideal: Sequence[float], caps: Sequence[int], sizes: Sequence[int], floors: Sequence[int]
) -> int:
    """What the floors cost together; ValueError for what cannot be apportioned."""
    if not len(ideal) == len(caps) == len(sizes) == len(floors):
        lengths = [len(ideal), len(caps), len(sizes), len(floors)]
        raise ValueError(f"apportion: ideal, caps, sizes, floors have the lengths {lengths}; give one of each per part")
    if not all(math.isfinite(value) and value >= 0 for value in ideal):
        raise ValueError(f"apportion: ideal={list(ideal)} must be finite and not negative")
    if any(size < 1 for size in sizes):
        raise ValueError(f"apportion: sizes={list(sizes)}; one unit must cost at least 1")
    if not all(0 <= floor <= cap for floor, cap in zip(floors, caps, strict=True)):
        raise ValueError(f"apportion: floors={list(floors)} must lie between 0 and caps={list(caps)}")
    least = sum(floor * size for floor, size in zip(floors, sizes, strict=True))
    if least > budget:
        raise ValueError(f"apportion: the floors take {least}, and the budget is {budget}")
    return least


def _shares(
    budget: int, ideal: Sequence[Fraction], caps: Sequence[int], sizes: Sequence[int], floors: Sequence[int]
) -> list[Fraction]:
    """The real solution x: it spends the budget, or all caps are reached."""
    weights = [value if value else None for value in ideal]
    full = sum((cap if w else floor) * size for w, cap, size, floor in zip(weights, caps, sizes, floors, strict=True))
    if full <= budget:  # the parts that want something are full: the others by their caps
        floors = [cap if w else floor for w, cap, floor in zip(weights, caps, floors, strict=True)]
        weights = [None if w else Fraction(cap) for w, cap in zip(weights, caps, strict=True)]

    def at(scale: Fraction) -> list[Fraction]:
        bounds = zip(weights, caps, floors, strict=True)
        return [
            Fraction(floor) if w is None else min(max(scale * w, Fraction(floor)), Fraction(cap))
            for w, cap, floor in bounds
        ]

    def cost(scale: Fraction) -> Fraction:
        return sum((x * size for x, size in zip(at(scale), sizes, strict=True)), Fraction(0))

    # The cost never falls, and is linear between the scales where a part leaves its floor or meets its cap.
    bends = {bound / w for w, cap, floor in zip(weights, caps, floors, strict=True) if w for bound in (floor, cap)}
    corners = sorted(bends | {Fraction(0)})
    low, high = 0, len(corners) - 1
    if cost(corners[high]) <= budget:
        return at(corners[high])
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if cost(corners[middle]) <= budget else (low, middle)
    below, above = cost(corners[low]), cost(corners[high])
    return at(corners[low] + (corners[high] - corners[low]) * (budget - below) / (above - below))
