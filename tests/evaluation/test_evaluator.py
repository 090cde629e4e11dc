"""A suite on a network: individually and cumulatively, stopped and resumed, counted and told."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny import images, randomise_batch_norm, rng, two_layers
from torch import Tensor, nn

from robcomp.attacks.base import ATTACKS, Attack, MinimumNorm
from robcomp.attacks.fab import FAB
from robcomp.attacks.pgd import PGD
from robcomp.data import Split
from robcomp.errors import UserError
from robcomp.evaluation.accuracy import Outcomes, evaluate_suite
from robcomp.evaluation.evaluator import Evaluator, proportion
from robcomp.evaluation.ledger import Ledger
from robcomp.evaluation.suite import SuiteConfig
from robcomp.models.resnet import ResNetConfig
from robcomp.report.accuracy import Accuracy
from robcomp.report.records import to_json


@dataclass
class Halving(MinimumNorm):
    """Finds the even images of a batch at a distance of 0.1 * their position, never the odd ones."""

    cost = 3

    def settings(self) -> dict:
        return {"name": "halving", "eps": self.eps}

    def nearest(
        self, model: nn.Module, x: Tensor, y: Tensor, generator: torch.Generator, enough: float = 0.0
    ) -> tuple[Tensor, Tensor]:
        where = torch.arange(len(x))
        distance = torch.where(where % 2 == 0, 0.01 * where.float(), torch.inf)
        shift = torch.where(distance.isfinite(), distance, 0.0).view(-1, 1, 1, 1)
        return torch.where(x > 0.5, x - shift, x + shift), distance


class Centred(nn.Module):
    """Three classes by three bands of rows: correct on `tiny` images, linear, so that attacks are predictable."""

    def __init__(self) -> None:
        super().__init__()
        self.bands = nn.Linear(256, 3, bias=False)
        with torch.no_grad():
            self.bands.weight.zero_()
            for band in range(3):
                self.bands.weight[band, band * 80 : band * 80 + 80] = 1 / 80

    def forward(self, x: Tensor) -> Tensor:
        return self.bands(x.flatten(1))


def split(count: int = 24) -> Split:
    return images(count, 5)


def suite(individual: bool, **attacks: dict) -> SuiteConfig:
    return SuiteConfig("made up", individual, 0, 10, attacks)


PAIR = {"strong": {"attack": "pgd", "eps": 0.23, "steps": 8}, "weak": {"attack": "fgsm", "eps": 0.22}}


def outcomes(model: nn.Module, config: SuiteConfig, **settings: object) -> tuple[Accuracy, Outcomes]:
    with Evaluator(model, split(), 0, config.batch_size, **settings) as evaluator:
        return evaluate_suite(evaluator, config)


def test_individual_attacks_meet_every_correct_image() -> None:
    records, found = outcomes(Centred(), suite(True, **PAIR))
    attacks = records.attacks
    assert list(records.entries()) == ["clean", "strong", "weak", "worst_case"]
    assert records.clean.correct == attacks["strong"].attacked == attacks["weak"].attacked == 24
    assert 24 > attacks["weak"].correct > attacks["strong"].correct
    assert np.array_equal(found["worst_case"], found["strong"] & found["weak"])


def test_cumulative_attacks_come_cheapest_first_and_meet_what_survives() -> None:
    alone, each = outcomes(Centred(), suite(True, **PAIR))
    records, found = outcomes(Centred(), suite(False, **PAIR))
    assert list(records.entries()) == ["clean", "weak", "strong", "worst_case"]
    assert records.attacks["strong"].attacked == records["weak"].correct == alone["weak"].correct
    assert records.attacks["strong"].cumulative
    assert not alone.attacks["strong"].cumulative
    assert "cumulative" not in to_json(alone)["attacks"]["strong"]
    assert np.array_equal(found["strong"], found["worst_case"])
    assert np.array_equal(found["worst_case"], each["worst_case"])


def test_an_excluded_attack_changes_no_worst_case() -> None:
    excluded = {"far": {"attack": "pgd", "eps": 1.0, "excluded": True}, "wrm": {"gamma": 1000.0, "steps": 3}}
    for individual in (True, False):
        records, _ = outcomes(Centred(), suite(individual, **PAIR, **excluded))
        without, _ = outcomes(Centred(), suite(individual, **PAIR))
        assert records.worst_case == without.worst_case
        assert {name for name, entry in records.attacks.items() if entry.excluded} == {"far", "wrm"}
        assert records["far"].correct == 0 < records.worst_case.correct
        assert records.attacks["far"].attacked == 24


@dataclass
class OfOneClass(PGD):
    """PGD on the images of class `label` alone."""

    kind = "of_one_class"
    label: int = 0

    def perturb(self, model: nn.Module, x: Tensor, y: Tensor, generator: torch.Generator) -> Tensor:
        return torch.where((y == self.label).view(-1, 1, 1, 1), super().perturb(model, x, y, generator), x)


NORMS = {
    "near": {"attack": "pgd", "eps": 0.225, "steps": 4},
    "far": {"attack": "of_one_class", "eps": 0.23, "label": 0},
    "also_far": {"attack": "of_one_class", "eps": 0.23, "label": 1},
    "round": {"attack": "pgd", "eps": 3.5, "norm": "L2", "steps": 4},
}


@pytest.fixture
def of_one_class(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ATTACKS._entries, "of_one_class", OfOneClass)


@pytest.mark.usefixtures("of_one_class")
def test_each_norm_and_eps_has_a_worst_case_of_its_own() -> None:
    wrm = {"wrm": {"gamma": 1000.0, "steps": 1}}
    records, found = outcomes(
        Centred(), suite(True, **NORMS, left_out={"attack": "fgsm", "eps": 1.0, "excluded": True}, **wrm)
    )
    groups = {("Linf", 0.225): ["near"], ("Linf", 0.23): ["near", "far", "also_far"], ("L2", 3.5): ["round"]}
    assert {(worst.norm, worst.eps): worst.attacks for worst in records.worst_cases} == groups
    for worst in records.worst_cases:
        left = np.logical_and.reduce([found[name] for name in worst.attacks])
        assert (worst.correct, worst.images, worst.value) == (left.sum(), 24, left.mean())
        assert worst.interval == proportion(left).interval
    assert len({worst.correct for worst in records.worst_cases}) == 3  # the suite tells them apart
    assert (found["far"] & ~found["also_far"]).any()
    assert (found["also_far"] & ~found["far"]).any()
    assert np.array_equal(found["worst_case"], found["near"] & found["far"] & found["also_far"])  # without the L2 one
    assert (found["worst_case"] & ~found["round"]).any()


def test_one_norm_and_eps_has_no_worst_case_beside_the_overall_one() -> None:
    same = {name: {**entry, "eps": 0.22} for name, entry in PAIR.items()}
    other = {"left_out": {"attack": "fgsm", "eps": 1.0, "excluded": True}}
    assert outcomes(Centred(), suite(True, **same, **other))[0].worst_cases == []
    assert len(outcomes(Centred(), suite(True, **PAIR))[0].worst_cases) == 2


@pytest.mark.usefixtures("of_one_class")
def test_a_cascade_has_the_worst_cases_of_the_attacks_alone() -> None:
    """An attack spares no image of a smaller eps or of another norm, whichever comes first."""
    late = {"late": {"attack": "pgd", "eps": 0.1, "steps": 20}}
    alone, each = outcomes(Centred(), suite(True, **NORMS, **late))
    records, found = outcomes(Centred(), suite(False, **NORMS, **late))
    assert {(w.norm, w.eps): w.correct for w in records.worst_cases} == {
        (w.norm, w.eps): w.correct for w in alone.worst_cases
    }
    assert len(records.worst_cases) == 4
    assert np.array_equal(found["worst_case"], each["worst_case"])
    assert records.attacks["late"].attacked == 24 > found["near"].sum()


def test_an_attack_on_survivors_meets_what_those_before_it_left() -> None:
    marked = {"strong": PAIR["strong"], "again": {**PAIR["strong"], "survivors": True}, "weak": PAIR["weak"]}
    records, found = outcomes(Centred(), suite(True, **marked))
    assert list(records.attacks) == ["strong", "again", "weak"]
    assert [entry.attacked for entry in records.attacks.values()] == [24, found["strong"].sum(), 24]
    assert [entry.cumulative for entry in records.attacks.values()] == [False, True, False]
    assert not (found["again"] & ~found["strong"]).any()
    with pytest.raises(UserError, match="wrm has no ball"):
        suite(True, wrm={"gamma": 1.0, "steps": 1, "survivors": True}).build()
    with pytest.raises(UserError, match="both excluded and for survivors"):
        suite(True, pgd={"eps": 0.1, "excluded": True, "survivors": True}).build()


def test_a_network_that_is_always_wrong_is_not_attacked() -> None:
    class Wrong(Centred):
        def forward(self, x: Tensor) -> Tensor:
            return -super().forward(x)

    for individual in (True, False):
        records, _ = outcomes(Wrong(), suite(individual, **PAIR))
        assert [entry.correct for entry in records.entries().values()] == [0, 0, 0, 0]
        assert records.attacks["strong"].attacked == 0


def test_one_image() -> None:
    with Evaluator(Centred(), images(1, 5), 0) as evaluator:
        records, _ = evaluate_suite(evaluator, suite(True, **PAIR))
    assert records["strong"].images == 1


def test_no_image_is_refused() -> None:
    with pytest.raises(UserError, match="no image to evaluate"), Evaluator(Centred(), images(0, 5), 0):
        pass


def test_a_network_of_nan_is_refused_with_the_image() -> None:
    class Broken(Centred):
        def forward(self, x: Tensor) -> Tensor:
            logits = super().forward(x)
            return torch.where(torch.arange(len(x))[:, None] == 3, torch.nan, logits)

    with pytest.raises(UserError, match="NaN or infinity for test image 3"), Evaluator(Broken(), split(), 0):
        pass


def test_an_image_for_which_the_network_returns_nan_is_not_classified_correctly() -> None:
    class Edge(Centred):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) + torch.where(x.flatten(1).amax(1) > 0.9, torch.nan, 0.0)[:, None]

    class Border(Attack):
        cost = 1

        def settings(self) -> dict:
            return {"name": "border"}

        def perturb(self, model: nn.Module, x: Tensor, y: Tensor, generator: torch.Generator) -> Tensor:
            return (x + 0.2).clamp(max=1)

    with Evaluator(Edge(), split(), 0) as evaluator:
        assert not evaluator.under("border", Border(0.2), evaluator.clean).correct.any()


def test_minimum_norm_attacks_tell_distances_individually(monkeypatch: pytest.MonkeyPatch) -> None:
    config = suite(True)
    monkeypatch.setattr(SuiteConfig, "build", lambda self: {"halving": Halving(0.04)})
    monkeypatch.setattr(Evaluator, "correct", lambda self, x, y: torch.zeros(len(x), dtype=torch.bool))
    config.attacks = {"halving": {}}
    records, found = outcomes(Centred(), config)
    distance = found["halving.distance"]
    assert distance[:10] == pytest.approx([0, np.inf, 0.02, np.inf, 0.04, np.inf, 0.06, np.inf, 0.08, np.inf])
    assert np.array_equal(found["halving"], distance > 0.04 * (1 + 1e-6))
    assert records.attacks["halving"].median_distance == np.inf
    assert to_json(records)["attacks"]["halving"]["median_distance"] is None


def test_a_distance_that_only_the_copy_supports_is_looked_for_a_little_further_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The network's boundary lies 0.8 % further from each image than the copy's, where `Halving` ends."""
    with Evaluator(Centred(), split(), 0) as evaluator:

        def correct(x: Tensor, y: Tensor) -> Tensor:
            start = evaluator.images(np.flatnonzero(evaluator.clean))[0]
            size = (x[:, None] - start[None]).abs().flatten(2).amax(2).amin(1)
            return size < 1.008 * 0.01 * (size / 0.01).round() + 1e-6

        monkeypatch.setattr(evaluator, "correct", correct)
        reach = evaluator.under("halving", Halving(0.04), evaluator.clean, distances=True).distance
    assert reach[2:6:2] == pytest.approx([0.02 * 1.01, 0.04 * 1.01], rel=1e-4)
    assert np.isinf(reach[1::2]).all()


