"""The methods that rewire: DNR, DNR-C and sparse momentum."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from rewiring_nets import active, channels_net
from tiny import RUN, dataset, train_stage, train_state, two_layers
from torch import Tensor, nn

from robcomp.errors import UserError
from robcomp.settings.compose import compose_config
from robcomp.trainers.compressors.rewiring import Rewiring
from robcomp.trainers.objectives import Adversarial, Natural, NaturalWarmup
from robcomp.trainers.stage import Schedule, Stage
from robcomp.trainers.state import TrainState


def composed(*overrides: str) -> tuple[object, Stage]:
    config = compose_config(["dataset=cifar10", *overrides])
    (stage,) = config.method.stages(config.recipe_context())
    assert (stage.name, stage.start, stage.schedule_name) == ("rewired", "previous", "dense")
    return config, stage


def test_the_stages() -> None:
    config, stage = composed("method=dnr")
    assert stage.objective == NaturalWarmup(Adversarial(config.inner_attack(), 0.5), 0.025)
    published = Rewiring(0.005, "irregular", "all", 0.5, 1e-4, 0.5, 0.025)
    assert stage.compressor == published
    assert (stage.schedule.epochs, stage.schedule.lr) == (200, 0.05)
    _, stage = composed("method=dnr_c", "method.scheme=channel", "method.layers=conv", "method.ratio=0.5")
    assert stage.objective == Natural()
    assert stage.compressor == replace(published, ratio=0.5, scheme="channel", layers="conv", beta=1.0)
    _, stage = composed("method=sparse_momentum")
    assert stage.objective == Natural()
    assert stage.compressor == replace(published, beta=1.0, rho=0.0, spare=True)


def test_another_objective() -> None:
    config, stage = composed("method=dnr", "objective=adversarial")
    assert stage.objective == NaturalWarmup(Adversarial(config.inner_attack(), 0.0), 0.025)
    config, stage = composed("method=sparse_momentum", "objective=adversarial")
    assert stage.objective == Adversarial(config.inner_attack(), 0.0)
    assert composed("method=dnr", "method.beta=1")[1].objective == Natural()


@pytest.mark.parametrize(
    ("setting", "says"),
    [
        ("beta=-0.1", "0 to 1 is allowed"),
        ("beta=1.5", "method.beta=1.5"),
        ("rho=-1", "at least 0"),
        ("rate=2", "method.rate=2"),
        ("warmup=1.1", "method.warmup=1.1"),
        ("ratio=0", "method.ratio=0"),
        ("scheme=filter", "irregular"),
        ("layers=linear", "conv"),
    ],
)
def test_settings_out_of_range(setting: str, says: str) -> None:
    with pytest.raises(UserError, match=says):
        compose_config(["method=dnr", f"method.{setting}"])


@pytest.mark.parametrize(
    ("settings", "model", "says"),
    [
        ({"ratio": 1e-4}, channels_net, r"needs 1; give at least 0\.0019"),
        ({"ratio": 0.2, "scheme": "channel"}, channels_net, r"needs 138; give at least 0\.25"),
        ({"layers": "conv"}, two_layers, "no layer to rewire"),
        ({"scheme": "channel"}, lambda: nn.Sequential(nn.Linear(4, 4)), "no layer to rewire"),
    ],
)
def test_what_a_network_has_no_room_for(settings: dict, model: Callable[[], nn.Module], says: str) -> None:
    method = type(compose_config(["method=dnr"]).method)
    with pytest.raises(UserError, match=says):
        method(name="dnr", **settings).check(model())


def test_the_least_ratio_that_is_named_works() -> None:
    method = type(compose_config(["method=dnr"]).method)
    method(name="dnr", scheme="channel", ratio=0.25).check(channels_net().to("meta"))
    state = train_state(channels_net())
    state.compression = Rewiring(0.25, "channel").start(state)
    assert active(state) == [45, 36, 3]


def test_the_adversary_and_the_penalty_come_after_the_warm_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The stage of method=dnr in the loop, on 48 steps of which the first 12 are warm-up."""
    config = compose_config([*RUN, "method=dnr", "method.warmup=0.25", "method.rho=0.1", "method.ratio=0.2"])
    (stage,) = config.method.stages(config.recipe_context())
    state = train_state(two_layers(), batch=8, data=dataset(128), epochs=3)
    stage.schedule = Schedule(3, lr=0.05)
    attacks, penalties = [], []
    attacked, regularise = TrainState.attacked, Rewiring.regularise

    def watch(state: TrainState, *arguments: object) -> Tensor:
        attacks.append(state.step)
        return attacked(state, *arguments)

    def penalty(self: Rewiring, state: TrainState) -> None:
        before = [w.grad.clone() for w in state.weights]
        regularise(self, state)
        if any(not torch.equal(w.grad, gradient) for w, gradient in zip(state.weights, before, strict=True)):
            penalties.append(state.step)

    monkeypatch.setattr(TrainState, "attacked", watch)
    monkeypatch.setattr(Rewiring, "regularise", penalty)
    train_stage(stage, state, tmp_path)
    assert attacks == list(range(12, 48))
    # Right after z := theta * M there is nothing to pull at: at the end of the warm-up, and after a rewiring.
    renewed = {12, *state.compression.events}
    assert penalties == [step for step in range(12, 48) if step not in renewed] != []


def test_the_published_start_is_asked_for_by_name() -> None:
    for name in ("dnr", "dnr_c", "sparse_momentum"):
        for quirk in (False, True):
            config = compose_config([f"method={name}", *(["method.quirks=[unscaled_start]"] if quirk else [])])
            (stage,) = config.method.stages(config.recipe_context())
            assert stage.compressor.scaled is not quirk
