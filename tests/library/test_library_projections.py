"""`rc.projections` as a user calls them: one tensor or several, of any shape, and one sentence for what cannot be."""

from collections.abc import Callable

import numpy as np
import pytest
import torch

import robcomp as rc

P = rc.projections
W = torch.randn(6, 5, 3, 3, generator=torch.Generator().manual_seed(0))


def test_a_tensor_gives_a_tensor_and_several_give_several() -> None:
    assert torch.equal(P.l0(W, 100), P.l0([W], 100)[0])
    assert P.l0(W, 100).count_nonzero() == 100
    assert torch.equal(P.l0(W, np.int64(100)), P.l0(W, 100))
    assert torch.equal(P.l0_masks(W, 100), P.l0(W, 100) != 0)
    assert torch.equal(P.redundant(W, 1.0), P.redundant((W,), 1.0)[0])
    first, second = P.l0([W, W[0, 0]], 10)
    assert first.count_nonzero() + second.count_nonzero() == 10


@pytest.mark.parametrize("shape", [(), (7,), (4, 5), (2, 3, 4), (2, 3, 4, 5)])
def test_any_shape_is_projected(shape: tuple[int, ...]) -> None:
    w = torch.full(shape, 2.0)
    count = w.numel() // 2
    assert P.l0(w, count).count_nonzero() == count
    assert P.linf_ball(w, torch.zeros(shape), 0.5).max() == 0.5
    assert P.box(w, 0, 1).max() == 1
    assert P.codebook.project(w, 2)[0].shape == w.shape


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: P.l0(W, 0.1), r"^l0: k=0\.1 is not a whole number; give the number of entries to keep"),
        (lambda: P.l0(W, -3), "^l0: k=-3 is negative"),
        (lambda: P.l0(W.numpy(), 3), "^l0: input is a ndarray; give torch tensors"),
        (lambda: P.l0(W * torch.nan, 3), "^l0: input holds NaN"),
        (lambda: P.l0_per_layer([W], [3, 4]), "1 tensors but 2 budgets"),
        (lambda: P.l0_masks(W, "3"), "^l0_masks: k='3' is not a whole number"),
        (lambda: P.funnel([W], 0.5), r"^funnel: k=0\.5 is not a whole number"),
        (lambda: P.groups(W, "rows", 3), "scheme='rows'; give filter, column or channel"),
        (lambda: P.groups(W, "filter", True), "keep=True is not a whole number; give the number of groups"),
        (lambda: P.factors(W, 3), r"the shape is \[6, 5, 3, 3\]; give a matrix, as in weight\.flatten\(1\)"),
        (lambda: P.factors(W.flatten(1), 0.5), r"rank=0\.5 is not a whole number"),
        (lambda: P.redundant(W, 2), "phi=2; give a relative distance"),
        (lambda: P.linf_ball(W, W, "8/255"), "eps='8/255' is no radius; give a number"),
        (lambda: P.linf_ball(W, W[:1], 0.1), "and its centre"),
        (lambda: P.codebook.project(W, 17), "bits=17; allowed are whole numbers from 1 to 16"),
    ],
)
def test_what_cannot_be_projected_gets_one_sentence(call: Callable[[], object], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence) as caught:
        call()
    assert "\n" not in str(caught.value)