def test_distances_of_a_real_attack_that_the_network_supports(monkeypatch: pytest.MonkeyPatch) -> None:
    """No point fools the copy alone, so none is looked for further out."""
    with Evaluator(Centred(), split(), 0, 10) as evaluator:
        outcome = evaluator.under("fab", FAB(0.3, steps=5), evaluator.clean, distances=True)
    assert np.isfinite(outcome.distance).all()
    assert np.array_equal(outcome.correct, outcome.distance > 0.3)


def test_distances_count_only_where_the_network_itself_is_fooled(monkeypatch: pytest.MonkeyPatch) -> None:
    with Evaluator(Centred(), split(), 0, 10) as evaluator:
        outcome = evaluator.under("halving", Halving(0.04), evaluator.clean, distances=True)
    assert np.isinf(outcome.distance).all()
    assert outcome.correct.all()


class StoppedError(Exception):
    pass


@dataclass
class Recorded(Attack):
    """FGSM that counts its batches and stops the evaluation at one of them."""

    cost = 2

    def perturb(self, model: nn.Module, x: Tensor, y: Tensor, generator: torch.Generator) -> Tensor:
        self.calls = getattr(self, "calls", 0) + 1
        if self.calls == getattr(self, "stop", 0):
            raise StoppedError
        return PGD(self.eps, steps=2).perturb(model, x, y, generator)

    def settings(self) -> dict:
        return {"name": "recorded", "eps": self.eps}


