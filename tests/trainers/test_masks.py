"""Masks of units: one rewiring worked out by hand, its special cases, and random masks."""

import math

import pytest
import torch
from tiny import rng

from robcomp.trainers.compressors.masks import largest, random_masks, rewired, shares

A = torch.tensor([[5.0, 0.0, -1.0], [0.0, 2.0, 3.0]])
MU_A = torch.tensor([[1.0, -4.0, 0.5], [2.0, 1.0, -1.5]])  # mean over the active four: 1
B = torch.tensor([[0.3, -0.2, 0.0, 0.0]])
MU_B = torch.tensor([[-3.0, 3.0, 1.0, 2.0]])  # mean over the active two: 3


def test_one_rewiring_by_hand() -> None:
    """Shares 1/4 and 3/4 of the three that go (2 of A, 1 of B): 0.75 and 2.25, so 1 and 2 come back."""
    thinned, masks = rewired([A, B], [MU_A, MU_B], [A != 0, B != 0], 0.5, 6, "irregular")
    assert thinned[0].int().tolist() == [[1, 0, 0], [0, 0, 1]]  # |-1| and |2| left
    assert thinned[1].int().tolist() == [[1, 0, 0, 0]]
    assert masks[0].int().tolist() == [[1, 1, 0], [0, 0, 1]]  # |-4| is the largest momentum outside
    assert masks[1].int().tolist() == [[1, 1, 0, 1]]  # what has just left may come back


def test_what_has_no_momentum_comes_back_last() -> None:
    """B's share of 2 finds one place with a momentum, so A gets 2; where A is full, B takes what has none."""
    still = torch.tensor([[-3.0, 3.0, 0.0, 0.0]])
    _, masks = rewired([A, B], [MU_A, still], [A != 0, B != 0], 0.5, 6, "irregular")
    assert masks[0].int().tolist() == [[1, 1, 0], [1, 0, 1]]
    assert masks[1].int().tolist() == [[1, 1, 0, 0]]
    _, masks = rewired([A, B], [MU_A, still], [A != 0, B != 0], 0.5, 9, "irregular")
    assert masks[0].all()
    assert masks[1].int().tolist() == [[1, 1, 1, 0]]


def test_ties_go_to_the_lower_index() -> None:
    """Of equal magnitudes the first stays, of equal momenta the first comes back, zeros included."""
    w, mask = torch.tensor([[1.0, 1.0, 1.0, 1.0, 0.0, 0.0]]), torch.tensor([[True, True, True, True, False, False]])
    thinned, masks = rewired([w], [torch.zeros(1, 6)], [mask], 0.5, 4, "irregular")
    assert thinned[0].int().tolist() == [[1, 1, 0, 0, 0, 0]]
    assert masks[0].int().tolist() == [[1, 1, 1, 1, 0, 0]]
    momentum = torch.tensor([[9.0, 9.0, 1.0, 2.0, 2.0, 2.0]])
    assert rewired([w], [momentum], [mask], 0.5, 4, "irregular")[1][0].int().tolist() == [[1, 1, 0, 1, 1, 0]]


def test_one_rewiring_of_channels_by_hand() -> None:
    """A: 4 channels of 2 weights, B: 3 channels of 4. Of a budget of 16, 3 * 2 + 2 * 4 = 14 are in use; 2 are idle."""
    a = torch.tensor([[3.0, 1.0, 0.0, 2.0], [3.0, 1.0, 0.0, 2.0]])
    b = torch.tensor([[4.0, 1.0, 0.0]] * 4)
    mu_a = torch.tensor([[2.0, 0.0, 3.0, 1.0], [2.0, 5.0, 3.0, 1.0]])  # active mean 11/6; norms 8, 25, 18, 2
    mu_b = torch.tensor([[1.0, 3.0, 2.0]] * 4)  # active mean 2
    thinned, masks = rewired([a, b], [mu_a, mu_b], [a != 0, b != 0], 1 / 3, 16, "channel")
    assert thinned[0][0].int().tolist() == [1, 0, 0, 1]  # norms 18, 2, -, 8: the second leaves
    assert thinned[1][0].int().tolist() == [1, 0, 0]
    # 16 - 4 - 4 = 8 weights are free; A's share is 22/46 of them, 1.9 channels, B's 1.04: one of B, two of A
    assert masks[0][0].int().tolist() == [1, 1, 1, 1]
    assert masks[1][0].int().tolist() == [1, 1, 0]
    assert all(torch.equal(mask, mask[:1].expand_as(mask)) for mask in masks)


