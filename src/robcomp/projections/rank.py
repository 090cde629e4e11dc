"""Low rank under a budget of stored numbers: how many singular values each of several matrices keeps.

A matrix out x in of rank r is stored as its two factors, r (out + in) numbers, or as it is where that is not more. Of a
matrix P S Q^T the nearest of rank r keeps the r largest singular values, so the only question is how to share out the
ranks. Every matrix keeps at least rank 1.
"""

import heapq
from collections.abc import Sequence

import torch
from torch import Tensor

from robcomp.projections.checks import refuse_count, refuse_nan

Shape = tuple[int, int]


def stored_numbers(rank: int, shape: Shape) -> int:
    """How many numbers a matrix of `shape` = (out, in) takes at `rank`: its two factors, or itself if that is less."""
    out, inputs = shape
    return min(rank * (out + inputs), out * inputs)


def pooled_ranks(spectra: Sequence[Tensor], shapes: Sequence[Shape], budget: int) -> list[int]:
    """Ranks by one pool of all singular values, unweighted: the largest are kept, as many as `budget` can store.

    `spectra`: each matrix's singular values in descending order. Optimal for the summed squared distance per rank, not
    per stored number. Source: ALR, ATMC paper, baselines (there a fraction of the pool is given: `ranks_of_fraction`).
    ValueError where rank 1 everywhere is more than `budget`.
    """
    _check(shapes, budget)
    order = _pool(spectra)
    low, high = 0, len(order)  # the largest count whose ranks fit, by bisection: storage grows with the count
    while low < high:
        middle = (low + high + 1) // 2
        ranks = _ranks(order[:middle], len(spectra))
        fits = sum(map(stored_numbers, ranks, shapes)) <= budget
        low, high = (middle, high) if fits else (low, middle - 1)
    return _ranks(order[:low], len(spectra))


def ranks_of_fraction(spectra: Sequence[Tensor], fraction: float) -> list[int]:
    """Ranks where the largest floor(fraction * n) of all n singular values are kept, each matrix at least one.

    Source: the `prune_ratio` of ALR in the ATMC code.
    """
    order = _pool(spectra)
    return _ranks(order[: int(fraction * len(order) + 1e-9)], len(spectra))


def greedy_ranks(spectra: Sequence[Tensor], shapes: Sequence[Shape], budget: int) -> list[int]:
    """Ranks by the squared singular value that each next stored number buys, the best first, while `budget` lasts.

    A further rank of a matrix costs out + in numbers, less where the factors would reach the size of the matrix itself:
    then the rest of its spectrum comes at once. What no longer fits is passed over. ValueError where rank 1 everywhere
    is more than `budget`.
    """
    left = budget - _check(shapes, budget)
    squares = [spectrum.double().square() for spectrum in spectra]
    ranks = [1 if stored_numbers(1, shape) < shape[0] * shape[1] else min(shape) for shape in shapes]

    def offer(index: int) -> tuple[float, int, int, int] | None:
        """(-gain per number, matrix, its next rank, cost), or None for a matrix that is complete."""
        shape, rank = shapes[index], ranks[index]
        if rank >= min(shape):
            return None
        now, following = stored_numbers(rank, shape), stored_numbers(rank + 1, shape)
        complete = following == shape[0] * shape[1]
        gain = squares[index][rank:].sum() if complete else squares[index][rank]
        return -float(gain) / (following - now), index, min(shape) if complete else rank + 1, following - now

    heap = [entry for entry in map(offer, range(len(shapes))) if entry]
    heapq.heapify(heap)
    while heap:
        _, index, rank, cost = heapq.heappop(heap)
        if cost > left:
            continue
        left, ranks[index] = left - cost, rank
        if entry := offer(index):
            heapq.heappush(heap, entry)
    return ranks


def factors(matrix: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """U [out, rank] = P sqrt(S) and V [rank, in] = sqrt(S) Q^T of the largest singular values of `matrix` = P S Q^T.

    U V is the argmin over matrices of at most that rank of the squared distance to `matrix` (Eckart and Young, 1936).
    ValueError for NaN, another shape, or a rank that is no whole number from 0 on.
    """
    refuse_nan("factors", matrix)
    if matrix.dim() != 2:
        raise ValueError(f"factors: the shape is {list(matrix.shape)}; give a matrix, as in weight.flatten(1)")
    refuse_count("factors", "rank", rank, "singular values to keep")
    P, S, Q = torch.linalg.svd(matrix, full_matrices=False)
    root = S[:rank].sqrt()
    return P[:, :rank] * root, root[:, None] * Q[:rank]


def _check(shapes: Sequence[Shape], budget: int) -> int:
    """What rank 1 everywhere takes; ValueError where that is more than the budget."""
    least = sum(stored_numbers(1, shape) for shape in shapes)
    if least > budget:
        raise ValueError(f"rank 1 everywhere takes {least} numbers, and the budget is {budget}")
    return least


def _pool(spectra: Sequence[Tensor]) -> list[int]:
    """The matrix that each singular value of the pool belongs to, the largest value first; ties by matrix."""
    values = torch.cat([spectrum.double() for spectrum in spectra])
    owners = torch.cat([torch.full((len(spectrum),), i) for i, spectrum in enumerate(spectra)])
    return owners[values.argsort(descending=True, stable=True)].tolist()


def _ranks(owners: Sequence[int], count: int) -> list[int]:
    """How often each of `count` matrices owns one of the kept values; at least 1."""
    ranks = torch.bincount(torch.tensor(owners, dtype=torch.int64), minlength=count)
    return ranks.clamp(min=1).tolist()
