"""The time left: passes counted as they are spent, pace from the steps done, stages to come at that pace."""

import pytest
import torch
from tiny import dataset, train_state, two_layers
from torch import nn

from robcomp.attacks.pgd import PGD
from robcomp.trainers.attack_curriculum import AttackCurriculum
from robcomp.trainers.loop.forecast import Forecast, passes
from robcomp.trainers.objectives import Adversarial, Natural, NaturalWarmup, Objective, Trades
from robcomp.trainers.stage import Schedule, Stage

ATTACK = PGD(0.1, steps=3)
OBJECTIVES = [
    Natural(),
    Adversarial(ATTACK, natural=0.0),
    Adversarial(ATTACK, natural=0.5),
    Trades(ATTACK),
    NaturalWarmup(Adversarial(ATTACK), 0.5),
    AttackCurriculum(Adversarial(ATTACK), [0, 0.5, 1], [1, 2]),
]


class Counting(nn.Module):
    """A network that counts the images which pass through it, forward and backward."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.count = two_layers(), 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.count += len(x)
        logits = self.inner(x)
        if logits.requires_grad:
            logits.register_hook(self.back)
        return logits

    def back(self, slope: torch.Tensor) -> None:
        self.count += len(slope)


def stage(name: str, objective: Objective, epochs: int) -> Stage:
    return Stage(name, objective, Schedule(epochs=epochs))


@pytest.mark.parametrize("objective", OBJECTIVES, ids=lambda objective: objective.kind)
def test_passes_are_those_of_a_step(objective: Objective, monkeypatch: pytest.MonkeyPatch) -> None:
    """Counted in the network itself, in every epoch of a stage; the attack meets the same network."""
    counting, epochs = Counting(), 4
    state = train_state(counting, data=dataset(8), batch=8, epochs=epochs)
    monkeypatch.setattr(
        type(state), "attacked", lambda self, attack, x, y: attack(counting, x, y, torch.Generator().manual_seed(0))
    )
    for epoch in range(epochs):
        state.step, counting.count = epoch, 0
        x, y = state.batch()
        objective.at(state).loss(state, x, y).value.backward()
        expected = objective.passes(epoch, epochs)
        # TRADES asks once more, without gradient, for the logits that its attack moves away from
        assert counting.count / len(x) == expected + (isinstance(objective, Trades)), epoch


def test_a_stage_is_the_sum_of_its_epochs() -> None:
    curriculum = stage("sparse", NaturalWarmup(Adversarial(ATTACK, 0.0), 0.5), 4)
    assert [passes(curriculum, epochs) for epochs in (0, 1, 2, 2.5, 3, 4, 5)] == [0, 2, 4, 8, 12, 20, 28]


def test_the_time_left_follows_the_pace_of_the_present_stage() -> None:
    now = 0.0
    stages = [stage("dense", Natural(), 4), stage("sparse", Adversarial(ATTACK, 0.0), 2)]  # 8 and 16 passes
    forecast = Forecast(stages, lambda: now)
    forecast.begin(stages[0])
    assert (forecast.left(4), forecast.left_of_all(4)) == (None, None)
    now = 100.0  # the first step takes long, and does not count
    forecast.measure(0.5)
    assert forecast.left(4) is None
    now = 130.0
    forecast.measure(2.0)  # 3 passes in 30 seconds
    assert forecast.left(4) == 40
    assert forecast.left_of_all(4) == 40 + 160
    assert forecast.share(4) == pytest.approx(4 / 24)
    forecast.begin(stages[1])
    assert forecast.left(2) == forecast.left_of_all(2) == 160  # at the pace of the stage before
    assert forecast.share(2) == pytest.approx(8 / 24)
    forecast.measure(0.5)
    now = 150.0
    forecast.measure(1.0)  # 4 passes in 20 seconds
    assert forecast.left(2) == 40
    assert forecast.left(3) == 80  # it goes on


def test_what_another_process_trained_tells_the_pace() -> None:
    stages = [stage("dense", Natural(), 4)]
    forecast = Forecast(stages, lambda: 0.0)
    forecast.begin(stages[0])
    forecast.known(stages[0], 60.0, 2)
    forecast.measure(2.0)
    assert forecast.left(4) == 60
    forecast.known(stages[0], 0.0, 0)  # a stage without epochs says nothing
    assert forecast.left(4) == 60


def test_a_stage_that_was_not_announced_is_the_only_one() -> None:
    other = stage("other", Natural(), 4)
    forecast = Forecast([stage("dense", Natural(), 4)], lambda: 0.0)
    forecast.begin(other)
    assert forecast.stages == [other]
