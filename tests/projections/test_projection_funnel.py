"""Funnel pruning: its counts against the inequality and against all counts where there are few."""

import itertools
import random

import numpy as np
import pytest
import torch
from torch import Tensor

from robcomp.projections import funnel, funnel_, funnel_counts, l0


def falls(counts: list[int], totals: list[int]) -> bool:
    pairs = itertools.pairwise(zip(counts, totals, strict=True))
    return all(c * m > d * n or c == d == 0 for (c, n), (d, m) in pairs)


def nonzeros(tensors: list[Tensor]) -> list[int]:
    return [int(t.count_nonzero()) for t in tensors]


def layers(seed: int, count: int, largest: int) -> tuple[list[Tensor], int]:
    """Flat layers of unlike sizes and scales, and a budget between 5 and 60 per cent."""
    rng, g = random.Random(seed), torch.Generator().manual_seed(seed)
    sizes = [rng.randint(largest // 4, largest) for _ in range(count)]
    tensors = [torch.randn(n, generator=g) * rng.choice([0.5, 1.0, 2.0]) for n in sizes]
    return tensors, int(rng.uniform(0.05, 0.6) * sum(sizes))


@pytest.mark.parametrize("totals", [[3, 4, 2], [5, 2, 3], [1, 6, 1, 3], [4, 4, 4]], ids=str)
def test_all_counts_of_tiny_layers(totals: list[int]) -> None:
    """Feasible, within k, feasible counts untouched, nothing left over that a layer could take."""
    changed = 0
    for counts in itertools.product(*[range(n + 1) for n in totals]):
        for k in {sum(counts), sum(totals), max(0, sum(counts) - 1)}:
            result = funnel_counts(counts, totals, k)
            assert falls(result, totals)
            assert sum(result) <= k
            assert all(0 <= c <= n for c, n in zip(result, totals, strict=True))
            if falls(counts, totals) and sum(counts) <= k:
                assert result == list(counts)
                continue
            changed += 1
            for layer in range(len(totals)):
                more = [c + (i == layer) for i, c in enumerate(result)]
                in_order = layer == 0 or falls(more[layer - 1 : layer + 1], totals[layer - 1 : layer + 1])
                assert sum(result) == k or more[layer] > totals[layer] or not in_order
    assert changed > 50


@pytest.mark.parametrize("seed", range(100))
def test_layers_with_zeros_never_get_more_than_they_have(seed: int) -> None:
    rng = random.Random(seed)
    totals = [rng.choice([0, 1, 5, 40, 300]) for _ in range(rng.randint(1, 7))]
    present = [rng.randint(0, n) for n in totals]
    counts = [rng.randint(0, n) for n in present]
    k = rng.randint(0, sum(totals))
    result = funnel_counts(counts, totals, k, present)
    real = [i for i, n in enumerate(totals) if n]
    assert falls([result[i] for i in real], [totals[i] for i in real])
    assert sum(result) <= k
    assert all(c <= n for c, n in zip(result, present, strict=True))
    again = funnel_counts(result, totals, k, present)
    assert again == result


def test_counts_by_hand() -> None:
    assert funnel_counts([50, 50, 50], [100, 100, 100], 150) == [51, 50, 49]
    assert funnel_counts([2, 60], [10, 100], 62) == [6, 56]
    assert funnel_counts([4, 4], [4, 4], 8) == [4, 3]  # a full network cannot fall: one weight goes
    assert funnel_counts([1, 1, 0], [3, 3, 3], 2) == [2, 0, 0]  # the end may be empty
    assert funnel_counts([0, 0], [3, 3], 0) == [0, 0]


def test_feasible_l0_projection_is_the_result() -> None:
    tensors = [torch.full((4,), 3.0), torch.tensor([2.0, 0.1, 0.2, -2.0]), torch.tensor([0.3, 0.1, 1.0, -0.0])]
    result = funnel(tensors, 7)
    assert nonzeros(result) == [4, 2, 1]
    assert all(torch.equal(a, b) for a, b in zip(result, l0(tensors, 7), strict=True))


def test_each_layer_keeps_its_largest_ties_to_the_lower_index() -> None:
    tensors = [torch.tensor([0.2, -0.3, 0.1, 0.2]), torch.full((4,), 5.0)]
    first, second = funnel(tensors, 4)
    assert first.tolist() == pytest.approx([0.2, -0.3, 0, 0.2])
    assert second.tolist() == [5.0, 0, 0, 0]  # 2 and 2 would not fall
    first, second = funnel([torch.tensor([0.2, -0.2, 0.2, 0.2]), torch.full((4,), 5.0)], 4)
    assert first.tolist() == pytest.approx([0.2, -0.2, 0.2, 0])


@pytest.mark.parametrize("seed", range(30))
@pytest.mark.parametrize(("count", "largest", "factor"), [(2, 300, 1.001), (3, 60, 1.3)])
def test_squared_error_near_that_of_the_best_counts(count: int, largest: int, factor: float, seed: int) -> None:
    tensors, k = layers(seed, count, largest)
    result = funnel(tensors, k)
    assert falls(nonzeros(result), [len(t) for t in tensors])
    grids = np.meshgrid(*[np.arange(len(t) + 1) for t in tensors], indexing="ij")
    allowed = sum(grids) <= k
    for (a, s), (b, t) in itertools.pairwise(zip(grids, tensors, strict=True)):
        allowed &= (a * len(t) > b * len(s)) | ((a == 0) & (b == 0))
    lost = [np.concatenate([[0.0], np.cumsum(np.sort(t.double().numpy() ** 2))])[::-1] for t in tensors]
    best = sum(error[grid] for error, grid in zip(lost, grids, strict=True))[allowed].min()
    got = sum(float((t - r).double().square().sum()) for t, r in zip(tensors, result, strict=True))
    assert got <= factor * best * (1 + 1e-9)


def test_zero_layers_and_tensors_without_entries() -> None:
    some = torch.tensor([1.0, 2.0, 0.0])
    assert nonzeros(funnel([some, torch.empty(0, 3), torch.zeros(3)], 9)) == [2, 0, 0]
    assert nonzeros(funnel([torch.zeros(3), some], 9)) == [0, 0]  # no density below 0, and zeros cannot be filled
    negative = [torch.tensor([1.0, -0.0]), torch.tensor([-0.0, 0.0])]
    assert all(torch.equal(a.signbit(), b.signbit()) for a, b in zip(funnel(negative, 1), negative, strict=True))


def test_in_place_twin_and_refusals() -> None:
    tensors, k = layers(0, 3, 60)
    wanted = funnel(tensors, k)
    addresses = [t.data_ptr() for t in tensors]
    funnel_(tensors, k)
    assert all(torch.equal(a, b) for a, b in zip(tensors, wanted, strict=True))
    assert [t.data_ptr() for t in tensors] == addresses
    for refused in (lambda: funnel(tensors, -1), lambda: funnel_counts([1], [1], -1)):
        with pytest.raises(ValueError, match=r"^funnel: k=-1 is negative"):
            refused()
