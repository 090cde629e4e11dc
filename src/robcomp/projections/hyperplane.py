"""The nearest point of a hyperplane inside the box of valid pixels: one linearised decision boundary of FAB."""

import torch
from torch import Tensor

MOST_STEPS = 100  # of Newton's method; images take two to seven


@torch.no_grad()
def nearest_on_hyperplane(x: Tensor, w: Tensor, b: Tensor, norm: str, low: float = 0.0, high: float = 1.0) -> Tensor:
    """argmin over z of |z - x|_norm subject to <w, z> + b = 0 and low <= z <= high, row by row.

    x and w [N, D], b [N], float32 (or float64), norm 'Linf' or 'L2'; x lies inside the box. Where the hyperplane
    misses the box the result is the corner nearest to it: each entry at the bound on the hyperplane's side. An entry
    with w = 0 stays. Exact without sorting: the entries move by min(t, room) (Linf) or min(t |w|, room) (L2), where one
    number t a row makes up for <w, x> + b. Unchecked: attacks call it at each step.

    Source: the projection of FAB (Croce and Hein, 2020, section 2.1), found there by sorting.
    """
    scale = w.abs().amax(1).clamp_min(torch.finfo(w.dtype).tiny)  # so that the squares of small gradients do not vanish
    w = w / scale[:, None]
    excess = (w * x).sum(1) + b / scale
    weight = w.abs()
    direction = -w.sign() * excess.sign()[:, None]
    room = torch.where(direction > 0, high - x, x - low)
    slope = weight if norm == "Linf" else weight.square()
    level = water_level(slope, weight * room, excess.abs()).clamp_max(torch.finfo(w.dtype).max)[:, None]
    step = level if norm == "Linf" else level * weight
    return (x + direction * torch.minimum(step, room)).clamp_(low, high)


@torch.no_grad()
def water_level(a: Tensor, cap: Tensor, total: Tensor) -> Tensor:
    """The least t [N] >= 0 with sum_i min(t a_i, cap_i) = total, row by row; infinity where all caps are too little.

    a, cap [N, D] and total [N], none negative. The sum is concave and piecewise linear in t, so Newton's method from
    t = 0 climbs monotonically and ends on the exact piece after finitely many steps: once no row reaches another
    cap, and so none rises. A step costs two sums over the entries and one host synchronisation.
    """
    level = torch.zeros_like(total)
    ends = torch.where(a > 0, cap / a, 0)  # the level at which each entry reaches its cap
    for _ in range(MOST_STEPS):
        full = ends <= level[:, None]
        left = total - torch.where(full, cap, 0).sum(1)
        higher = torch.where(left > 0, left / torch.where(full, 0, a).sum(1), level)
        if not bool((higher > level).any()):
            break
        level = torch.maximum(level, higher)
    return level
