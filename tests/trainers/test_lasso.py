"""The lasso inside the real loop, step by step, against a proximal loop written here in plain torch."""

from pathlib import Path

import pytest
import torch
from tiny import Recording, Watched, clones, train_stage, train_state, two_layers
from torch import Tensor
from torch.nn import functional as F

from robcomp.errors import UserError
from robcomp.settings.compose import compose_config
from robcomp.trainers.compressor import Compressor
from robcomp.trainers.compressors.lasso import Lasso
from robcomp.trainers.compressors.sparsity import MagnitudeMask
from robcomp.trainers.objectives import Adversarial
from robcomp.trainers.stage import Schedule, Stage
from robcomp.trainers.state import TrainState

EPOCHS, STEPS = 2, 5
SGD = Schedule(EPOCHS, lr=0.5, momentum=0.9, weight_decay=0.01, milestones=[1])
ADAM = Schedule(EPOCHS, lr=0.01, optimizer="adam", decay="linear", weight_decay=0.1)


def observed(compressor: Compressor, schedule: Schedule, folder: Path) -> tuple[list, list[list[Tensor]], dict]:
    """The batches, all parameters after each step, and the final weights."""
    objective, seen = Recording(), []

    def look(state: TrainState) -> None:
        seen.append(clones(list(state.model.parameters())))

    state = train_state(two_layers(), batch=8, epochs=EPOCHS)
    final = train_stage(Stage("lasso", objective, schedule, Watched(compressor, look)), state, folder).tensors
    _, *parameters = seen  # the first are those of the start
    assert len(objective.batches) == len(parameters) == EPOCHS * STEPS
    return objective.batches, parameters, final


def soft_threshold(w: Tensor, by: Tensor | float) -> Tensor:
    return torch.where(w > by, w - by, torch.where(w < -by, w + by, torch.zeros_like(w)))


@pytest.mark.parametrize(("schedule", "strength"), [(SGD, 0.02), (ADAM, 0.01)], ids=["sgd", "adam"])
def test_proximal_steps_follow_the_formula(tmp_path: Path, schedule: Schedule, strength: float) -> None:
    batches, parameters, final = observed(Lasso(strength), schedule, tmp_path)
    model = two_layers()
    ours = list(model.parameters())
    adam = torch.optim.Adam(ours, 1.0, weight_decay=0.1)
    velocity = [torch.zeros_like(p) for p in ours]
    zeros, second = [], {id(p): torch.zeros_like(p) for p in (ours[0], ours[2])}

    def scale(p: Tensor) -> Tensor | float:
        """What Adam divides the steps of p by, from the gradients."""
        if schedule is SGD:
            return 1.0
        return (second[id(p)] / (1 - 0.999 ** (step + 1))).sqrt() + 1e-8

    for step, (x, y) in enumerate(batches):
        model.zero_grad()
        F.cross_entropy(model(x), y).backward()
        with torch.no_grad():
            if schedule is SGD:
                lr = 0.5 if step < STEPS else 0.05
                for p, v in zip(ours, velocity, strict=True):
                    v.mul_(0.9).add_(p.grad + 0.01 * p)
                    p.sub_(lr * v)
            else:
                for p in (ours[0], ours[2]):
                    second[id(p)] = 0.999 * second[id(p)] + 0.001 * (p.grad + 0.1 * p) ** 2
                lr = adam.param_groups[0]["lr"] = 0.01 * (1 - step / (EPOCHS * STEPS))
                adam.step()
            for p in (ours[0], ours[2]):  # the weights; biases are not penalised
                p.copy_(soft_threshold(p, lr * strength / scale(p)))
        for got, expected in zip(parameters[step], ours, strict=True):
            assert torch.allclose(got, expected, rtol=1e-5, atol=1e-6), step
        zeros.append(int((parameters[step][0] == 0).sum()))
        assert zeros[-1] == int((ours[0] == 0).sum())
    assert 0 < zeros[0] < zeros[-1] < ours[0].numel(), "the test would not see a penalty without exact zeros"
    assert torch.equal(final["1.weight"], parameters[-1][0])


def test_no_strength_is_no_constraint(tmp_path: Path) -> None:
    _, penalised, _ = observed(Lasso(0.0), SGD, tmp_path / "a")
    _, plain, _ = observed(Compressor(), SGD, tmp_path / "b")
    assert all(torch.equal(a, b) for a, b in zip(penalised[-1], plain[-1], strict=True))


def test_the_method_is_the_penalty_and_then_a_mask() -> None:
    config = compose_config(["dataset=cifar10", "method=l1", "method.ratio=0.05", "method.strength=0.001"])
    first, second = config.method.stages(config.recipe_context())
    assert (first.name, first.compressor, first.schedule_name) == ("lasso", Lasso(0.001), "dense")
    assert (second.name, second.compressor, second.schedule_name) == ("sparse", MagnitudeMask(0.05), "sparse")
    assert type(first.objective) is type(second.objective) is Adversarial
    assert first.objective == second.objective == config.recipe_context().adversarial


def test_fields_of_the_schedule_for_this_stage() -> None:
    config = compose_config(["dataset=cifar10", "method=l1", "+schedule.lasso.epochs=7"])
    assert [stage.schedule.epochs for stage in config.method.stages(config.recipe_context())] == [7, 200]


def test_a_negative_strength_is_refused() -> None:
    with pytest.raises(UserError, match=r"^method\.strength=-1 is out of range; [^\n]*\.$"):
        compose_config(["method=l1", "method.strength=-1"])
