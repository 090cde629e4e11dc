"""Every projection against every contract. A new projection is one row in ROWS."""

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from robcomp.projections import box, codebook, funnel, groups, l0, l0_per_layer, l2_ball, linf_ball, linf_box, redundant

EPS = 0.3
BITS = 3
GROUPS = 3
PHI = 1.0  # random filters of few weights are seldom nearer than that, but some are
SHAPES = [(6, 5, 3, 2), (4, 7)]  # what a row's tensors look like unless a contract says otherwise


@dataclass
class Row:
    """One projection on a list of tensors, and its constraint set in the simplest terms."""

    project: Callable[[list[Tensor]], list[Tensor]]
    feasible: Callable[[list[Tensor]], bool]
    name: str  # how it calls itself when it refuses an input
    factor: float | None = 1.0  # squared distance against that of any feasible point; None: bounded in its own tests
    rounding: float = 0.0  # by how much a result may differ from its own projection


def centre(t: Tensor) -> Tensor:
    """A fixed reference point like t, inside [0, 1]."""
    index = torch.arange(t.numel(), device=t.device).view(t.shape)
    return ((index * 37 % 101).float() / 100).to(t.dtype)


def each(function: Callable[..., Tensor], *arguments: float | str) -> Callable[[list[Tensor]], list[Tensor]]:
    return lambda ts: [function(t, *arguments) for t in ts]


def around(function: Callable[..., Tensor], *arguments: float) -> Callable[[list[Tensor]], list[Tensor]]:
    return lambda ts: [function(t, centre(t), *arguments) for t in ts]


def nonzeros(ts: list[Tensor]) -> int:
    return sum(int(t.count_nonzero()) for t in ts)


def within(t: Tensor, radius_of: Callable[[Tensor], Tensor]) -> bool:
    slack = 4 * torch.finfo(t.dtype).eps  # the set itself is rounded to the dtype
    return bool((radius_of((t - centre(t)).double()) <= EPS + slack).all())


def in_linf(ts: list[Tensor]) -> bool:
    return all(within(t, torch.abs) for t in ts)


def in_l2(ts: list[Tensor]) -> bool:
    return all(within(t, lambda offset: offset.unsqueeze(-1).flatten(1).norm(dim=1)) for t in ts)


def in_box(ts: list[Tensor]) -> bool:
    return all(bool(((t >= 0) & (t <= 1)).all()) for t in ts)


def few_values(ts: list[Tensor]) -> bool:
    return all(t[t != 0].unique().numel() <= 2**BITS for t in ts)


def few_groups(scheme: str) -> Callable[[list[Tensor]], bool]:
    def used(t: Tensor) -> int:
        inputs, positions = (*t.shape[1:2], 1)[0], math.prod(t.shape[2:])
        present = t.reshape(t.shape[0], inputs, positions) != 0  # [out, in, kh kw]
        per_group = {"filter": present.flatten(1).T, "column": present.flatten(1), "channel": present.mT.flatten(0, 1)}
        return int(per_group[scheme].any(dim=0).sum())

    return lambda ts: all(used(t) <= GROUPS for t in ts)


def falling(ts: list[Tensor]) -> bool:
    counts = [(nonzeros([t]), t.numel()) for t in ts if t.numel()]
    pairs = itertools.pairwise(counts)
    return nonzeros(ts) <= 20 and all(c * m > d * n or c == d == 0 for (c, n), (d, m) in pairs)


def distinct(ts: list[Tensor]) -> bool:
    rows = [(t.shape[1:], row.double().flatten()) for t in ts for row in t if row.any()]
    pairs = ((a, b) for (kind, a), (other, b) in itertools.combinations(rows, 2) if kind == other)
    return all((a - b).norm() >= PHI * max(a.norm(), b.norm()) * (1 - 1e-12) for a, b in pairs)


ROWS = {
    "l0": Row(lambda ts: l0(ts, 20), lambda ts: nonzeros(ts) <= 20, "l0"),
    "l0_none": Row(lambda ts: l0(ts, 0), lambda ts: nonzeros(ts) == 0, "l0"),
    "l0_all": Row(lambda ts: l0(ts, 10**6), lambda ts: True, "l0"),
    "l0_per_layer": Row(
        lambda ts: l0_per_layer(ts, [9] * len(ts)), lambda ts: all(nonzeros([t]) <= 9 for t in ts), "l0_per_layer"
    ),
    "filters": Row(each(groups, "filter", GROUPS), few_groups("filter"), "groups"),
    "columns": Row(each(groups, "column", GROUPS), few_groups("column"), "groups"),
    "channels": Row(each(groups, "channel", GROUPS), few_groups("channel"), "groups"),
    "funnel": Row(lambda ts: funnel(ts, 20), falling, "funnel", None),
    "redundant": Row(lambda ts: redundant(ts, PHI), distinct, "redundant", None),
    "codebook": Row(lambda ts: [codebook.project(t, BITS)[0] for t in ts], few_values, "codebook.project", None),
    "linf_ball": Row(around(linf_ball, EPS), in_linf, "linf_ball"),
    "l2_ball": Row(around(l2_ball, EPS), in_l2, "l2_ball", rounding=2.0),
    "box": Row(each(box, 0.0, 1.0), in_box, "box"),
    "linf_box": Row(around(linf_box, EPS, 0.0, 1.0), lambda ts: in_linf(ts) and in_box(ts), "linf_box"),
}
DTYPES = [torch.float32, torch.bfloat16, torch.float16, torch.float64]