def test_a_nearly_full_layer_is_spared_where_that_is_asked_for() -> None:
    """9 of 10 active and most of the momentum: 0.1 * 9 weights go in place of 0.5 * 9. The other one is not spared."""
    full, other = torch.arange(10.0).view(1, 10), torch.arange(1.0, 11.0).view(1, 10)
    masks, momenta = [full != 0, other > 1], [torch.full((1, 10), 2.0), torch.full((1, 10), 1.0)]
    for spare, left in ((True, [8, 4]), (False, [4, 4])):
        thinned, _ = rewired([full, other], momenta, masks, 0.5, 18, "irregular", spare)
        assert [int(mask.sum()) for mask in thinned] == left
    thinned, _ = rewired([full, other], momenta[::-1], masks, 0.5, 18, "irregular", True)
    assert [int(mask.sum()) for mask in thinned] == [4, 8]


def test_free_weights_are_shared_out_as_weights_not_as_channels() -> None:
    """Equal shares of 12 free weights: six channels of one weight each, two of three."""
    a, b = torch.eye(1, 8), torch.zeros(3, 4)
    b[:, 0] = 1
    _, masks = rewired([a, b], [torch.ones(1, 8), torch.ones(3, 4)], [a != 0, b != 0], 0.0, 16, "channel")
    assert [int(mask[0].sum()) for mask in masks] == [7, 3]


def test_the_number_removed_is_exact_where_floats_are_not() -> None:
    """0.07 * 100 is 7.000000000000001 as a float."""
    w = torch.arange(1.0, 101.0).view(10, 10)
    thinned, _ = rewired([w], [w], [w > 0], 0.07, 100, "irregular")
    assert thinned[0].flatten().int().tolist() == [0] * 7 + [1] * 93


@pytest.mark.parametrize("seed", range(20))
def test_the_largest_by_a_sort(seed: int) -> None:
    random = rng(seed)
    scores, eligible = torch.randint(0, 4, (50,), generator=random).float(), torch.rand(50, generator=random) < 0.6
    order = sorted(eligible.nonzero().flatten().tolist(), key=lambda i: (-scores[i], i))
    for count in range(51):
        assert largest(scores, eligible, count).nonzero().flatten().tolist() == sorted(order[:count])


def test_shares_of_momentum() -> None:
    masks = [A != 0, B != 0]
    assert shares([MU_A, MU_B], masks) == pytest.approx([0.25, 0.75])
    assert shares([MU_A * 0, MU_B * 0], masks) == pytest.approx([0.6, 0.4])  # 6 and 4 weights
    assert shares([MU_A * math.nan, MU_B], masks) == pytest.approx([0.6, 0.4])
    closed = torch.zeros_like(masks[1])
    assert shares([MU_A, MU_B], [masks[0], closed]) == pytest.approx([1 / 3.25, 2.25 / 3.25])  # B: the mean of all four


def test_random_masks_have_their_counts_and_every_place_the_same_chance() -> None:
    weight, random = torch.zeros(4, 5), rng(7)
    sums = torch.zeros(4, 5)
    for _ in range(2000):
        (mask,) = random_masks([weight], [7], "irregular", random)
        assert int(mask.sum()) == 7
        sums += mask
    assert (sums / 2000 - 7 / 20).abs().max() < 5 * math.sqrt(7 / 20 * 13 / 20 / 2000)


def test_weights_that_are_not_numbers_are_left_to_the_loop() -> None:
    """A diverging training meets NaN before the loop looks at the loss, which then says so in a sentence."""
    weights = [torch.full((4, 4), torch.nan), torch.ones(4, 4)]
    masks = [torch.ones(4, 4, dtype=torch.bool), torch.eye(4, dtype=torch.bool)]
    for bad in (weights, [torch.full((4, 4), torch.nan)] * 2):
        thinned, regrown = rewired(bad, [torch.ones(4, 4)] * 2, masks, 0.5, 20, "irregular")
        assert [mask.shape for mask in (*thinned, *regrown)] == [(4, 4)] * 4
