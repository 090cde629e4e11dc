"""Square Attack against linear models, its squares as worked out by hand, and a count of its passes."""

from typing import Any

import pytest
import torch
from test_apgd import Watched, dual, held, near, ones, trained, two_classes, wavy
from tiny import rng
from torch import Tensor

from robcomp.attacks.square import Square, bump
from robcomp.errors import UserError

SHAPES = [(2, 1, 1, 1), (1, 3, 2, 2), (2, 1, 2, 9), (2, 2, 11, 3), (1, 3, 6, 6)]
both_norms = pytest.mark.parametrize("norm", ["Linf", "L2"])


def test_sides_of_a_32_x_32_image_worked_out_by_hand() -> None:
    """sqrt(0.8 * 1024) = 28.6, then divided by sqrt(2) after 10, 50, ... queries; L2: at least 3, and odd."""
    sides = {0: 29, 10: 29, 11: 20, 50: 20, 51: 14, 200: 14, 201: 10, 501: 7, 1001: 5, 2001: 4, 4001: 3, 6001: 2}
    square = Square(0.1)
    assert {query: square.side(query, 32, 32) for query in sides} == sides
    assert square.side(8001, 32, 32) == square.side(100000, 32, 32) == 1
    square = Square(0.1, "L2")
    assert [square.side(query, 32, 32) for query in (0, 11, 51, 201, 501, 1001, 2001, 4001, 6001)] == [
        29,
        21,
        15,
        11,
        7,
        5,
        5,
        3,
        3,
    ]


@both_norms
def test_sides_fit_into_any_image(norm: str) -> None:
    for height, width in ((1, 1), (2, 2), (2, 9), (4, 4), (28, 3), (5, 200)):
        sides = [Square(0.1, norm, p_init=1.0).side(query, height, width) for query in (0, 11, 51, 3000, 9000)]
        assert all(1 <= side <= min(height, width) for side in sides)
        assert norm == "Linf" or all(side % 2 for side in sides)


def test_bumps_worked_out_by_hand() -> None:
    """Side 3: one row with the centre in it above, two rows with the centre in the lower one below."""
    upper = torch.tensor([[0.25, 1.25, 0.25]])
    lower = torch.tensor([[0.25, 0.25, 0.25], [0.25, 1.25, 0.25]])
    wanted = torch.cat([upper / upper.norm(), -lower / lower.norm()]) / 2**0.5
    assert torch.allclose(bump(3, torch.device("cpu")), wanted)
    for side in range(1, 9):
        assert bump(side, torch.device("cpu")).norm() == pytest.approx(1)


@both_norms
@pytest.mark.parametrize("shape", SHAPES)
def test_every_point_asked_for_is_admissible(norm: str, shape: tuple[int, ...]) -> None:
    x, eps = (torch.rand(shape, generator=rng(1)) * 1.4 - 0.2).clamp(0, 1), 0.3
    model = Watched(lambda x: torch.stack([0 * x.sum((1, 2, 3)), 50 + (9 * x).sin().sum((1, 2, 3))], 1))
    Square(eps, norm, queries=60)(model, x, ones(x), rng())
    points = torch.stack(model.seen)
    assert len(points) == 61
    assert 0 <= points.min() <= points.max() <= 1
    if norm == "Linf":
        assert ((points == (x - eps).clamp(0, 1)) | (points == (x + eps).clamp(0, 1))).all()
    else:
        assert (points - x).flatten(2).norm(dim=2).max() <= eps * (1 + 1e-6)


@both_norms
def test_the_search_stays_on_the_surface_and_linf_starts_from_stripes(norm: str) -> None:
    model, x = wavy(), torch.full((3, 2, 3, 3), 0.5)
    Square(0.2, norm, queries=40)(model, x, ones(x), rng())
    delta = (torch.stack(model.seen) - x).flatten(2)
    assert torch.allclose(delta.abs().amax(2) if norm == "Linf" else delta.norm(dim=2), torch.tensor(0.2), rtol=1e-2)
    stripes = delta[0].view(3, 2, 3, 3).sign()
    assert norm == "L2" or torch.equal(stripes, stripes[:, :, :1].expand_as(stripes))


