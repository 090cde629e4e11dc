"""Groups of weights: against loops over the definition, and the projection against every choice of groups."""

import itertools

import pytest
import torch
from torch import Tensor

from robcomp.projections import expand, group_count, group_mask, group_norms, group_size, groups

SCHEMES = ["filter", "column", "channel"]
SHAPES = [(4, 3, 2, 2), (3, 5)]


def members(shape: tuple[int, ...], scheme: str) -> list[Tensor]:
    """The flat indices of the weights of each group, by the definition."""
    index = torch.arange(torch.Size(shape).numel()).view(shape)
    if scheme == "filter":
        return [index[i].flatten() for i in range(shape[0])]
    if scheme == "channel":
        return [index[:, c].flatten() for c in range(shape[1])]
    return [index.flatten(1)[:, j] for j in range(index[0].numel())]


def draw(shape: tuple[int, ...], seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("scheme", SCHEMES)
def test_counts_sizes_norms_and_flags_by_definition(scheme: str, shape: tuple[int, ...]) -> None:
    weight, wanted = draw(shape), members(shape, scheme)
    assert group_count(shape, scheme) == len(wanted)
    assert {group_size(shape, scheme)} == {len(group) for group in wanted}
    norms = group_norms(weight, scheme)
    assert norms.dtype == torch.float64
    assert torch.allclose(norms, torch.stack([weight.flatten()[group].double().square().sum() for group in wanted]))
    for one in range(len(wanted)):
        flags = torch.arange(len(wanted)) == one
        assert expand(flags, shape, scheme).flatten().nonzero().flatten().tolist() == wanted[one].sort().values.tolist()


@pytest.mark.parametrize("keep", [0, 1, 2, 3, 99])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("scheme", SCHEMES)
def test_no_other_choice_of_groups_is_nearer(scheme: str, shape: tuple[int, ...], keep: int) -> None:
    weight, parts = draw(shape, 1), members(shape, scheme)
    result = groups(weight, scheme, keep)
    kept = min(keep, len(parts))
    squares = [float(weight.flatten()[group].square().sum()) for group in parts]
    best = max(sum(choice) for choice in itertools.combinations(squares, kept))
    assert float(result.square().sum()) == pytest.approx(best)
    assert torch.equal(result[result != 0], weight[result != 0])
    assert int(group_mask(weight, scheme, keep).sum()) == kept * group_size(shape, scheme)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_ties_go_to_the_lower_index_and_zeros_fill_the_count(scheme: str) -> None:
    shape = (4, 4, 1, 1)
    first_two = torch.arange(4) < 2
    for weight in (torch.ones(shape), torch.zeros(shape)):
        assert torch.equal(group_mask(weight, scheme, 2), expand(first_two, shape, scheme))


def test_half_precision_norms_neither_overflow_nor_tie() -> None:
    weight = torch.tensor([[300.0, 1.0], [300.0, 1.25]], dtype=torch.float16)  # 300^2 is infinite in float16
    assert group_mask(weight, "filter", 1).tolist() == [[False, False], [True, True]]


def test_feasible_input_keeps_its_negative_zeros() -> None:
    weight = torch.tensor([[-0.0, 0.0], [1.0, -0.0]])
    assert torch.equal(groups(weight, "filter", 1).signbit(), weight.signbit())


def test_refusals() -> None:
    with pytest.raises(ValueError, match="give filter, column or channel"):
        group_count((3, 2), "block")
    with pytest.raises(ValueError, match="keep=-1 is negative"):
        groups(torch.ones(3, 2), "filter", -1)
    with pytest.raises(ValueError, match=r"has 3 groups \(filter\)"):
        expand(torch.ones(2, dtype=torch.bool), (3, 2), "filter")
