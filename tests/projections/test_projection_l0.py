"""What is special to the l0 projection: its tie rule, its masks, its in-place core."""

import pytest
import torch
from torch import Tensor

from robcomp.projections import l0, l0_, l0_masks, l0_per_layer
from robcomp.projections.l0_ball import _first_k, _kth_by_topk


def by_sorting(tensors: list[Tensor], k: int) -> list[Tensor]:
    """The definition, slowly: sort by magnitude, stable, and keep the first k."""
    flat = torch.cat([t.reshape(-1) for t in tensors])
    keep = torch.zeros_like(flat, dtype=torch.bool)
    keep[flat.abs().sort(descending=True, stable=True).indices[:k]] = True
    parts = torch.where(keep, flat, 0).split([t.numel() for t in tensors])
    return [part.view(t.shape) for part, t in zip(parts, tensors, strict=True)]


@pytest.mark.parametrize("k", [0, 1, 3, 17, 100, 240, 299, 300, 1000])
@pytest.mark.parametrize("step", [0.0, 0.5, 5.0])
def test_agrees_with_a_stable_sort(k: int, step: float) -> None:
    g = torch.Generator().manual_seed(k)
    tensors = [torch.randn(shape, generator=g) for shape in [(10, 10), (5, 4, 5), (100,)]]
    if step:
        tensors = [(t / step).round() * step for t in tensors]
    assert all(torch.equal(a, b) for a, b in zip(l0(tensors, k), by_sorting(tensors, k), strict=True))


def test_ties_go_to_the_earlier_tensor_and_the_lower_index() -> None:
    a, b = torch.tensor([1.0, -2.0, 2.0]), torch.tensor([[-2.0, 3.0], [2.0, 2.0]])
    first, second = l0([a, b], 4)
    assert first.tolist() == [0, -2, 2]
    assert second.tolist() == [[-2, 3], [0, 0]]


def test_the_budget_is_global() -> None:
    small, large = torch.ones(4), torch.full((4,), 5.0)
    assert [int(t.count_nonzero()) for t in l0([small, large], 4)] == [0, 4]
    assert [int(t.count_nonzero()) for t in l0_per_layer([small, large], [3, 1])] == [3, 1]


@pytest.mark.parametrize("k", [0, 2, 3, 5, 6, 7])
def test_masks_never_hold_zeros(k: int) -> None:
    tensors = [torch.tensor([0.0, 1.0, -0.0]), torch.tensor([2.0, -3.0, 0.0])]
    masks = l0_masks(tensors, k)
    assert all(m.dtype == torch.bool for m in masks)
    assert sum(int(m.sum()) for m in masks) == min(k, 3)
    assert all(torch.equal(t * m, p) for t, m, p in zip(tensors, masks, l0(tensors, k), strict=True))


def test_in_place_core_on_parameters() -> None:
    weights = [torch.nn.Parameter(torch.randn(3, 4)), torch.nn.Parameter(torch.randn(5))]
    expected, storage = l0(weights, 6), [w.data_ptr() for w in weights]
    l0_(weights, 6)
    assert all(torch.equal(w, e) for w, e in zip(weights, expected, strict=True))
    assert storage == [w.data_ptr() for w in weights]
    assert all(w.requires_grad for w in weights)


def test_mixed_dtypes_share_one_budget_exactly() -> None:
    third = 1 / 3  # rounds up in bfloat16, so the bfloat16 entry is the larger one
    low, high = l0([torch.tensor([third]), torch.tensor([third], dtype=torch.bfloat16)], 1)
    assert (float(low), float(high) > 0) == (0.0, True)


def test_infinite_entries_are_kept_and_dropped_without_nan() -> None:
    (kept,) = l0([torch.tensor([float("inf"), 1.0, -float("inf")])], 1)
    assert kept.tolist() == [float("inf"), 0.0, 0.0]


def test_bad_budgets_are_named() -> None:
    with pytest.raises(ValueError, match="l0: k=-1"):
        l0([torch.ones(3)], -1)
    with pytest.raises(ValueError, match="2 tensors but 1 budgets"):
        l0_per_layer([torch.ones(3), torch.ones(3)], [1])
    with pytest.raises(ValueError, match="l0_masks: input holds NaN"):
        l0_masks([torch.tensor([float("nan"), 1.0])], 1)


@pytest.mark.parametrize("k", [1, 40, 100, 101, 160, 199])
def test_the_selection_for_accelerators_on_this_one(k: int) -> None:
    values = torch.randn(200, generator=torch.Generator().manual_seed(k)).mul(3).round()
    mask = _first_k(values.abs(), _kth_by_topk(values.abs(), k), k)
    assert torch.equal(values * mask, by_sorting([values], k)[0])


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("k", [1, 40, 160, 199])
def test_the_accelerator_route_agrees_and_never_waits(k: int) -> None:
    tensors = [torch.randn(10, 10).mul(3).round(), torch.randn(100)]
    device = [t.cuda() for t in tensors]
    torch.cuda.set_sync_debug_mode("error")
    try:
        l0_(device, k)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert all(torch.equal(a.cpu(), b) for a, b in zip(device, l0(tensors, k), strict=True))