@pytest.mark.parametrize("distances", [False, True])
def test_a_stopped_evaluation_goes_on_where_it_was(tmp_path: Path, distances: bool) -> None:
    path = tmp_path / "ledger.npz"
    with Evaluator(Centred(), split(), 0, 5) as evaluator:
        wanted = evaluator.under("a", Recorded(0.22), evaluator.clean)
    attack = Recorded(0.22)
    attack.stop = 4
    with Evaluator(Centred(), split(), 0, 5, Ledger(path, "k")) as evaluator, pytest.raises(StoppedError):
        evaluator.under("a", attack, evaluator.clean)
    again = Recorded(0.22)
    with Evaluator(Centred(), split(), 0, 5, Ledger(path, "k")) as evaluator:
        outcome = evaluator.under("a", again, evaluator.clean)
    assert again.calls == 2  # batches 4 and 5 of 5
    assert np.array_equal(outcome.correct, wanted.correct)
    assert 0 < outcome.correct.sum() < 24
    other = Recorded(0.22)
    with Evaluator(Centred(), split(), 0, 5, Ledger(path, "another network")) as evaluator:
        evaluator.under("a", other, evaluator.clean)
    assert other.calls == 5
    ledger = Ledger(path, "another network")
    assert ledger.recall("unknown") == ({}, 0, 0.0)
    ledger.close()
    assert not path.exists()


