"""Balls around a reference image and the box of valid pixels: what keeps an adversarial example admissible.

Each projection has a twin with a trailing underscore that works in place and checks nothing: an attack calls it once
per step, where a check for NaN would make the host wait for the device.
"""

from typing import TypeVar

import torch
from torch import Tensor

from robcomp.projections.checks import refuse_nan

Bound = TypeVar("Bound", float, Tensor)  # both ends of a box are numbers, or both are tensors


def linf_ball(x: Tensor, centre: Tensor, eps: float) -> Tensor:
    """argmin over z of |z - x|^2 subject to |z - centre|_inf <= eps.

    x, centre: same shape; the interval ends centre - eps and centre + eps are those of the dtype's arithmetic. Returns
    a new tensor like x. Raises ValueError for NaN or a negative eps. Source: Madry et al., ICLR 2018.
    """
    _check("linf_ball", x, centre, eps)
    return linf_ball_(_copy(x), centre, eps)


@torch.no_grad()
def linf_ball_(x: Tensor, centre: Tensor, eps: float) -> Tensor:
    """`linf_ball` in place, unchecked; returns x."""
    return x.clamp_(centre - eps, centre + eps)


def l2_ball(x: Tensor, centre: Tensor, eps: float) -> Tensor:
    """argmin over z of |z - x|^2 subject to |z_n - centre_n|_2 <= eps for every sample n.

    The norm runs over dims 1.. of x [N, ...], in float32 for half types. The radius holds up to rounding of x itself.
    Followed by `box` this is admissible (the box shrinks distances to a centre inside it) but in general not the
    nearest point of the intersection. Raises ValueError for NaN or a negative eps. Source: Madry et al., ICLR 2018.
    """
    _check("l2_ball", x, centre, eps)
    return l2_ball_(_copy(x), centre, eps)


@torch.no_grad()
def l2_ball_(x: Tensor, centre: Tensor, eps: float) -> Tensor:
    """`l2_ball` in place, unchecked; returns x."""
    wide = torch.promote_types(x.dtype, torch.float32)
    offset = x.to(wide) - centre.to(wide)
    norm = torch.linalg.vector_norm(offset.unsqueeze(-1).flatten(1), dim=1)
    norm = norm.view(-1, *[1] * (x.dim() - 1))
    # Written as a choice, not as a factor of 1: an admissible sample keeps its very bits.
    return x.copy_(torch.where(norm <= eps, x, (centre.to(wide) + offset * (eps / norm)).to(x.dtype)))


def box(x: Tensor, low: Bound, high: Bound) -> Tensor:
    """argmin over z of |z - x|^2 subject to low <= z <= high, entry by entry.

    low, high: numbers or tensors that broadcast to x. Returns a new tensor like x. Raises ValueError for NaN.
    """
    refuse_nan("box", x)
    return box_(_copy(x), low, high)


@torch.no_grad()
def box_(x: Tensor, low: Bound, high: Bound) -> Tensor:
    """`box` in place, unchecked; returns x."""
    return x.clamp_(low, high)


def linf_box(x: Tensor, centre: Tensor, eps: float, low: Bound, high: Bound) -> Tensor:
    """argmin over z of |z - x|^2 subject to |z - centre|_inf <= eps and low <= z <= high: exact.

    Both constraints are intervals entry by entry; where they meet - always, if the centre lies in the box - clamping to
    one and then to the other is the projection on their intersection. Errors as in `linf_ball`.
    """
    _check("linf_box", x, centre, eps)
    return linf_box_(_copy(x), centre, eps, low, high)


@torch.no_grad()
def linf_box_(x: Tensor, centre: Tensor, eps: float, low: Bound, high: Bound) -> Tensor:
    """`linf_box` in place, unchecked; returns x."""
    return linf_ball_(x, centre, eps).clamp_(low, high)


def _check(name: str, x: Tensor, centre: Tensor, eps: float) -> None:
    if isinstance(eps, str) or eps < 0:
        raise ValueError(f"{name}: eps={eps!r} is no radius; give a number from 0 on, such as 8 / 255")
    refuse_nan(name, x, centre)
    if x.shape != centre.shape:
        raise ValueError(f"{name}: x has the shape {list(x.shape)} and its centre {list(centre.shape)}; give the same")


def _copy(x: Tensor) -> Tensor:
    return x.detach().clone()
