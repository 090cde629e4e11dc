"""The attack curriculum: its levels worked out by hand, the attacks that the loop really runs; the method around it."""

from pathlib import Path

import pytest
import torch
from tiny import dataset, train_stage, train_state, two_layers
from torch import Tensor

from robcomp.attacks.base import Attack
from robcomp.attacks.pgd import PGD
from robcomp.errors import UserError
from robcomp.settings.compose import compose_config
from robcomp.trainers.attack_curriculum import AttackCurriculum
from robcomp.trainers.compressors.admm_oneshot import ADMMOneShotCompressor
from robcomp.trainers.objectives import Adversarial, Loss, Natural, Objective, Trades
from robcomp.trainers.stage import Schedule, Stage
from robcomp.trainers.state import TrainState

THIRDS = [1 / 3, 2 / 3, 1.0]
# The base attack has eps 0.3, so that the levels are 0.1, 0.2 and 0.3: (eps in tenths, steps) of each epoch.
TEN = [(1, 3), (1, 5), (1, 7), (2, 3), (2, 5), (2, 7), (3, 3), (3, 5), (3, 7), (3, 7)]
NINE = [(1, 3), (1, 5), (1, 7), (2, 3), (2, 5), (2, 7), (3, 3), (3, 5), (3, 7)]
STAYING = [(1, 2), (1, 4), (1, 4), (2, 2), (2, 4), (2, 4), (3, 2), (3, 4), (3, 4)]
HALVES = [(0, 0), (0, 0), (3, 1), (3, 2), (3, 3)]  # an eps level of 0 is natural training


def base(steps: int = 9) -> Adversarial:
    return Adversarial(PGD(0.3, steps=steps, relative_step=2.0), natural=0.1)


def at_epoch(objective: Objective, epoch: int, epochs: int, step_in_epoch: int = 0) -> Objective:
    """The objective as it stands at a step of that epoch, of which a stage of `epochs` has five."""
    state = train_state(two_layers(), epochs=epochs)
    state.step = epoch * state.steps_per_epoch + step_in_epoch
    return objective.at(state)


def levels(objective: Objective) -> tuple[int, int]:
    if isinstance(objective, Natural):
        return 0, 0
    return round(10 * objective.attack.eps), objective.attack.steps


@pytest.mark.parametrize(
    ("eps", "steps", "epochs", "expected"),
    [
        (THIRDS, [3, 5, 7], 10, TEN),
        (THIRDS, [3, 5, 7], 9, NINE),
        (THIRDS, [2, 4], 9, STAYING),
        ([0.0, 1.0], [1, 2, 3], 5, HALVES),
        (THIRDS, [3, 5, 7], 3, [(1, 3), (2, 3), (3, 3)]),
        (THIRDS, [3, 5, 7], 2, [(2, 3), (3, 3)]),  # too short for all levels: it ends on the last
        (THIRDS, [3, 5, 7], 1, [(3, 3)]),
        ([1.0], [4], 2, [(3, 4), (3, 4)]),
    ],
)
def test_levels_by_hand(eps: list[float], steps: list[int], epochs: int, expected: list[tuple[int, int]]) -> None:
    curriculum = AttackCurriculum(base(), eps, steps)
    for step_in_epoch in (0, 4):
        assert [levels(at_epoch(curriculum, epoch, epochs, step_in_epoch)) for epoch in range(epochs)] == expected


def test_the_last_levels_hold_beyond_the_epochs() -> None:
    curriculum = AttackCurriculum(base(), THIRDS, [3, 5, 7])
    assert [levels(at_epoch(curriculum, epoch, 9)) for epoch in (9, 12, 100)] == [(3, 7)] * 3
    many = AttackCurriculum(base(), [0.5, 1.0], [1, 2, 3, 4, 5])  # more steps levels than a part has epochs
    assert [levels(at_epoch(many, epoch, 4))[1] for epoch in range(8)] == [1, 2, 1, 2, 3, 4, 5, 5]
    assert levels(at_epoch(curriculum, 0, 0)) == (3, 7)  # a stage without epochs ends as any other