def test_the_bar_is_told_of_images_as_passes_are_spent() -> None:
    told: list[tuple[str, float, int]] = []
    with Evaluator(Centred(), split(), 0, 12, advance=lambda *call: told.append(call)) as evaluator:
        evaluator.under("pgd", PGD(0.1, steps=4), evaluator.clean)
    assert [done for _, done, _ in told] == [3, 6, 9, 12, 12, 15, 18, 21, 24, 24]
    assert {(name, total) for name, _, total in told} == {("pgd", 24)}


def test_attacks_run_on_the_folded_copy_and_the_network_decides() -> None:
    model = ResNetConfig(width=0.1).build((1, 16, 16), 3)
    randomise_batch_norm(model)
    with Evaluator(model.train(), split(), 0) as evaluator:
        assert evaluator.view is not model
        assert not any(isinstance(module, nn.BatchNorm2d) for module in evaluator.view.modules())
        assert torch.allclose(evaluator.view(x := evaluator.images(np.arange(5))[0]), model(x), atol=1e-4)


def test_a_network_that_a_copy_does_not_follow_is_attacked_itself() -> None:
    class Noisy(Centred):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x + 0.1 * torch.randn_like(x))

    class Closed(Centred):  # its forward reads the original's weights, whatever is copied
        def __init__(self) -> None:
            super().__init__()
            bands = self.bands
            self.hidden = lambda x: bands(x.flatten(1))

        def forward(self, x: Tensor) -> Tensor:
            return self.hidden(x)

    for model, own in ((Noisy(), True), (Closed(), False), (Centred(), False)):
        with Evaluator(model, split(), 0) as evaluator:
            assert (evaluator.view is model) == own


def test_examples_are_made_batch_by_batch() -> None:
    with Evaluator(Centred(), split(), 0, 10) as evaluator:
        parts = list(evaluator.batches("pgd", PGD(0.1), np.ones(24, bool)))
        rest = list(evaluator.batches("pgd", PGD(0.1), np.arange(24) > 2, done=10))
        first = PGD(0.1)(Centred(), *evaluator.images(np.arange(10)), rng())
    assert [len(index) for index, *_ in parts] == [10, 10, 4]
    assert [list(index) for index, *_ in rest] == [list(range(13, 23)), [23]]
    assert parts[0][1].shape == first.shape
    assert torch.equal(torch.cat([y for _, _, y, _ in parts]), split().labels)


def test_proportions_have_wilson_intervals() -> None:
    entry = proportion(np.array([True, True, False, True]))
    assert (entry.value, entry.correct, entry.images) == (0.75, 3, 4)
    assert entry.interval == pytest.approx((0.3006, 0.9544), abs=1e-4)


def test_what_another_version_noted_under_another_name_is_evaluated_anew(tmp_path: Path) -> None:
    model, attack = two_layers(), PGD(0.1, steps=1)
    with Evaluator(model, images(24, 5), 0, 8) as evaluator:
        whole = evaluator.under("pgd", attack, evaluator.clean)
        ledger = Ledger(tmp_path / "part.npz", "key")
        ledger.note(evaluator.entry("pgd", attack, evaluator.clean, False), {"right": evaluator.clean}, 24, 1.0)
    with Evaluator(model, images(24, 5), 0, 8, Ledger(tmp_path / "part.npz", "key")) as evaluator:
        assert np.array_equal(evaluator.under("pgd", attack, evaluator.clean).correct, whole.correct)
