"""Projections on constraint sets: pure functions, and unchecked in-place twins (`name_`) for inner loops."""

from robcomp.projections import codebook
from robcomp.projections.apportionment import apportion
from robcomp.projections.balls import box, box_, l2_ball, l2_ball_, linf_ball, linf_ball_, linf_box, linf_box_
from robcomp.projections.codebook import Codebook
from robcomp.projections.funnel_set import funnel, funnel_, funnel_counts
from robcomp.projections.l0_ball import l0, l0_, l0_masks, l0_per_layer
from robcomp.projections.rank import factors, greedy_ranks, pooled_ranks, ranks_of_fraction, stored_numbers
from robcomp.projections.redundant_filters import redundant, redundant_
from robcomp.projections.structured import expand, group_count, group_mask, group_norms, group_size, groups

__all__ = [
    "Codebook",
    "apportion",
    "box",
    "box_",
    "codebook",
    "expand",
    "factors",
    "funnel",
    "funnel_",
    "funnel_counts",
    "greedy_ranks",
    "group_count",
    "group_mask",
    "group_norms",
    "group_size",
    "groups",
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
    "redundant",
    "redundant_",
    "stored_numbers",
]
