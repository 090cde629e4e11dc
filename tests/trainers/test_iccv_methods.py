"""The methods around ADMM pruning, run for real on `tiny`."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tiny import CLASSES, RUN, SHAPE, run
from torch import Tensor

from robcomp import artifact
from robcomp.errors import UserError
from robcomp.models.parameterisation import weights
from robcomp.settings.compose import compose_config
from robcomp.trainers.objectives import Adversarial, Natural
from robcomp.trainers.stage import Stage

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("sandbox", "no_curves")]
SIZES = {"conv1.weight": 50, "conv2.weight": 250, "fc1.weight": 250, "fc2.weight": 150}


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One out= for runs that may share stages."""
    return tmp_path_factory.mktemp("outputs")


def stages(*overrides: str) -> list[Stage]:
    config = compose_config([*RUN, *overrides])
    return config.method.stages(config.recipe_context())


def finished(out: Path, *overrides: str) -> tuple[Path, dict[str, str]]:
    """The run directory, and the key of each stage."""
    folder = run([*overrides, f"out={out}"])
    story = json.loads((folder / "report.json").read_text())["stages"]
    return folder, {stage["name"]: stage["key"] for stage in story}


def result(out: Path, key: str) -> dict[str, Tensor]:
    return load_file(out / "stages" / key / "result.safetensors")


def final_weights(folder: Path) -> dict[str, Tensor]:
    """The weights of the packed file."""
    return {name: weight.detach() for name, weight in weights(artifact.load(folder / "model.rcz")[0]).items()}


def initial(*overrides: str) -> dict[str, Tensor]:
    config = compose_config([*RUN, *overrides])
    torch.manual_seed(config.seed)
    return config.model.build(SHAPE, CLASSES).state_dict()


@pytest.mark.parametrize("ratio", [0.0101, 0.3, 1.0])
def test_irregular_uses_the_budget_to_the_last_weight(shared: Path, ratio: float) -> None:
    folder, _ = finished(shared, "method=admm", f"method.ratio={ratio}")
    assert sum(int(w.count_nonzero()) for w in final_weights(folder).values()) == math.floor(700 * ratio + 1e-9)


@pytest.mark.parametrize("scheme", ["filter", "column"])
def test_groups_stay_whole(shared: Path, scheme: str) -> None:
    folder, _ = finished(shared, "method=admm", f"method.scheme={scheme}", "method.ratio=0.6")
    found = final_weights(folder)
    assert {name: w.numel() for name, w in found.items()} == SIZES
    for name, weight in found.items():
        matrix = (weight != 0).flatten(1)
        alive = matrix.any(1)[:, None] if scheme == "filter" else matrix.any(0)
        assert torch.equal(matrix, alive.expand_as(matrix)), name
    assert 300 <= sum(int(w.count_nonzero()) for w in found.values()) <= 420
    assert found["fc2.weight"].all() == (scheme == "filter")
    assert found["conv1.weight"].all(), "50 weights are less than half of the budget"


def test_each_layer_its_own_ratio(shared: Path) -> None:
    folder, _ = finished(shared, "method=admm", "+method.ratios={conv*: 0.5, conv1: 0.9, fc1: 0.1}")
    counts = {name: int(w.count_nonzero()) for name, w in final_weights(folder).items()}
    assert counts == {"conv1.weight": 45, "conv2.weight": 125, "fc1.weight": 25, "fc2.weight": 150}


def test_a_network_with_batch_norm_loses_whole_filters(shared: Path) -> None:
    overrides = ["model=resnet18", "model.width=0.05", "training.lr_scale=1", "method=admm", "method.scheme=bn_filter"]
    folder, _ = finished(
        shared, *overrides, "method.ratio=0.5", *[f"schedule.{s}.epochs=1" for s in ("dense", "sparse")]
    )
    network = artifact.load(folder / "model.rcz")[0]
    found, total, kept = network.state_dict(), 0, 0
    for name, weight in weights(network).items():
        total, kept = total + weight.numel(), kept + int(weight.count_nonzero())
        if name.endswith(".conv.weight"):
            scale = found[name.replace(".conv.", ".bn.")]
            assert torch.equal(weight.flatten(1).any(1), scale != 0), name
    assert kept <= total // 2
    assert kept > 0.45 * total


def test_a_layer_that_cannot_be_kept_is_refused_before_training(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"method\.ratio=0\.1 allows 70 of 700 weights, but what method\.scheme=filter"):
        finished(tmp_path, "method=admm", "method.scheme=filter", "method.ratio=0.1")
    assert not list(tmp_path.glob("stages/*/result.safetensors"))


def test_the_adversarially_pretrained_network_is_shared(shared: Path) -> None:
    dense = {
        name: finished(shared, f"method={name}", "method.ratio=0.3")[1]["dense"] for name in ("admm", "lottery", "al0")
    }
    assert len(set(dense.values())) == 1
    admm, lottery = (finished(shared, f"method={name}", "method.ratio=0.3")[1] for name in ("admm", "lottery"))
    assert admm["admm"] == lottery["admm"]
    assert list(admm) == ["dense", "admm", "retrain"]
    assert list(lottery) == ["dense", "admm", "ticket"]


def test_a_ticket_starts_from_the_initial_values_at_the_kept_positions(shared: Path) -> None:
    """Without epochs a stage ends where it starts."""
    folder, keys = finished(shared, "method=lottery", "method.ratio=0.3", "schedule.dense.epochs=0")
    pruned, ticket, start = result(shared, keys["admm"]), result(shared, keys["ticket"]), initial()
    for name in SIZES:
        assert torch.equal(ticket[name], torch.where(pruned[name] != 0, start[name], 0.0)), name
        assert not torch.equal(ticket[name], pruned[name])
        assert torch.equal(final_weights(folder)[name], ticket[name])
    for name in start.keys() - SIZES:
        assert torch.equal(ticket[name], start[name])


