"""Redundant pruning: against the greedy rule with direct distances, filter by filter."""

import importlib

import pytest
import torch
from torch import Tensor

from robcomp.projections import redundant, redundant_

PHIS = [0.05, 0.3, 0.7, 1.0]


def layers(seed: int, shapes: list[tuple[int, ...]]) -> list[Tensor]:
    """Filters that are noisy, scaled copies of a few directions, every fifth of them zero."""
    g = torch.Generator().manual_seed(seed)
    result = []
    for shape in shapes:
        length = torch.Size(shape[1:]).numel()
        few = torch.randn(3, length, generator=torch.Generator().manual_seed(length))
        noise = torch.randn(shape[0], length, generator=g) * torch.rand(shape[0], 1, generator=g)
        rows = few[torch.randint(3, (shape[0],), generator=g)] + 0.3 * noise
        rows *= 0.5 + torch.rand(shape[0], 1, generator=g)
        rows[::5] = 0
        result.append(rows.view(shape))
    return result


def greedily(tensors: list[Tensor], phi: float) -> list[Tensor]:
    """The rule, slowly."""
    kept: list[tuple[torch.Size, Tensor]] = []
    result = [t.clone() for t in tensors]
    for t in result:
        for row in t:
            a = row.double().flatten()
            near = [(a - b).norm() < phi * max(a.norm(), b.norm()) for kind, b in kept if kind == t.shape[1:]]
            if any(near):
                row.zero_()
            elif a.any():
                kept.append((t.shape[1:], a))
    return result


@pytest.mark.parametrize("phi", PHIS)
@pytest.mark.parametrize("seed", range(5))
def test_agrees_with_the_greedy_rule(seed: int, phi: float) -> None:
    tensors = layers(seed, [(12, 4, 3, 3), (7, 36), (9, 4, 3, 3), (11, 36), (10, 5)])
    result, wanted = redundant(tensors, phi), greedily(tensors, phi)
    assert all(torch.equal(a, b) for a, b in zip(result, wanted, strict=True))
    assert all(torch.equal(a, b) for a, b in zip(redundant(result, phi), result, strict=True))
    lost = sum(int(t.count_nonzero()) - int(r.count_nonzero()) for t, r in zip(tensors, result, strict=True))
    assert (lost > 0) == (phi > 0.05)


def test_groups_of_more_than_one_block_of_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    module = importlib.import_module("robcomp.projections.redundant_filters")
    monkeypatch.setattr(module, "BLOCK", 16)
    monkeypatch.setattr(module, "BAND", 0.1)  # measure many pairs again, in several portions
    monkeypatch.setattr(module, "PAIRS", 7)
    tensors = layers(0, [(70, 4), (53, 4)])
    for phi in (0.1, 0.5):
        pairs = zip(redundant(tensors, phi), greedily(tensors, phi), strict=True)
        assert all(torch.equal(a, b) for a, b in pairs)


def test_only_equal_shapes_are_compared_across_layers() -> None:
    row = torch.arange(1.0, 9.0)
    conv, turned, linear = row.view(1, 2, 2, 2), row.view(1, 4, 2, 1), row.view(1, 8)
    result = redundant([conv, turned, linear, conv.clone(), linear.clone()], 0.5)
    assert [bool(t.any()) for t in result] == [True, True, True, False, False]


def test_a_removed_filter_does_not_remove_others() -> None:
    chain = torch.tensor([[1.0, 0.0], [1.0, 0.4], [1.0, 0.8]])  # each near its neighbour, the ends are not
    assert redundant([chain], 0.5)[0].any(dim=1).tolist() == [True, False, True]


def test_at_the_threshold_stays() -> None:
    rows = torch.tensor([[2.0, 4.0], [1.0, 2.0], [2.0, -4.0]])  # |a - b| is half of |a|, exactly
    assert redundant([rows], 0.5)[0].any(dim=1).tolist() == [True, True, True]
    above = torch.nextafter(rows[1], torch.tensor(9.0))
    assert redundant([torch.stack([rows[0], above])], 0.5)[0].any(dim=1).tolist() == [True, False]


def test_distances_far_below_the_rounding_of_a_gram_matrix() -> None:
    """1e9 times closer than the norms: the Gram matrix sees 0 for both pairs."""
    base = torch.tensor([1.0, 1.0], dtype=torch.float64)
    tensors = [torch.stack([base, base + torch.tensor([2e-9, 0.0]), base + torch.tensor([5e-10, 0.0])])]
    assert redundant(tensors, 1e-9)[0].any(dim=1).tolist() == [True, True, False]


@pytest.mark.parametrize("phi", PHIS)
def test_exact_copies_leave_one(phi: float) -> None:
    result = redundant([torch.ones(5, 3), torch.ones(2, 3)], phi)
    assert [int(t.any(dim=1).sum()) for t in result] == [1, 0]


def test_zero_phi_removes_nothing_and_others_are_refused() -> None:
    tensors = [torch.ones(5, 3)]
    assert torch.equal(redundant(tensors, 0.0)[0], tensors[0])
    for phi in (-0.1, 1.1, float("nan")):
        with pytest.raises(ValueError, match=r"^redundant: phi="):
            redundant(tensors, phi)
    with pytest.raises(ValueError, match=r"^redundant: input holds infinity"):
        redundant([torch.full((2, 2), float("inf"))], 0.5)


def test_in_place_twin() -> None:
    tensors = [t.contiguous(memory_format=torch.channels_last) for t in layers(0, [(12, 4, 3, 3), (9, 4, 3, 3)])]
    wanted, strides = redundant(tensors, 0.7), [t.stride() for t in tensors]
    redundant_(tensors, 0.7)
    assert all(torch.equal(a, b) for a, b in zip(tensors, wanted, strict=True))
    assert [t.stride() for t in tensors] == strides