def test_a_query_changes_one_square_to_one_sign_a_channel() -> None:
    """At constant logits nothing is kept, so every query differs from the start in its own square alone."""
    model, x = Watched(lambda x: torch.tensor([[0.0, 1.0]]).repeat(len(x), 1)), torch.full((4, 3, 8, 6), 0.5)
    attack = Square(0.1, queries=300)
    x_adv = attack(model, x, ones(x), rng())
    start, points = model.seen[0], torch.stack(model.seen[1:])
    assert torch.equal(x_adv, start)
    changed = (points != start).any(2)  # [300, 4, 8, 6]
    touched = torch.zeros(4, 8, 6, dtype=torch.bool)
    for query in range(300):
        side = attack.side(query, 8, 6)
        for n in range(4):
            rows, columns = (changed[query, n].any(d).nonzero()[:, 0].tolist() for d in (1, 0))
            assert not rows or (rows[-1] - rows[0] < side and columns[-1] - columns[0] < side)
            touched[n] |= changed[query, n]
            for c in range(3):
                values = points[query, n, c][points[query, n, c] != start[n, c]]
                assert len(values.unique()) <= 1
    assert touched.all(), "the last row and column included"
    assert not torch.equal(changed[:, 0], changed[:, 1])


@both_norms
def test_the_margin_never_falls_back(norm: str) -> None:
    """More queries with the same draws go on from fewer; what comes back is the lowest margin that was seen."""
    model, x = wavy(), torch.rand(6, 2, 3, 3, generator=rng(1))
    found = []
    for queries in (1, 5, 20, 60, 150):
        model.seen.clear()
        x_adv = Square(0.3, norm, queries=queries)(model, x, ones(x), rng())
        seen = torch.stack([model.logits(point)[:, 1] for point in model.seen])
        found.append(model(x_adv)[:, 1])
        assert torch.equal(found[-1], seen.amin(0))
    steps = torch.stack(found).diff(dim=0)
    assert (steps <= 0).all()
    assert (steps < 0).any(1).all()


def test_linf_finds_what_a_linear_model_has_to_be_found() -> None:
    w = torch.randn(48, generator=rng(2))
    margins = torch.linspace(0.021, 1.999, 60) * 0.05 * dual(w, "Linf")
    model, x = two_classes(w), near(w, margins)
    robust = held(model, Square(0.05, queries=1500)(model, x, ones(x), rng()), ones(x))
    assert torch.equal(robust, margins > 0.05 * dual(w, "Linf"))


def test_l2_finds_the_nearer_half_of_what_a_linear_model_has_to_be_found() -> None:
    w = torch.randn(108, generator=rng(2))
    share = torch.linspace(0.021, 1.999, 60)  # of the distance to the boundary that eps covers
    model, x = two_classes(w), near(w, share * 0.2 * dual(w, "L2"), (3, 6, 6))
    robust = held(model, Square(0.2, "L2", queries=600)(model, x, ones(x), rng()), ones(x))
    assert robust[share > 1].all(), "no attack can fool these"
    assert not robust[share < 0.5].any()


@both_norms
def test_passes(norm: str) -> None:
    """An image that withstands costs what `cost` says, a fooled one nothing more."""
    w = torch.randn(48, generator=rng(2))
    x, model = near(w, torch.tensor([-3.0, 3, -3, 3, -3]) * 0.05 * dual(w, norm)), two_classes(w)
    attack = Square(0.05, norm, queries=30, restarts=2)
    attack(model, x, ones(x), rng())
    assert attack.cost == 2 * 31
    assert model.passes == 2 * attack.cost + 3
    assert all(len(batch) == 2 for batch in model.seen[1:])


@both_norms
def test_no_image_depends_on_whether_its_companions_stay(norm: str) -> None:
    model, x, y = trained()
    x, y = x[:9], y[:9]
    attack = Square(0.22 if norm == "Linf" else 3, norm, queries=60, restarts=2)
    together = attack(model, x, y, rng())
    assert 0 < held(model, together, y).sum() < 9
    wrong = torch.where(torch.arange(9) % 3 == 0, y, (y + 1) % 3)
    assert torch.equal(attack(model, x, wrong, rng())[::3], together[::3])


@both_norms
def test_restarts_keep_the_worst_point(norm: str) -> None:
    model, x = wavy(), torch.rand(7, 2, 3, 3, generator=rng(1))
    found: list[Tensor] = [
        model(Square(0.3, norm, queries=5, restarts=n)(model, x, ones(x), rng()))[:, 1] for n in (1, 2, 4)
    ]
    assert (found[0] >= found[1]).all()
    assert (found[1] >= found[2]).all()
    assert (found[0] > found[2]).any()


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"queries": 0}, "queries=0 is out of range"),
        ({"restarts": 0}, "restarts=0 is out of range"),
        ({"p_init": 0}, r"p_init=0 is out of range; allowed is \(0, 1\]"),
        ({"p_init": 1.5}, r"p_init=1.5 is out of range"),
    ],
)
def test_settings_without_a_sense_are_refused(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        Square(0.1, **settings)