def test_a_ticket_is_trained_inside_the_support_that_admm_found(shared: Path) -> None:
    _, keys = finished(shared, "method=lottery", "method.ratio=0.3")
    pruned, ticket, start = result(shared, keys["admm"]), result(shared, keys["ticket"]), initial()
    for name in SIZES:
        assert torch.equal(ticket[name] != 0, pruned[name] != 0), name
        assert not torch.equal(ticket[name], torch.where(pruned[name] != 0, start[name], 0.0))
    assert sum(int(ticket[name].count_nonzero()) for name in SIZES) == 210


def test_retraining_starts_from_the_pruned_weights(shared: Path) -> None:
    _, keys = finished(shared, "method=admm", "method.ratio=0.3")
    pruned, retrained = result(shared, keys["admm"]), result(shared, keys["retrain"])
    for name in SIZES:
        assert torch.equal(pruned[name] != 0, retrained[name] != 0)
        assert not torch.equal(pruned[name], retrained[name])


def test_pruning_first_is_naps_network_trained_on_against_the_adversary(shared: Path) -> None:
    nap, first = (finished(shared, f"method={name}", "method.ratio=0.3")[1] for name in ("nap", "prune_first"))
    assert list(first) == ["dense", "sparse", "adversarial"]
    assert (first["dense"], first["sparse"]) == (nap["dense"], nap["sparse"])
    before, after = result(shared, first["sparse"]), result(shared, first["adversarial"])
    for name in SIZES:
        assert torch.equal(before[name] != 0, after[name] != 0)
    assert any(not torch.equal(before[name], after[name]) for name in SIZES)
    objectives = [type(stage.objective) for stage in stages("method=prune_first")]
    assert objectives == [Natural, Natural, Adversarial]
    assert type(stages("method=prune_first", "objective=trades")[0].objective) is Natural


def test_the_learning_rate_starts_over_in_every_period() -> None:
    def restarts(*overrides: str) -> list[int]:
        return [stage.schedule.restarts for stage in stages("method=admm", *overrides)]

    assert restarts() == [1, 10, 1]
    assert restarts("method.periods=4") == [1, 4, 1]
    assert restarts("method.lr_restarts=false") == [1, 1, 1]
    assert restarts("schedule.sparse.epochs=40", "method.interval=4") == [1, 10, 1]
    assert restarts("schedule.sparse.epochs=2", "method.interval=4") == [1, 1, 1]


def test_one_factor_shortens_the_interval_too() -> None:
    long = stages("method=admm", "dataset=cifar10", "method.interval=20")[1]
    short = stages("method=admm", "dataset=cifar10", "method.interval=20", "method.epochs_scale=0.1")[1]
    assert (long.compressor.interval, short.compressor.interval) == (20, pytest.approx(2))
    assert long.schedule.restarts == short.schedule.restarts


def test_a_stage_has_fields_of_its_own_over_the_schedule_that_it_shares() -> None:
    def shown(method: str, *overrides: str) -> dict[str, tuple]:
        config = compose_config([*RUN, f"method={method}", *overrides])
        stages = config.method.stages(config.recipe_context())
        return {stage.name: (stage.schedule.epochs, stage.schedule.lr, stage.schedule_name) for stage in stages}

    shared = shown("admm")
    assert [name for _, _, name in shared.values()] == ["dense", "sparse", "sparse"]
    assert [name for _, _, name in shown("lottery").values()] == ["dense", "sparse", "dense"]
    own = shown("admm", "++schedule.admm.lr=7", "++schedule.retrain.epochs=5")
    assert own == {
        "dense": shared["dense"],
        "admm": (2, 7.0, "admm"),  # the message of a divergence names the field that counts
        "retrain": (5, shared["retrain"][1], "sparse"),
    }
    assert shown("prune_first", "++schedule.adversarial.epochs=4")["adversarial"][0] == 4
    assert shown("lottery", "++schedule.ticket.warmup=1.5", "++schedule.ticket.epochs=4")["ticket"][0] == 4


def test_a_given_number_of_restarts_wins() -> None:
    def restarts(*overrides: str) -> list[int]:
        config = compose_config([*RUN, "method=admm", *overrides])
        return [stage.schedule.restarts for stage in config.method.stages(config.recipe_context())]

    assert restarts() == [1, 10, 1]
    assert restarts("++schedule.admm.restarts=3") == [1, 3, 1]
    assert restarts("method.lr_restarts=false") == [1, 1, 1]


@pytest.mark.parametrize("name", ["admm", "lottery"])
def test_the_published_slip_is_asked_for_by_name(name: str) -> None:
    assert not stages(f"method={name}")[1].compressor.attached_dual
    assert stages(f"method={name}", "method.quirks=[attached_dual]")[1].compressor.attached_dual
    with pytest.raises(UserError, match="attached_duel"):
        stages(f"method={name}", "method.quirks=[attached_duel]")


def test_settings_reach_the_compressor() -> None:
    settings = {"rho": 0.2, "rho_growth": 1.1, "periods": 3, "interval": 1.5, "progressive": True}
    compressor = stages("method=admm", *[f"method.{key}={value}" for key, value in settings.items()])[1].compressor
    found: dict[str, Any] = {key: getattr(compressor, key) for key in settings}
    assert found == settings
