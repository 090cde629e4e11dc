"""Projections on constraint sets: pure functions, and unchecked in-place twins (`name_`) for inner loops."""

from robcomp.projections import codebook
from robcomp.projections.balls import box, box_, l2_ball, l2_ball_, linf_ball, linf_ball_, linf_box, linf_box_
from robcomp.projections.codebook import Codebook
from robcomp.projections.l0 import l0, l0_, l0_masks, l0_per_layer
from robcomp.projections.rank import factors, greedy_ranks, pooled_ranks, ranks_of_fraction, stored_numbers

__all__ = [
    "Codebook",
    "box",
    "box_",
    "codebook",
    "factors",
    "greedy_ranks",
    "l0",
    "l0_",
    "l0_masks",
    "l0_per_layer",
    "l2_ball",
    "l2_ball_",
    "linf_ball",
    "linf_ball_",
    "linf_box",
    "linf_box_",
    "pooled_ranks",
    "ranks_of_fraction",
    "stored_numbers",
]
