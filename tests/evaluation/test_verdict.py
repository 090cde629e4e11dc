"""The verdict flags what hides gradients, by its name, and leaves honest networks alone."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from tiny import images, two_layers
from torch import Tensor, nn
from torch.nn import functional as F

from robcomp.attacks.apgd import APGDCE, APGDT
from robcomp.attacks.base import Attack
from robcomp.attacks.pgd import PGD
from robcomp.attacks.square import Square
from robcomp.data import Split, to_float
from robcomp.evaluation import verdict as examination
from robcomp.evaluation.accuracy import evaluate_suite
from robcomp.evaluation.evaluator import Evaluator
from robcomp.evaluation.suite import SuiteConfig
from robcomp.evaluation.verdict import _left_by_gradients, _too_many, examine
from robcomp.report.accuracy import Verdict

EPS = 0.12
QUICK = SuiteConfig(
    verdict=60,
    attacks={
        "fgsm": {"eps": EPS},
        "pgd": {"eps": EPS, "steps": 20},
        "margin": {"attack": "pgd", "eps": EPS, "steps": 20, "loss": "margin"},
    },
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
        found = examine(evaluator, suite, outcomes)
    assert found is not None
    return found


def flags(model: nn.Module, suite: SuiteConfig = QUICK) -> set[str]:
    found = verdict(model, suite)
    raised = {check.name for check in found.flags}
    assert found.trusted == (not raised)
    assert all(check.evidence.endswith(".") for check in found.checks)
    return raised


@pytest.fixture(autouse=True)
def few_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Networks this small need no strong attacks."""
    monkeypatch.setattr(examination, "STEPS", 20)
    monkeypatch.setattr(examination, "QUERIES", 300)


@pytest.fixture(scope="module")
def honest() -> list[nn.Module]:
    return [trained(seed, adversarial) for seed in (0, 1) for adversarial in (False, True)]


def test_honest_networks_raise_no_flag(honest: list[nn.Module]) -> None:
    assert sum(len(flags(model)) for model in honest) == 0


class Wrapped(nn.Module):
    """after(network(before(x)))."""

    def __init__(
        self, net: nn.Module, before: Callable[[Tensor], Tensor] = lambda x: x, after: Callable = lambda z: z
    ) -> None:
        super().__init__()
        self.net, self.before, self.after = net, before, after

    def forward(self, x: Tensor) -> Tensor:
        return self.after(self.net(self.before(x)))


def off_the_grid(x: Tensor) -> Tensor:
    """Which images [N, 1, 1, 1] are not made of whole grey levels, as no clean image is."""
    return ((255 * x - (255 * x).round()).abs().flatten(1).amax(1) > 1e-3)[:, None, None, None]


def one_bit_more_or_less(z: Tensor) -> Tensor:
    """The outputs with 8 or 9 bits, at random."""
    scale = 2.0 ** (8 + torch.randint(0, 2, ())) / 8
    return (z * scale).round() / scale


MASKS: dict[str, tuple[str, Callable[[nn.Module], nn.Module]]] = {
    "rounded input": ("zero_gradients", lambda net: Wrapped(net, lambda x: (x * 8).round() / 8)),
    "rounded off the clean images": (
        "zero_gradients",
        lambda net: Wrapped(net, lambda x: torch.where(off_the_grid(x), (x * 255).round() / 255, x)),
    ),
    "noise": ("random_output", lambda net: Wrapped(net, lambda x: x + 0.05 * torch.randn_like(x))),
    "noise off the clean images": (
        "random_output",
        lambda net: Wrapped(net, lambda x: x + off_the_grid(x) * 0.05 * torch.randn_like(x)),
    ),
    "precision at random": ("random_output", lambda net: Wrapped(net, after=one_bit_more_or_less)),
    "softmax": ("probabilities", lambda net: Wrapped(net, after=lambda z: (9 * z).softmax(1))),
    "scaled softmax": ("probabilities", lambda net: Wrapped(net, after=lambda z: 10 * z.softmax(1))),
}


