"""What is special to the codebook: its bound against the optimum, its frozen zero, its counts."""

from itertools import combinations

import pytest
import torch
from torch import Tensor

from robcomp.projections import Codebook
from robcomp.projections.codebook import fit, optimal, project, quantise


def laplace(count: int, seed: int) -> Tensor:
    g = torch.Generator().manual_seed(seed)
    uniform = torch.rand(count, generator=g) - 0.5
    return -0.05 * uniform.sign() * (1 - 2 * uniform.abs()).log()


def error(values: Tensor, codebook: Codebook) -> float:
    return float((quantise(values, codebook).double() - values.double()).square().sum())


def other_samples() -> dict[str, Tensor]:
    values = laplace(1200, 1)
    return {
        "pruned": values * (values.abs() > 0.1),
        "one-sided": values.abs() + 0.01,
        "heavy tail": values / (laplace(1200, 2).abs() + 0.01),
        "atoms": values.mul(100).round().div(100) + 1e-4 * laplace(1200, 3),
    }


@pytest.mark.parametrize(("bits", "count"), [(2, 2000), (4, 2000), (8, 1000)])
@pytest.mark.parametrize("seed", range(2))
def test_within_a_tenth_of_the_optimum_on_laplace_samples(bits: int, count: int, seed: int) -> None:
    values = laplace(count, seed)
    assert error(values, fit(values, bits)) <= 1.1 * error(values, optimal(values, bits))


@pytest.mark.parametrize("name", other_samples())
def test_near_the_optimum_on_other_samples(name: str) -> None:
    values = other_samples()[name]
    for bits in (1, 3, 6):
        assert error(values, fit(values, bits)) <= 1.2 * error(values, optimal(values, bits))


def test_optimal_against_every_choice_of_intervals() -> None:
    g = torch.Generator().manual_seed(0)
    for _ in range(20):
        points = torch.randn(8, generator=g).sort().values
        rivals = []
        for cuts in combinations(range(9), 3):  # two centres and zero: three intervals, one of them zero's
            pieces = points.tensor_split(cuts)
            for chosen in combinations(pieces, 2):
                means = torch.stack([p.mean() for p in chosen if p.numel()] or [points.new_ones(())])
                rivals.append(error(points, Codebook(means.sort().values)))
        assert error(points, optimal(points, 1)) == pytest.approx(min(rivals), rel=1e-5)


@pytest.mark.parametrize("bits", [1, 4, 8])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_values_are_the_centres_and_zeros_stay(bits: int, dtype: torch.dtype) -> None:
    values = laplace(3000, 4).to(dtype).view(30, 100)
    values[:, ::3] = 0
    result, codebook = project(values, bits)
    centres = codebook.centres
    assert centres.dtype == torch.float32
    assert 0 < centres.numel() <= 2**bits
    assert bool((centres.diff() > 0).all() and (centres != 0).all())
    assert torch.isin(result[result != 0], centres.to(dtype)).all()
    assert bool((result[values == 0] == 0).all())
    assert int(result.count_nonzero()) <= int(values.count_nonzero())


def test_a_small_entry_snaps_to_zero() -> None:
    values = torch.tensor([1.0, 1.1, -1.0, -1.1, 1e-4])
    result, codebook = project(values, 1)
    assert codebook.centres.tolist() == pytest.approx([-1.05, 1.05])
    assert result[4] == 0


def test_each_entry_takes_its_nearest_centre_and_the_lower_at_a_tie() -> None:
    book = Codebook(torch.tensor([-2.0, 1.0, 3.0]))
    values = torch.tensor([-9.0, -1.0, -0.99, 0.5, 0.51, 2.0, 2.1, 0.0])
    assert quantise(values, book).tolist() == [-2, -2, 0, 0, 1, 1, 3, 0]


def test_no_more_values_than_centres_means_unchanged() -> None:
    values = torch.tensor([1e-30, -3.0, 0.0, 1e30, 1.0, 1.0, 1.0 + 2**-23])
    result, codebook = project(values, 3)
    assert torch.equal(result, values)
    assert codebook.centres.numel() == 5
    exactly_as_many = torch.logspace(-9, 9, 256).repeat(3)
    assert torch.equal(project(exactly_as_many, 8)[0], exactly_as_many)


def test_every_centre_is_used_when_values_abound() -> None:
    values = torch.cat([torch.full((500,), 0.1), torch.linspace(5, 6, 500), torch.linspace(-6, -5.9, 500)])
    _, codebook = project(values, 6)
    assert codebook.centres.numel() == 64  # the atom at 0.1 takes one; the start gave it nearly none
    assert (quantise(values, codebook) - values).abs().max() < 0.05


def test_warm_start_is_not_worse_and_may_be_of_another_sign_or_size() -> None:
    values = laplace(20000, 6)
    book = fit(values, 5)
    moved = values + 1e-3 * laplace(20000, 7)
    assert error(moved, fit(moved, 5, start=book, iterations=4)) <= error(moved, book)
    cold = error(values, fit(values, 5))
    for start in (Codebook(torch.tensor([-1.0])), Codebook(torch.linspace(50, 60, 32)), fit(values, 3)):
        book = fit(values, 5, start=start, iterations=60)
        assert book.centres.numel() == 32
        assert error(values, book) < 1.2 * cold


def test_centres_stay_inside_their_cells_whatever_the_dynamic_range() -> None:
    tiny, huge = laplace(300, 8).abs() * 1e-20, -laplace(300, 9).abs() * 1e15
    start = Codebook(torch.tensor([-3e13, -1e13, 3e-22, 9e-22]))
    book = fit(torch.cat([tiny, huge]), 2, start=start, iterations=1)
    # Next to sums of 1e16 those of the tiny cells are lost in rounding.
    assert book.centres.sign().tolist() == [-1, -1, 1, 1]
    assert bool((book.centres[2:] >= tiny.min()).all() and (book.centres[2:] <= tiny.max()).all())


@pytest.mark.parametrize("bits", [0, 17, -1, 2.5])
def test_bad_bits_are_named(bits: float) -> None:
    for function in (fit, project, optimal):
        with pytest.raises(ValueError, match=f"{function.__name__}: bits={bits}"):
            function(torch.ones(3), bits)


def test_bad_inputs_are_named() -> None:
    with pytest.raises(ValueError, match=r"^codebook\.fit: input holds NaN"):
        fit(torch.tensor([1.0, float("nan")]), 2)
    with pytest.raises(ValueError, match=r"^codebook\.quantise: input holds NaN"):
        quantise(torch.tensor([float("nan")]), Codebook(torch.ones(1)))
    with pytest.raises(ValueError, match=r"^codebook\.project: input holds infinity"):
        project(torch.tensor([1.0, float("inf")]), 2)
    with pytest.raises(ValueError, match="the start has 4 centres"):
        fit(torch.ones(3), 1, start=Codebook(torch.arange(1.0, 5.0)))
