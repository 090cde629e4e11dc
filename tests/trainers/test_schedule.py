"""Learning rates over a stage, and schedules made shorter."""

import math

import pytest

from robcomp.errors import UserError
from robcomp.trainers.stage import Schedule


def rates(schedule: Schedule, *epochs: float) -> list[float]:
    return [schedule.rate(epoch) for epoch in epochs]


def test_milestones_take_effect_at_their_epoch() -> None:
    schedule = Schedule(epochs=200, lr=0.05, milestones=[80, 120, 150])
    at = rates(schedule, 0, 79.99, 80, 119.99, 120, 150, 199.99)
    assert at == pytest.approx([0.05, 0.05, 0.005, 0.005, 0.0005, 0.00005, 0.00005])


def test_gamma() -> None:
    assert rates(Schedule(lr=1.0, milestones=[1], gamma=0.3), 0, 1) == pytest.approx([1.0, 0.3])


def test_linear_ends_at_zero() -> None:
    assert rates(Schedule(epochs=4, lr=0.4, decay="linear"), 0, 1, 3.5, 3.999) == pytest.approx([0.4, 0.3, 0.05, 1e-4])


@pytest.mark.parametrize("decay", ["linear", "cosine", "milestones"])
def test_a_stage_that_goes_on_learns_as_in_the_middle_of_its_last_epoch(decay: str) -> None:
    schedule = Schedule(epochs=4, lr=0.4, decay=decay, milestones=[1, 3])
    assert rates(schedule, 4, 4.5, 6) == [schedule.rate(3.5)] * 3
    assert schedule.rate(3.5) > 0


@pytest.mark.parametrize("decay", ["linear", "cosine", "milestones", "constant"])
def test_restarts_run_through_the_same_course_faster(decay: str) -> None:
    once = Schedule(epochs=12, lr=0.4, decay=decay, milestones=[4, 8], warmup=1)
    thrice = Schedule(epochs=12, lr=0.4, decay=decay, milestones=[4, 8], warmup=1, restarts=3)
    for period in range(3):
        for epoch in (0, 0.25, 1.25, 2, 3.75):
            assert thrice.rate(4 * period + epoch) == pytest.approx(once.rate(3 * epoch))
    if decay == "milestones":  # ADMM as published: x 1, x 0.1, x 0.01 in each period
        assert rates(thrice, 1, 2, 3, 5, 6, 7) == pytest.approx([0.4, 0.04, 0.004] * 2)


def test_cosine_ends_at_zero() -> None:
    at = rates(Schedule(epochs=4, lr=0.4, decay="cosine"), 0, 1, 2, 3, 3.99)
    assert at == pytest.approx([0.2 * (1 + math.cos(math.pi * e / 4)) for e in (0, 1, 2, 3, 3.99)], abs=1e-12)
    assert at == sorted(at, reverse=True)


def test_constant() -> None:
    assert rates(Schedule(epochs=4, lr=0.4, decay="constant"), 0, 3.9) == [0.4, 0.4]


@pytest.mark.parametrize("decay", ["linear", "cosine", "constant", "milestones"])
def test_warmup_grows_from_zero_and_the_decay_starts_where_it_ends(decay: str) -> None:
    schedule = Schedule(epochs=10, lr=0.2, decay=decay, warmup=2)
    assert rates(schedule, 0, 0.5, 1, 2) == pytest.approx([0, 0.05, 0.1, 0.2])
    end = {"linear": 0.1, "cosine": 0.1}.get(decay, 0.2)
    assert schedule.rate(6) == pytest.approx(end)


def test_scaled_shrinks_every_field_in_epochs_and_nothing_else() -> None:
    schedule = Schedule(200, 0.05, "adam", 0.8, 1e-3, "milestones", [80, 120, 150], 0.2, 5)
    assert schedule.scaled(0.1) == Schedule(20, 0.05, "adam", 0.8, 1e-3, "milestones", [8.0, 12.0, 15.0], 0.2, 0.5)
    assert schedule.scaled(1) == schedule
    assert schedule.scaled(2).epochs == 400
    assert schedule.milestones == [80, 120, 150]


def test_scaled_keeps_an_epoch_and_its_proportions() -> None:
    shortest = Schedule(epochs=200, milestones=[80, 120], warmup=20).scaled(0.001)
    assert shortest.epochs == 1
    assert shortest.milestones == pytest.approx([0.4, 0.6])
    assert shortest.warmup == pytest.approx(0.1)
    # Rounded epochs: the milestones follow the epochs that there are, not the factor.
    assert Schedule(epochs=15, milestones=[10]).scaled(0.1).milestones == pytest.approx([10 * 2 / 15])


def test_a_stage_without_epochs_stays_without() -> None:
    assert Schedule(epochs=0).scaled(3).epochs == 0


@pytest.mark.parametrize("field", ["epochs", "lr", "warmup", "momentum", "weight_decay"])
def test_a_negative_value_is_refused_by_name(field: str) -> None:
    with pytest.raises(UserError, match=f"{field}=-1 "):
        Schedule(**{field: -1})


@pytest.mark.parametrize("change", [{"decay": "exp"}, {"optimizer": "lion"}])
def test_an_unknown_choice_is_refused_with_what_is_allowed(change: dict[str, str]) -> None:
    with pytest.raises(UserError, match="choose from"):
        Schedule(**change)