def test_the_step_size_follows_eps_and_steps() -> None:
    attack = at_epoch(AttackCurriculum(base(), THIRDS, [3, 5, 7]), 4, 9).attack
    assert (attack.eps, attack.steps) == (pytest.approx(0.2), 5)
    assert attack.step_size == pytest.approx(2.0 * 0.2 / 5)


def test_the_end_is_the_base_itself() -> None:
    assert at_epoch(AttackCurriculum(base(9), THIRDS, [3, 6, 9]), 8, 9) == base(9)
    trades = Trades(PGD(0.3, steps=9), beta=4.0)
    assert at_epoch(AttackCurriculum(trades, THIRDS, [3, 6, 9]), 8, 9) == trades


def test_equal_within_an_epoch_and_unequal_across_a_rise() -> None:
    """The loop records its CUDA graph anew only where the objective is another."""
    curriculum = AttackCurriculum(base(), THIRDS, [3, 5])
    assert at_epoch(curriculum, 4, 9, 0) == at_epoch(curriculum, 4, 9, 3) == at_epoch(curriculum, 5, 9, 1)
    assert at_epoch(curriculum, 3, 9) != at_epoch(curriculum, 4, 9)
    assert at_epoch(curriculum, 0, 9) != at_epoch(curriculum, 3, 9)


def test_the_loss_is_that_of_the_moment() -> None:
    curriculum, state = AttackCurriculum(base(), THIRDS, [3, 5, 7]), train_state(two_layers(), epochs=9)
    state.step = 4 * state.steps_per_epoch
    expected = Adversarial(PGD(0.2, steps=5, relative_step=2.0), natural=0.1)
    x, y = state.batch()
    first = curriculum.at(state).loss(state, x, y).value
    assert torch.equal(first, expected.loss(state, *state.batch()).value)
    assert not torch.equal(first, base().loss(state, *state.batch()).value)


class Falling(Adversarial):
    """An adversarial loss that falls whatever happens."""

    def loss(self, state: TrainState, x: Tensor, y: Tensor) -> Loss:
        return super().loss(state, x, y)._replace(adversarial=torch.tensor(1 / (1 + state.epoch)))


@pytest.mark.parametrize(("epochs", "limit", "expected"), [(10, 0.0, TEN), (9, 0.25, [*NINE, (3, 7), (3, 7)])])
def test_the_attacks_that_the_loop_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, epochs: int, limit: float, expected: list[tuple[int, int]]
) -> None:
    ran: list[tuple[int, int, int, float]] = []
    attacked = TrainState.attacked

    def recording(state: TrainState, attack: Attack, x: Tensor, y: Tensor) -> Tensor:
        x_adv = attacked(state, attack, x, y)
        ran.append((state.epoch, round(10 * attack.eps), attack.steps, float((x_adv - x).abs().max())))
        return x_adv

    monkeypatch.setattr(TrainState, "attacked", recording)
    curriculum = AttackCurriculum(Falling(PGD(0.3, steps=9), natural=0.1), THIRDS, [3, 5, 7])
    state = train_state(two_layers(), data=dataset(16), batch=8, epochs=epochs)
    stage = Stage("sparse", curriculum, Schedule(epochs, lr=0.1, decay="constant"), limit=limit)
    train_stage(stage, state, tmp_path)
    assert [(epoch, eps, steps) for epoch, eps, steps, _ in ran] == [
        (epoch, *levels) for epoch, levels in enumerate(expected) for _ in range(2)
    ]
    for _, eps, _, moved in ran:
        assert moved == pytest.approx(eps / 10, abs=1e-5)


def stages(*overrides: str) -> list[Stage]:
    config = compose_config(["dataset=cifar10", "method=admm_oneshot", *overrides])
    return config.method.stages(config.recipe_context())


def curriculum_of(*overrides: str) -> Objective:
    return stages(*overrides)[0].objective