@pytest.fixture(params=ROWS.values(), ids=ROWS.keys())
def row(request: pytest.FixtureRequest) -> Row:
    return request.param


def draw(seed: int, dtype: torch.dtype = torch.float32, shapes: list[tuple[int, ...]] = SHAPES) -> list[Tensor]:
    g = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=g).to(dtype) for shape in shapes]


def same_bits(a: list[Tensor], b: list[Tensor]) -> bool:
    return all(torch.equal(s, t) and torch.equal(s.signbit(), t.signbit()) for s, t in zip(a, b, strict=True))


def distance(a: list[Tensor], b: list[Tensor]) -> float:
    return sum(float((s.double() - t.double()).square().sum()) for s, t in zip(a, b, strict=True))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("seed", range(3))
def test_result_is_feasible_and_input_untouched(row: Row, dtype: torch.dtype, seed: int) -> None:
    given = draw(seed, dtype)
    before = [t.clone() for t in given]
    assert row.feasible(row.project(given))
    assert same_bits(given, before)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_idempotent_and_feasible_input_unchanged(row: Row, dtype: torch.dtype) -> None:
    once = row.project(draw(1, dtype))
    twice = row.project(once)
    if not row.rounding:
        assert same_bits(once, twice)
    tolerance = row.rounding * torch.finfo(dtype).eps
    assert all(torch.allclose(s, t, rtol=tolerance, atol=tolerance) for s, t in zip(once, twice, strict=True))
    inside = [(c + (t - c) / 2).to(dtype) for t, c in zip(once, map(centre, once), strict=True)]
    if row.feasible(inside):  # convex sets: a point well inside keeps its very bits
        assert same_bits(row.project(inside), inside)


def test_no_random_feasible_point_is_nearer(row: Row) -> None:
    if row.factor is None:
        pytest.skip("not exact: bounded in tests/projections/test_projection_{codebook,funnel,redundant}.py")
    given = draw(2)
    nearest = row.project(given)
    for seed in range(50):
        noise = draw(100 + seed)
        scale = 10 ** -(seed % 4)  # from far away to the neighbourhood of the claimed optimum
        rival = row.project([t + scale * n for t, n in zip(nearest, noise, strict=True)])
        if seed % 2:  # a rival on another support, but with the input's own values
            rival = row.project([t * (n > 0) for t, n in zip(given, noise, strict=True)])
        assert row.feasible(rival)
        assert distance(given, nearest) <= row.factor * distance(given, rival) * (1 + 1e-6)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_dtype_shape_device_and_strides_kept(row: Row, dtype: torch.dtype) -> None:
    given = [t.contiguous(memory_format=torch.channels_last) for t in draw(3, dtype, [(4, 3, 5, 5), (2, 6, 3, 3)])]
    given += draw(4, dtype, [(7, 8), (9,)])
    result = row.project(given)
    for t, r in zip(given, result, strict=True):
        assert (r.dtype, r.device, r.shape, r.stride()) == (t.dtype, t.device, t.shape, t.stride())
        assert not r.requires_grad


def test_memory_format_does_not_change_the_values(row: Row) -> None:
    given = [t.round() for t in draw(5, shapes=[(4, 3, 5, 5)])]  # rounded: many ties
    turned = [t.contiguous(memory_format=torch.channels_last) for t in given]
    assert all(torch.equal(s, t) for s, t in zip(row.project(given), row.project(turned), strict=True))


@pytest.mark.parametrize("shape", [(1,), (1, 1), (0, 3), (3, 0)])
def test_empty_and_one_element_tensors(row: Row, shape: tuple[int, ...]) -> None:
    result = row.project([torch.full(shape, 5.0)])
    assert result[0].shape == shape
    assert row.feasible(result)
    assert row.project([]) == []


def test_all_zero(row: Row) -> None:
    zeros = [torch.zeros(shape) for shape in SHAPES]
    assert row.feasible(row.project(zeros))


def test_requires_grad_input(row: Row) -> None:
    given = [t.requires_grad_() for t in draw(6)]
    assert all(not t.requires_grad for t in row.project(given))


def test_nan_is_refused_by_name(row: Row) -> None:
    given = draw(7)
    given[1][2, 3] = float("nan")
    with pytest.raises(ValueError, match=f"^{row.name}: input holds NaN"):
        row.project(given)


@pytest.mark.parametrize("k", [0, 1, 7, 20, 57, 100, 207, 208, 500])
def test_l0_counts_are_exact_with_ties(k: int) -> None:
    given = [t.round() for t in draw(8)]  # a handful of distinct magnitudes
    assert nonzeros(l0(given, k)) == min(k, nonzeros(given))
    each_k = [nonzeros([t]) for t in l0_per_layer(given, [k, k])]
    assert each_k == [min(k, nonzeros([t])) for t in given]
