"""What is special to the balls: radii per sample, intersections, the in-place twins."""

import pytest
import torch

from robcomp.projections import box, box_, l2_ball, l2_ball_, linf_ball, linf_ball_, linf_box, linf_box_


def images(seed: int) -> torch.Tensor:
    return torch.rand(5, 3, 8, 8, generator=torch.Generator().manual_seed(seed))


def test_l2_radius_is_per_sample_and_reached_along_the_ray() -> None:
    centre = images(0)
    offset = images(1) - 0.5
    x = centre + offset * torch.tensor([0.01, 0.1, 1.0, 10.0, 0.0]).view(-1, 1, 1, 1)
    moved = l2_ball(x, centre, 1.0) - centre
    length = offset.flatten(1).norm(dim=1) * torch.tensor([0.01, 0.1, 1.0, 10.0, 0.0])
    assert torch.allclose(moved.flatten(1).norm(dim=1), length.clamp(max=1.0), atol=1e-5)
    direction = torch.nn.functional.cosine_similarity(moved.flatten(1), offset.flatten(1))
    assert torch.allclose(direction[:4], torch.ones(4), atol=1e-4)


def test_l2_ball_of_radius_zero_is_the_centre() -> None:
    centre = images(2)
    assert torch.equal(l2_ball(images(3), centre, 0.0), centre)
    assert torch.equal(l2_ball(centre, centre, 0.0), centre)


def test_linf_box_is_the_projection_on_the_intersection() -> None:
    centre, x = images(4), 3 * images(5) - 1
    eps = 8 / 255
    expected = torch.minimum(torch.maximum(x, (centre - eps).clamp(min=0)), (centre + eps).clamp(max=1))
    assert torch.equal(linf_box(x, centre, eps, 0.0, 1.0), expected)


def test_l2_then_box_is_admissible_but_not_the_nearest() -> None:
    centre, x = torch.tensor([[0.9, 0.5]]), torch.tensor([[1.9, 1.5]])
    both = box(l2_ball(x, centre, 0.5), 0.0, 1.0)
    assert (both - centre).norm() <= 0.5
    nearer = torch.tensor([[1.0, 0.5 + (0.25 - 0.01) ** 0.5 - 1e-6]])
    assert (nearer - centre).norm() <= 0.5
    assert (nearer - x).norm() < (both - x).norm()


@pytest.mark.parametrize(
    ("pure", "twin", "arguments"),
    [
        (linf_ball, linf_ball_, (images(7), 0.1)),
        (l2_ball, l2_ball_, (images(7), 0.1)),
        (box, box_, (0.2, 0.8)),
        (linf_box, linf_box_, (images(7), 0.1, 0.2, 0.8)),
    ],
)
def test_twins_work_in_place_and_agree(pure, twin, arguments) -> None:
    x = images(6)
    expected = pure(x, *arguments)
    assert twin(x, *arguments) is x
    assert torch.equal(x, expected)


def test_box_takes_bounds_per_channel() -> None:
    low, high = torch.tensor([0.1, 0.2, 0.3]).view(3, 1, 1), torch.tensor([0.5, 0.6, 0.7]).view(3, 1, 1)
    clipped = box(images(8), low, high)
    assert torch.allclose(clipped.amin(dim=(0, 2, 3)), low.flatten())
    assert torch.allclose(clipped.amax(dim=(0, 2, 3)), high.flatten())


def test_bad_arguments_are_named() -> None:
    x = images(9)
    for function in (linf_ball, l2_ball):
        with pytest.raises(ValueError, match=f"^{function.__name__}: eps=-0.1"):
            function(x, x, -0.1)
        with pytest.raises(ValueError, match=f"^{function.__name__}: input holds NaN"):
            function(x, x * float("nan"), 0.1)
