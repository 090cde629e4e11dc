"""The projection on a hyperplane inside the box, against one that sorts in float64."""

import pytest
import torch
from tiny import rng
from torch import Tensor

from robcomp.projections.hyperplane import nearest_on_hyperplane, water_level

ROWS, ENTRIES = 30, 50


def level_by_sorting(a: Tensor, cap: Tensor, total: Tensor) -> Tensor:
    """The level at which sum_i min(t a_i, cap_i) = total, by walking over the caps in order, in float64."""
    levels = []
    for slopes, caps, wanted in zip(a.double().tolist(), cap.double().tolist(), total.double().tolist(), strict=True):
        entries = sorted((c / s, s, c) for s, c in zip(slopes, caps, strict=True) if s > 0)
        below, level = 0.0, torch.inf
        for i, (end, _, c) in enumerate(entries):
            slope = sum(s for _, s, _ in reversed(entries[i:]))  # afresh: differences of sums would lose the last ones
            if below + end * slope >= wanted:
                level = (wanted - below) / slope
                break
            below += c
        levels.append(0.0 if wanted == 0 else level)
    return torch.tensor(levels, dtype=torch.float64)


def planes(seed: int, share: float = 0.5) -> tuple[Tensor, Tensor, Tensor]:
    """x with entries at both bounds, w over six decades with zeros, and b at `share` of what x can reach."""
    x = (torch.rand(ROWS, ENTRIES, generator=rng(seed)) * 1.4 - 0.2).clamp(0, 1)
    w = torch.randn(ROWS, ENTRIES, generator=rng(seed + 1))
    w = w * 10 ** (torch.rand(ROWS, ENTRIES, generator=rng(seed + 2)) * -6)
    w[:, 3:6] = 0
    value, sign = (w * x).sum(1), torch.where(torch.arange(ROWS) % 2 == 0, 1, -1)
    far = torch.where(sign > 0, w.clamp_min(0).sum(1), w.clamp_max(0).sum(1))
    return x, w, -(value + share * (far - value))


@pytest.mark.parametrize("share", [0.001, 0.1, 0.5, 0.9, 0.999])
def test_the_water_level_is_that_of_sorting(share: float) -> None:
    a, cap = (torch.rand(ROWS, ENTRIES, generator=rng(seed)) ** 4 for seed in (1, 2))
    a[:, :3], cap[:, :3] = 0, 0
    cap[:, 3:6] = 0
    total = share * cap.sum(1)
    assert torch.allclose(torch.minimum(water_level(a, cap, total)[:, None] * a, cap).sum(1), total, rtol=1e-5)
    wide = [t.double() for t in (a, cap, total)]  # the level itself depends on rounding where almost all caps are full
    assert torch.allclose(water_level(*wide), level_by_sorting(*wide), rtol=1e-6)


def test_water_levels_at_the_ends() -> None:
    a = torch.tensor([[1.0, 2], [1, 2], [1, 2], [0, 0], [0, 0], [1, 2], [1, 1e-30]])
    cap = torch.tensor([[1.0, 1], [1, 1], [1, 1], [0, 0], [0, 0], [0, 0], [1, 0]])
    total = torch.tensor([0, 2, 2.1, 0, 1, 0, 0.5])
    level = water_level(a, cap, total)
    assert torch.equal(level, torch.tensor([0, 1, torch.inf, 0, torch.inf, 0, 0.5]))
    assert water_level(a[:0], cap[:0], total[:0]).shape == (0,)


@pytest.mark.parametrize("norm", ["Linf", "L2"])
@pytest.mark.parametrize("share", [0.0, 0.05, 0.6, 0.95])
def test_nearest_point_on_the_plane_inside_the_box(norm: str, share: float) -> None:
    x, w, b = planes(3, share)
    z = nearest_on_hyperplane(x, w, b, norm)
    assert 0 <= z.min() <= z.max() <= 1
    assert torch.equal(z[:, 3:6], x[:, 3:6])
    assert torch.allclose((w * z).sum(1), -b, atol=1e-5)

    excess = (w * x).sum(1) + b
    room = torch.where(w * excess[:, None] < 0, 1 - x, x)
    slope = w.abs() if norm == "Linf" else w.square()
    level = level_by_sorting(slope, w.abs() * room, excess.abs())[:, None]
    step = torch.minimum(level if norm == "Linf" else level * w.abs(), room.double()) * (w != 0)
    order = torch.inf if norm == "Linf" else 2
    assert torch.allclose((z - x).double().norm(order, dim=1), step.norm(order, dim=1), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("norm", ["Linf", "L2"])
def test_no_other_point_of_the_plane_is_nearer(norm: str) -> None:
    x, w, b = (t.double() for t in planes(6))
    order = torch.inf if norm == "Linf" else 2
    z = nearest_on_hyperplane(x, w, b, norm)
    for seed in range(30):
        rival = z + 10.0 ** -(seed % 5) * torch.randn(x.shape, generator=rng(seed), dtype=x.dtype)
        rival = nearest_on_hyperplane(rival.clamp(0, 1), w, b, "L2")
        assert torch.allclose((w * rival).sum(1), -b)
        assert ((rival - x).norm(order, dim=1) >= (z - x).norm(order, dim=1) - 1e-9).all()


@pytest.mark.parametrize("norm", ["Linf", "L2"])
def test_a_plane_beyond_the_box_gives_the_corner_towards_it(norm: str) -> None:
    x, w, b = planes(9, share=1.5)
    upwards = ((w * x).sum(1) + b < 0)[:, None]
    corner = torch.where((w > 0) == upwards, 1.0, 0.0)
    assert torch.equal(nearest_on_hyperplane(x, w, b, norm), torch.where(w == 0, x, corner))


@pytest.mark.parametrize("norm", ["Linf", "L2"])
def test_degenerate_planes(norm: str) -> None:
    x = torch.rand(3, 4, generator=rng(1))
    none = torch.zeros_like(x)
    assert torch.equal(nearest_on_hyperplane(x, none, torch.tensor([0.0, 1, -1]), norm), x)
    assert nearest_on_hyperplane(x[:0], none[:0], torch.zeros(0), norm).shape == (0, 4)
    x, w, b = planes(12)
    tiny = nearest_on_hyperplane(x, w * 1e-25, b * 1e-25, norm)  # squares that vanish in float32
    assert torch.allclose(tiny, nearest_on_hyperplane(x, w, b, norm), atol=1e-4)


def test_other_bounds() -> None:
    x, w = torch.zeros(1, 2), torch.tensor([[1.0, 1.0]])
    z = nearest_on_hyperplane(x, w, torch.tensor([-3.0]), "L2", low=-2, high=5)
    assert torch.allclose(z, torch.tensor([[1.5, 1.5]]))
    z = nearest_on_hyperplane(x, w, torch.tensor([3.0]), "Linf", low=-1, high=1)
    assert torch.equal(z, torch.tensor([[-1.0, -1.0]]))
