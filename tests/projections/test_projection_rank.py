"""Sharing out ranks under a budget: against the definition, and against every other choice where there are few."""

import itertools

import pytest
import torch
from torch import Tensor

from robcomp.projections import factors, greedy_ranks, pooled_ranks, ranks_of_fraction, stored_numbers

SHAPES = [(6, 9), (8, 5), (4, 4)]


def matrices(seed: int, shapes: list[tuple[int, int]] = SHAPES) -> list[Tensor]:
    g = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=g) * (3.0**-i) for i, shape in enumerate(shapes)]


def spectra(given: list[Tensor]) -> list[Tensor]:
    return [torch.linalg.svdvals(matrix) for matrix in given]


def lost(given: list[Tensor], ranks: tuple[int, ...] | list[int]) -> float:
    """Squared distance of the matrices to their nearest ones of these ranks."""
    return sum(float(s[rank:].square().sum()) for s, rank in zip(spectra(given), ranks, strict=True))


def used(ranks: tuple[int, ...] | list[int], shapes: list[tuple[int, int]] = SHAPES) -> int:
    return sum(stored_numbers(rank, shape) for rank, shape in zip(ranks, shapes, strict=True))


def complete(ranks: list[int] | tuple[int, ...]) -> list[int]:
    """A matrix whose factors are no smaller than itself is stored whole, so it has all its ranks."""
    whole = [stored_numbers(rank, shape) == shape[0] * shape[1] for rank, shape in zip(ranks, SHAPES, strict=True)]
    return [min(shape) if w else rank for rank, shape, w in zip(ranks, SHAPES, whole, strict=True)]


def test_stored_numbers_by_hand() -> None:
    assert [stored_numbers(rank, (6, 9)) for rank in (1, 2, 3, 4, 6)] == [15, 30, 45, 54, 54]


@pytest.mark.parametrize("rank", range(1, 5))
@pytest.mark.parametrize("shape", [(4, 7), (7, 4), (4, 4)])
def test_factors_are_the_nearest_product_and_balanced(shape: tuple[int, int], rank: int) -> None:
    (matrix,) = matrices(0, [shape])
    U, V = factors(matrix, rank)
    assert (U.shape, V.shape) == ((shape[0], rank), (rank, shape[1]))
    distance = float((matrix - U @ V).square().sum())
    assert distance == pytest.approx(lost([matrix], [rank]), abs=1e-5)
    assert torch.allclose(U.T @ U, V @ V.T, atol=1e-5)  # both sqrt(S) times orthonormal columns
    for seed in range(30):
        g = torch.Generator().manual_seed(seed)
        scale = 10 ** -(seed % 4)
        rival = (U + scale * torch.randn(U.shape, generator=g)) @ (V + scale * torch.randn(V.shape, generator=g))
        assert distance <= float((matrix - rival).square().sum()) + 1e-5


def test_nan_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match=r"^factors: input holds NaN"):
        factors(torch.tensor([[1.0, float("nan")]]), 1)


@pytest.mark.parametrize("budget", range(36, 111, 3))
@pytest.mark.parametrize("seed", range(3))
def test_the_pool_keeps_the_largest_values_that_fit(seed: int, budget: int) -> None:
    given = matrices(seed)
    values = sorted(((float(v), i) for i, s in enumerate(spectra(given)) for v in s), reverse=True)
    best = None
    for count in range(len(values) + 1):
        kept = [max(1, sum(owner == i for _, owner in values[:count])) for i in range(3)]
        if used(kept) <= budget:
            best = kept
    assert pooled_ranks(spectra(given), SHAPES, budget) == best


@pytest.mark.parametrize("rule", [pooled_ranks, greedy_ranks])
def test_the_budget_is_kept_and_all_of_it_gives_every_rank(rule) -> None:
    given = matrices(1)
    for budget in range(36, 112):
        ranks = rule(spectra(given), SHAPES, budget)
        assert used(ranks) <= budget
        assert all(1 <= rank <= min(shape) for rank, shape in zip(ranks, SHAPES, strict=True))
    assert complete(rule(spectra(given), SHAPES, sum(a * b for a, b in SHAPES))) == [6, 5, 4]
    with pytest.raises(ValueError, match="rank 1 everywhere takes 36 numbers, and the budget is 35"):
        rule(spectra(given), SHAPES, 35)


@pytest.mark.parametrize("seed", range(4))
def test_greedy_is_within_one_step_of_the_best_choice_of_all(seed: int) -> None:
    """As for any greedy knapsack: with one more step's room it is at least as good as the best without."""
    given = matrices(seed)
    better = 0
    for budget in range(36, 111):
        choices = [r for r in itertools.product(*(range(1, min(s) + 1) for s in SHAPES)) if used(r) <= budget]
        best = min(lost(given, complete(ranks)) for ranks in choices)
        greedy = lost(given, greedy_ranks(spectra(given), SHAPES, budget))
        assert greedy >= best - 1e-6
        roomy = min(budget + max(a + b for a, b in SHAPES), sum(a * b for a, b in SHAPES))
        assert lost(given, greedy_ranks(spectra(given), SHAPES, roomy)) <= best + 1e-6
        pooled = lost(given, complete(pooled_ranks(spectra(given), SHAPES, budget)))
        better += (greedy < pooled - 1e-6) - (pooled < greedy - 1e-6)
    assert better > 20


def test_greedy_prefers_the_cheap_rank() -> None:
    """Two equal spectra: the small matrix's ranks cost 8 numbers, the large one's 120."""
    spectrum = torch.tensor([4.0, 3.0, 2.0, 1.0])
    shapes = [(60, 60), (4, 4)]
    assert pooled_ranks([spectrum, spectrum], shapes, 250) == [2, 1]
    assert greedy_ranks([spectrum, spectrum], shapes, 250) == [1, 4]


def test_the_published_fraction_counts_singular_values() -> None:
    given = [torch.tensor([9.0, 5.0, 1.0]), torch.tensor([4.0, 3.0, 2.0, 0.5])]
    for fraction, ranks in [
        (0, [1, 1]),
        (0.28, [1, 1]),
        (2 / 7, [2, 1]),
        (3 / 7, [2, 1]),
        (5 / 7, [2, 3]),
        (1, [3, 4]),
    ]:
        assert ranks_of_fraction(given, fraction) == ranks


def test_an_empty_list_has_no_ranks() -> None:
    assert greedy_ranks([], [], 5) == []