@pytest.mark.parametrize("name", MASKS)
def test_masked_networks_are_flagged_for_what_they_are(honest: list[nn.Module], name: str) -> None:
    reason, mask = MASKS[name]
    assert reason in flags(mask(honest[0])), name


@pytest.mark.parametrize("seed", range(4))
def test_a_random_choice_of_two_networks_is_random(honest: list[nn.Module], seed: int) -> None:
    """Both are right on nearly all images, and a draw is the same network for a whole batch."""
    draws = torch.Generator().manual_seed(seed)

    class Either(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return honest[int(torch.randint(0, 2, (), generator=draws))](x)

    assert "random_output" in flags(Either())


@pytest.mark.parametrize("temperature", [1.0, 5.0])
def test_unsure_probabilities_are_probabilities(honest: list[nn.Module], temperature: float) -> None:
    found = verdict(Wrapped(honest[0], after=lambda z: (z / temperature).softmax(1)))
    assert "probabilities" in {check.name for check in found.flags}


def test_probabilities_that_never_vary_are_probabilities(honest: list[nn.Module]) -> None:
    """Those of a sure network for images of one class; a constant output of another sum says nothing."""
    one = Split(images(60, 9).images, torch.ones(60, dtype=torch.int64))
    for sure, said in (([0.0, 1.0, 0.0], "they are probabilities"), ([1.0, 3.0, 1.0], "cannot be told")):
        constant = Wrapped(honest[0], after=lambda z, sure=sure: 0 * z + torch.tensor(sure))
        (check,) = (check for check in verdict(constant, test=one).checks if check.name == "probabilities")
        assert said in check.evidence
        assert check.flag == (sum(sure) == 1)


@pytest.mark.parametrize("after", [lambda z: z - z.mean(1, keepdim=True), lambda z: 0 * z + torch.tensor([2.0, 1, 1])])
def test_centred_and_constant_logits_are_no_probabilities(honest: list[nn.Module], after: Callable) -> None:
    found = verdict(Wrapped(honest[0], after=after))
    assert "probabilities" not in {check.name for check in found.flags}


def test_square_that_breaks_what_gradients_left_is_flagged_also_where_the_suite_has_it(
    honest: list[nn.Module],
) -> None:
    """As AutoAttack does, with so many queries that nothing is left for the verdict's own Square."""
    rounded = Wrapped(honest[0], lambda x: (x * 4).round() / 4)
    attacks = {"square": {"eps": 3 * EPS, "queries": 400}, "pgd": {"eps": 3 * EPS, "steps": 5, "survivors": True}}
    found = {check.name: check for check in verdict(rounded, SuiteConfig(attacks=attacks)).checks}
    assert found["black_box_beats_white_box"].flag


@pytest.mark.parametrize(("broken", "of", "flag"), [(4, 5, False), (5, 60, False), (5, 35, True), (9, 100, False)])
def test_the_rule_of_what_is_too_many(broken: int, of: int, flag: bool) -> None:
    """At least 5, and a lower 95 % bound of their share above 5 %: 2.6 % of 5 in 60, 6.3 % of 5 in 35, 4.8 % of 9."""
    taken, all_of_them = np.zeros(200, bool), np.zeros(200, bool)
    taken[:broken], all_of_them[:of] = True, True
    assert _too_many(taken, all_of_them) is flag


def test_a_suite_that_is_too_weak_is_flagged(honest: list[nn.Module]) -> None:
    timid = SuiteConfig(attacks={"pgd": {"eps": 3 * EPS, "steps": 1, "step_size": EPS / 50, "random_start": False}})
    assert "stronger_attacks" in flags(honest[0], timid)


def test_its_attacks_have_the_largest_eps_and_no_fewer_queries_than_the_suite() -> None:
    attacks = {"fgsm": {"eps": 0.1}, "square": {"eps": 0.3, "queries": 5000}, "far": {"attack": "pgd", "eps": 0.9}}
    suite = SuiteConfig(attacks=attacks | {"far": {"attack": "pgd", "eps": 0.9, "excluded": True}})
    own = examination.planned(suite, 100)
    assert {attack.threat.eps for name, attack in own.items() if "unlimited" not in name} == {0.3}
    assert (own["verdict.square"].queries, own["verdict.unlimited_ce"].threat.eps) == (5000, 1.0)
    assert (own["verdict.apgd_ce"].steps, own["verdict.apgd_t"].steps) == (20, 20)
    wide = examination.planned(SuiteConfig(attacks={"pgd": {"eps": 2.0, "norm": "L2"}}), 100)
    assert {attack.norm for attack in wide.values()} == {"L2"}
    assert (wide["verdict.square"].queries, wide["verdict.unlimited_margin"].threat.eps) == (300, 10.0)


@pytest.mark.parametrize("strong", [APGDCE, APGDT, Square])
def test_each_strong_attack_alone_is_enough(
    honest: list[nn.Module], strong: type[Attack], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The others leave the images as they are; so does the suite."""
    breaks = strong.perturb
    for attack in (APGDCE, APGDT, Square):
        monkeypatch.setattr(attack, "perturb", lambda self, model, x, y, generator: x)
    monkeypatch.setattr(strong, "perturb", breaks)
    raised = flags(honest[0], SuiteConfig(attacks={"pgd": {"eps": 3 * EPS, "steps": 1, "step_size": 1e-6}}))
    assert "stronger_attacks" in raised
    assert ("black_box_beats_white_box" in raised) == (strong is Square)


def test_an_answer_that_no_change_of_the_image_moves_is_flagged(honest: list[nn.Module]) -> None:
    one = Split(images(60, 9).images, torch.ones(60, dtype=torch.int64))
    constant = Wrapped(honest[0], after=lambda z: 0 * z + torch.tensor([-1.0, 2.0, 0.0]))
    for model, unmoved in ((constant, 60), (honest[0], 0)):
        (check,) = (check for check in verdict(model, test=one).checks if check.name == "correct_at_any_eps")
        assert check.flag == bool(unmoved)
        assert f"allows any image at all, {unmoved} of the" in check.evidence


def test_only_what_the_suite_left_is_counted(honest: list[nn.Module]) -> None:
    """Of a constant answer half is said to be broken already: gradients and eps matter for the others."""
    constant, left = Wrapped(honest[0], after=lambda z: 0 * z + torch.tensor([-1.0, 2.0, 0.0])), np.arange(60) < 30
    with Evaluator(constant, Split(images(60, 9).images, torch.ones(60, dtype=torch.int64)), 0) as evaluator:
        found = examine(evaluator, SuiteConfig(attacks={"pgd": {"eps": EPS}}), {"pgd": left})
    assert found is not None
    said = {check.name: check.evidence for check in found.checks}
    assert "For 30 of the 30 images that survive" in said["zero_gradients"]
    assert "30 of the 30 images that survive" in said["correct_at_any_eps"]
    assert "break 0 of the 30 images" in said["stronger_attacks"]


@pytest.mark.parametrize(("norm", "useless"), [("Linf", 40), ("L2", 0)])
def test_how_far_a_gradient_leads_depends_on_the_norm(norm: str, useless: int) -> None:
    """One pixel counts, by 1 over its range: too little for a margin of 5, but L2 allows 16 times that range."""

    class OnePixel(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            slope = x.flatten(1)[:, :1]
            return torch.cat([5 + slope, 0 * slope, 0 * slope - 9], 1)

    split = Split(torch.full((40, 1, 16, 16), 128, dtype=torch.uint8), torch.zeros(40, dtype=torch.int64))
    suite = SuiteConfig(attacks={"pgd": {"eps": EPS, "norm": norm}})
    (check,) = (check for check in verdict(OnePixel(), suite, split).checks if check.name == "zero_gradients")
    assert f"For {useless} of the 40 images" in check.evidence


@pytest.mark.parametrize(
    ("low", "high", "place"), [(-1.0, 0.1, "on the images"), (0.3, 0.7, "beside them"), (0.9, 1.1, "where PGD led")]
)
def test_randomness_is_found_in_each_place(low: float, high: float, place: str) -> None:
    """PGD leads into a corner of the ball, and a uniform point is half of eps away on average."""

    class RandomThere(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            flat, away = x.flatten(1), (x - 128 / 255).abs().flatten(1).mean(1, keepdim=True) / EPS
            score = flat.mean(1, keepdim=True) + ((low < away) & (away < high)) * torch.rand(len(x), 1)
            return torch.cat([score, -score, 0 * score - 9], 1)

    split = Split(torch.full((40, 1, 16, 16), 128, dtype=torch.uint8), torch.zeros(40, dtype=torch.int64))
    (check,) = (check for check in verdict(RandomThere(), test=split).checks if check.name == "random_output")
    assert check.flag
    assert check.evidence.endswith(f", {place}.")


def test_ten_passes_are_compared(honest: list[nn.Module]) -> None:
    """The tenth look at the same images is the first that differs."""

    class Tenth(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net, self.looks = honest[0], dict[bytes, int]()

        def forward(self, x: Tensor) -> Tensor:
            key = x.detach().numpy().tobytes()
            self.looks[key] = self.looks.get(key, 0) + 1
            return self.net(x) + (self.looks[key] == 10)

    model = Tenth()
    with Evaluator(model, images(60, 9), 0) as evaluator:
        _, outcomes = evaluate_suite(evaluator, QUICK)
        model.looks.clear()
        found = examine(evaluator, QUICK, outcomes)
    assert found is not None
    assert "random_output" in {check.name for check in found.flags}


def test_few_images_are_undecided(honest: list[nn.Module]) -> None:
    found = verdict(honest[0], SuiteConfig(attacks={"pgd": {"eps": EPS, "steps": 20}}), images(19, 9))
    assert (found.trusted, found.flags) == (None, [])


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
        for suite in (SuiteConfig(verdict=0, attacks=QUICK.attacks), SuiteConfig(attacks={"pgd": {"eps": 0}})):
            assert examine(evaluator, suite, evaluate_suite(evaluator, suite)[1]) is None


def test_much_broken_without_a_flag_is_undecided(honest: list[nn.Module], monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 60 survivors 4 fall, those of the first 6 that are not of class 1: fewer than the rule asks for, but 7 %."""

    def breaks(self: PGD, model: nn.Module, x: Tensor, y: Tensor, generator: torch.Generator) -> Tensor:
        return torch.where((torch.arange(len(x)) < 6)[:, None, None, None], images(60, 9).images[1:2] / 255, x)

    monkeypatch.setattr(APGDCE, "perturb", breaks)
    monkeypatch.setattr(APGDCE, "bounded", False)
    weak = SuiteConfig(attacks={"pgd": {"eps": 1e-6, "steps": 1}})
    found = verdict(honest[0], weak)
    assert found.trusted is None
    assert not found.flags


@pytest.mark.parametrize("individual", [True, False])
def test_what_square_broke_before_an_attack_by_gradients_counts_for_square(individual: bool) -> None:
    """An attack on survivors does not meet it, so it has not broken it."""
    pgd = {"eps": 0.1, "survivors": True} if individual else {"eps": 0.1}
    suite = SuiteConfig(individual=individual, attacks={"square": {"eps": 0.1, "queries": 2}, "pgd": pgd})
    looked, square = np.ones(6, bool), np.array([False, False, True, True, True, True])
    met = looked if next(iter(suite.order())) == "pgd" else square
    outcomes = {"square": square, "pgd": met & np.array([True, True, True, True, False, False])}
    assert _left_by_gradients(suite, outcomes, looked).tolist() == [True, True, True, True, False, False]


def test_where_nothing_is_correct_no_figure_can_be_too_high() -> None:
    class Wrong(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.zeros(len(x), 3) - torch.eye(3)[images(60, 9).labels[: len(x)]] + 0 * x.sum()

    found = verdict(Wrong())
    assert found == Verdict(trusted=True, images=0, checks=[])
