"""What decides a figure is part of the name under which it is kept: nothing stale is taken for a new result."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny import RUN, images, run, two_layers
from torch import Tensor

from robcomp.attacks.pgd import PGD
from robcomp.cli.parser import main
from robcomp.data import Dataset
from robcomp.evaluation import robustness, verdict
from robcomp.evaluation.accuracy import evaluate_suite
from robcomp.evaluation.robustness import Evaluator
from robcomp.evaluation.suite import SuiteConfig
from robcomp.runs import evaluate as measure
from robcomp.runs.identity import run_directory
from robcomp.settings.compose import Config, compose_config

EVERY = np.ones(24, bool)
PLAIN = {"seed": 0, "batch_size": 10}


def entry(name: str = "a", attack: PGD | None = None, candidates: np.ndarray = EVERY, **settings: Any) -> list[object]:
    evaluator = Evaluator(two_layers(), images(24, 5), **{**PLAIN, **settings})
    return evaluator.entry(name, attack or PGD(0.1), candidates, False)


@pytest.mark.parametrize(
    "changed",
    [
        {"name": "b"},
        {"attack": PGD(0.2)},
        {"attack": PGD(0.1, loss="margin")},
        {"candidates": np.arange(24) > 0},
        {"seed": 1},
        {"batch_size": 11},
    ],
    ids=str,
)
def test_a_ledger_keeps_apart_what_differs(changed: dict[str, Any]) -> None:
    assert entry() == entry()
    assert entry(**changed) != entry()


@pytest.mark.parametrize("owner", [PGD, robustness])
def test_a_ledger_keeps_revisions_apart(monkeypatch: pytest.MonkeyPatch, owner: Any) -> None:
    before = entry()
    monkeypatch.setattr(owner, "revision" if owner is PGD else "REVISION", 99)
    assert entry() != before


def identity(*overrides: str, checksum: str = "0") -> list[Any]:
    few = images(2, 0)
    config = compose_config([*RUN, *overrides])
    return measure.identity(config, Dataset("tiny", ("a",), few, few, few, checksum, True, ""))


CHANGES = [
    "seed=1",
    "dataset.test_subset=19",
    "attack.individual=false",
    "attack.verdict=30",
    "attack.batch_size=9",
    "attack.attacks.pgd.steps=3",
    "+attack.attacks.pgd.aside=true",
    "threat.eps=0.11",
]


@pytest.mark.parametrize("change", CHANGES)
def test_an_evaluation_is_named_by_all_that_decides_it(change: str) -> None:
    assert identity() == identity()
    assert identity(change) != identity()
    assert identity(checksum="1") != identity()


@pytest.mark.parametrize("owner", [PGD, robustness, verdict], ids=["attack", "evaluation", "verdict"])
def test_revisions_name_evaluations_and_runs(monkeypatch: pytest.MonkeyPatch, owner: Any) -> None:
    def names() -> tuple[list[Any], Path]:
        config: Config = compose_config([*RUN, "method=nat"])
        return identity(), run_directory(config)

    before = names()
    monkeypatch.setattr(owner, "revision" if owner is PGD else "REVISION", 99)
    assert all(a != b for a, b in zip(before, names(), strict=True))


@pytest.mark.usefixtures("sandbox", "no_curves")
def test_another_network_in_the_same_folder_is_another_evaluation() -> None:
    first, second = run(["method=nat"]), run(["method=nat", "seed=1"])
    assert main(["evaluate", f"run={first}", "attack=atmc"]) == 0
    (first / "model.rcz").write_bytes((second / "model.rcz").read_bytes())
    assert main(["evaluate", f"run={first}", "attack=atmc"]) == 0
    assert len(list(first.glob("evaluation-*.json"))) == 2


def left_over(path: Path, network: Path, dataset: Dataset, config: Config) -> None:
    """A ledger of a stopped evaluation that claims that nothing withstood anything."""
    ledger = measure._ledger(path, network, dataset, config)
    with Evaluator(two_layers(), dataset.test, config.seed, config.attack.batch_size) as evaluator:
        for name, attack in config.attack.build().items():
            candidates = np.load(network.with_name("outcomes.npz"))["clean"]
            ledger.note(
                evaluator.entry(name, attack, candidates, False), {"right": candidates & False}, candidates.sum(), 1.0
            )


@pytest.mark.usefixtures("sandbox", "no_curves")
@pytest.mark.parametrize("fresh", [False, True])
def test_fresh_starts_from_an_empty_ledger(monkeypatch: pytest.MonkeyPatch, fresh: bool) -> None:
    from robcomp.runs import load as finished

    folder = run(["method=nat"])
    given = ["attack=atmc", "attack.verdict=0", "threat.eps=0.02"]
    found = finished.load(folder, given)
    names: list[Path] = []
    ledger = measure._ledger
    monkeypatch.setattr(measure, "_ledger", lambda path, *rest: names.append(path) or ledger(path, *rest))
    assert main(["evaluate", f"run={folder}", *given]) == 0
    (page,) = folder.glob("evaluation-*.json")
    honest = measure.schema.read(page)["accuracy"]["worst_case"]["correct"]
    assert honest > 0
    page.unlink()
    left_over(names[0], folder / "model.rcz", found.dataset, found.config)
    assert main(["evaluate", f"run={folder}", *given, f"fresh={str(fresh).lower()}"]) == 0
    assert measure.schema.read(page)["accuracy"]["worst_case"]["correct"] == (honest if fresh else 0)


def test_each_batch_has_noise_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[Tensor] = []

    def noted(self: PGD, x: Tensor, random: torch.Generator) -> Tensor:
        drawn.append(torch.rand(4, generator=random))
        return x

    monkeypatch.setattr(PGD, "start", noted)
    with Evaluator(two_layers(), images(24, 5), 0, 8) as evaluator:
        for name in ("a", "b"):
            evaluator.under(name, PGD(0.1, steps=1), np.ones(24, bool))
    assert len({tuple(part.tolist()) for part in drawn}) == 6


class Seen:
    """Stands in for the verdict's examination and notes what it was given."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []

    def __call__(self, e: Evaluator, attacks: dict[str, Any], standing: np.ndarray, images: int) -> None:
        self.calls.append((set(attacks), standing.copy(), images))


