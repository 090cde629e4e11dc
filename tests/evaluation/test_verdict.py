"""The verdict flags what hides gradients, by its name, and leaves honest networks alone."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from tiny import images, two_layers
from torch import nn
from torch.nn import functional as F

from robcomp.attacks.pgd import PGD
from robcomp.data import Split, to_float
from robcomp.evaluation.accuracy import evaluate_suite
from robcomp.evaluation.evaluator import Evaluator
from robcomp.evaluation.suite import SuiteConfig
from robcomp.evaluation.verdict import examine
from robcomp.report.schema import Verdict

Function = Callable[[torch.Tensor], torch.Tensor]
EPS = 0.12
QUICK = SuiteConfig(
    attacks={
        "fgsm": {"eps": EPS},
        "pgd": {"eps": EPS, "steps": 20},
        "margin": {"attack": "pgd", "eps": EPS, "steps": 20, "loss": "margin"},
    }
)


def trained(seed: int, adversarial: bool) -> nn.Module:
    """A small network on `tiny` images, a second's training."""
    model, split, random = two_layers(seed, hidden=24), images(240, 1), torch.Generator().manual_seed(seed)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    x, y = to_float(split.images), split.labels
    for _ in range(60):
        inputs = PGD(EPS, steps=4)(model, x, y, random) if adversarial else x
        loss = F.cross_entropy(model(inputs), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model.eval()


def verdict(model: nn.Module, suite: SuiteConfig = QUICK, test: Split | None = None) -> Verdict:
    torch.manual_seed(0)
    with Evaluator(model, test or images(60, 9), 0) as evaluator:
        _, outcomes = evaluate_suite(evaluator, suite)
        found = examine(evaluator, suite.build(), outcomes["worst_case"], 60)
    assert found is not None
    return found


def flags(model: nn.Module, suite: SuiteConfig = QUICK) -> set[str]:
    found = verdict(model, suite)
    raised = {check.name for check in found.flags}
    assert found.trusted == (not raised)
    assert all(check.evidence.endswith(".") for check in found.checks)
    return raised


@pytest.fixture(scope="module")
def honest() -> list[nn.Module]:
    return [trained(seed, adversarial) for seed in (0, 1) for adversarial in (False, True)]


def test_honest_networks_raise_no_flag(honest: list[nn.Module]) -> None:
    assert sum(len(flags(model)) for model in honest) == 0


class Masked(nn.Module):
    """after(network(before(x)))."""

    def __init__(self, net: nn.Module, before: Function = lambda x: x, after: Function = lambda z: z) -> None:
        super().__init__()
        self.net, self.before, self.after = net, before, after

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.after(self.net(self.before(x)))


@pytest.mark.parametrize(
    ("mask", "reason"),
    [
        ({"before": lambda x: torch.sigmoid(2000 * (x - 0.45))}, "zero_gradients"),
        ({"after": lambda z: 1000 * z}, "zero_gradients"),
        ({"before": lambda x: (x * 8).round() / 8}, "zero_gradients"),
        ({"before": lambda x: x + 0.05 * torch.randn_like(x)}, "random_output"),
        ({"after": lambda z: z.softmax(1)}, "probabilities"),
    ],
    ids=["saturating input", "logits x 1000", "rounded input", "random noise", "softmax output"],
)
def test_masked_networks_are_flagged_for_what_they_are(
    honest: list[nn.Module], mask: dict[str, Function], reason: str
) -> None:
    for model in honest[:2]:
        assert reason in flags(Masked(model, **mask))


def test_a_suite_that_is_too_weak_is_flagged(honest: list[nn.Module]) -> None:
    timid = SuiteConfig(attacks={"pgd": {"eps": 3 * EPS, "steps": 1, "step_size": EPS / 50, "random_start": False}})
    assert "too_few_iterations" in flags(honest[0], timid)


def test_one_step_that_beats_many_is_flagged() -> None:
    class Valley(nn.Module):
        """The loss has a hollow behind the image: small steps end in it, one full step crosses it."""

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            t = x.flatten(1).mean(1) - 0.5
            near = torch.where(t < 0.03, 1 - 10 * t, 0.7 + 5 * (t - 0.03))
            height = torch.where(t < 0.1, near, -1.0)
            return torch.stack([height, torch.zeros_like(height), torch.full_like(height, -9.0)], 1)

    split = Split(torch.full((40, 1, 16, 16), 129, dtype=torch.uint8), torch.zeros(40, dtype=torch.int64))
    assert "one_step_beats_many" in {check.name for check in verdict(Valley(), test=split).flags}


def test_nothing_to_check_is_no_verdict() -> None:
    with Evaluator(two_layers(), images(12, 9), 0) as evaluator:
        surviving = np.ones(12, bool)
        assert examine(evaluator, QUICK.build(), surviving, 0) is None
        assert examine(evaluator, {"zero": PGD(0)}, surviving, 10) is None
        assert examine(evaluator, {}, surviving, 10) is None


def test_where_nothing_is_correct_no_figure_can_be_too_high() -> None:
    class Wrong(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.zeros(len(x), 3) - torch.eye(3)[images(60, 9).labels[: len(x)]] + 0 * x.sum()

    found = verdict(Wrong())
    assert found == Verdict(trusted=True, images=0, checks=[])