def test_the_method_takes_the_threat_of_the_data_set() -> None:
    curriculum = curriculum_of()
    assert curriculum.eps_levels == THIRDS
    assert curriculum.steps_levels == [3, 5, 7]  # of 7 steps: a third, two thirds, all
    assert (curriculum.base.attack.eps, curriculum.base.natural) == (pytest.approx(4 / 255), 0.1)
    assert curriculum_of("training.attack.steps=21").steps_levels == [7, 14, 21]
    assert curriculum_of("training.attack.steps=1").steps_levels == [1, 1, 1]


def test_a_chosen_objective_rises_too() -> None:
    trades = curriculum_of("objective=trades", "objective.beta=3")
    now = at_epoch(trades, 0, 9)
    assert (type(now), now.beta, now.attack.loss) == (Trades, 3, "kl")
    assert (now.attack.eps, now.attack.steps) == (pytest.approx(4 / 255 / 3), 3)
    assert curriculum_of("objective=mixed", "objective.beta=0.4").base.natural == 0.4
    assert curriculum_of("objective=natural") == curriculum_of("method.eps_levels=[0]") == Natural()


@pytest.mark.parametrize(
    "override",
    [
        "eps_levels=[]",
        "eps_levels=[0.5,1.5]",
        "eps_levels=[-0.1,1]",
        "eps_levels=[1,0.5]",
        "steps_levels=[]",
        "steps_levels=[0,7]",
        "steps_levels=[7,3]",
        "natural_weight=1",
        "natural_weight=-0.1",
        "limit=-1",
        "limit=11",
    ],
)
def test_bad_settings_get_one_sentence(override: str) -> None:
    with pytest.raises(UserError, match=rf"^method\.{override.split('=')[0]}=[^\n]*\.$"):
        curriculum_of(f"method.{override}")


@pytest.mark.parametrize(
    ("rho", "lr", "fits"), [(26, 0.05, True), (27, 0.05, False), (1300, 1e-3, True), (1e9, 0, True)]
)
def test_a_penalty_that_would_swing_up_is_refused(rho: float, lr: float, fits: bool) -> None:
    """A pruned weight w and its dual v = u / rho: w := (1 - a) w - a v, v := v + w, with a = lr rho, stays bounded?"""
    settings = [f"method.rho={rho}", f"++schedule.oneshot.lr={lr}"]
    w, v = 1.0, 0.0
    for _ in range(400):
        w = (1 - lr * rho) * w - lr * rho * v
        v += w
    assert (abs(w) < 1) == (fits and lr > 0)
    if fits:
        assert stages(*settings)[0].compressor.rho == rho
    else:
        with pytest.raises(UserError, match=r"method\.rho=27 at a learning rate of 0\.05 swings up; less than 26\.7"):
            stages(*settings)


def test_the_method_is_one_stage_from_scratch() -> None:
    (stage,) = stages("method.ratio=0.1", "method.set=funnel", "method.k_levels=[1,0.5,0.1]", "method.limit=0.5")
    assert (stage.name, stage.schedule_name, stage.limit) == ("oneshot", "dense", 0.5)
    assert stage.compressor == ADMMOneShotCompressor(0.1, "funnel", 2.0, k_levels=[1.0, 0.5, 0.1])  # rho = 0.1 / 0.05
    assert stage.compressor.refreshes_statistics
    assert stages("training.lr_scale=0.1")[0].compressor.rho == pytest.approx(20)
    assert stages("training.lr_scale=0.1", "method.rho=3")[0].compressor.rho == 3
    assert stages("schedule.dense.lr=0")[0].compressor.rho > 0


@pytest.mark.parametrize(
    "override",
    [
        "rho=0",
        "rho=-1",
        "phi=-0.1",
        "phi=1.1",
        "k_levels=[]",
        "k_levels=[1,0.5]",
        "k_levels=[0.05,0.1]",
        "k_levels=[1.5,0.1]",
    ],
)
def test_a_bad_constraint_gets_one_sentence(override: str) -> None:
    with pytest.raises(UserError, match=rf"^method\.{override.split('=')[0]}=[^\n]*\.$"):
        stages("method.ratio=0.1", f"method.{override}")


def test_an_unknown_set_is_named() -> None:
    with pytest.raises(UserError, match=r"unknown method\.set 'funel'; choose from .* Did you mean funnel\?"):
        stages("method.set=funel")