@pytest.mark.usefixtures("sandbox", "no_curves")
def test_the_verdict_is_told_the_attacks_that_count_and_what_withstood_them(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = Seen()
    monkeypatch.setattr(verdict, "examine", seen)
    suite = ["attack.verdict=20", "threat.eps=0.4", "+attack.attacks.far={attack: fgsm, eps: 1.0, aside: true}"]
    folder = run(["method=nat", *suite])
    ((attacks, standing, count),) = seen.calls
    outcomes = np.load(folder / "outcomes.npz")
    assert (attacks, count) == ({"fgsm", "pgd"}, 20)
    assert np.array_equal(standing, outcomes["worst_case"])
    assert standing.sum() < outcomes["clean"].sum()


def budget(*attacks: PGD) -> tuple[float, str]:
    found: list[tuple[float, str]] = []

    class Stop(Exception):  # noqa: N818
        pass

    class Noted(verdict._Examination):
        def checks(self) -> list[verdict.Check]:
            found.append((self.eps, self.norm))
            raise Stop

    with pytest.MonkeyPatch.context() as patch, Evaluator(two_layers(), images(24, 5), 0) as evaluator:
        evaluator.clean = np.ones(24, bool)
        patch.setattr(verdict, "_Examination", Noted)
        with pytest.raises(Stop):
            verdict.examine(evaluator, dict(enumerate(attacks)), np.ones(24, bool), 20)
    return found[0]


def test_the_budget_of_the_verdict_is_the_suites_largest() -> None:
    assert budget(PGD(0.1), PGD(0.3), PGD(0.2)) == (0.3, "Linf")


def test_an_attack_in_another_norm_stands_aside() -> None:
    attacks: dict[str, Any] = {"pgd": {"eps": 0.1}, "l2": {"attack": "pgd", "eps": 3, "norm": "L2"}}
    assert SuiteConfig(attacks=attacks).aside() == {"l2"}
    assert SuiteConfig(attacks=dict(reversed(attacks.items()))).aside() == {"pgd"}
    assert SuiteConfig(attacks={"wrm": {"gamma": 1.0, "steps": 2, "norm": "L2"}, **attacks}).aside() == {"wrm", "l2"}


def test_attacks_aside_tell_distances_in_a_cumulative_suite() -> None:
    config = SuiteConfig(
        individual=False,
        verdict=0,
        attacks={
            "pgd": {"eps": 0.1},
            "cw": {"eps": 0.5, "steps": 3, "searches": 2},
            "fab": {"eps": 0.1, "steps": 2},
        },
    )
    with Evaluator(two_layers(), images(24, 5), 0) as evaluator:
        records, outcomes = evaluate_suite(evaluator, config)
    assert "cw.distance" in outcomes
    assert "fab.distance" not in outcomes
    assert records["cw"]["aside"]


@pytest.mark.parametrize(("count", "flag"), [(2, False), (6, True)])
def test_when_a_count_raises_a_flag(count: int, flag: bool) -> None:
    looked = np.ones(100, bool)
    e = Evaluator(two_layers(), images(100, 5), 0)
    examination = verdict._Examination(e, PGD(0.1), looked, looked)
    broken = np.arange(100) < count
    assert examination.compare("x", broken, "{}").flag == flag
    assert examination.compare("x", np.arange(100) < 3 * count, "{}", verdict.HIDDEN).flag is False
    assert examination.compare("x", np.arange(100) < 21, "{}", verdict.HIDDEN).flag
