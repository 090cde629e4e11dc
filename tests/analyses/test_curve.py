"""Robustness curves: their shape, that each point is what its attacks leave, resuming, and what is refused."""

import csv
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from analysis_helpers import PLAIN, count_attacks, drawn, evaluated

from robcomp.analyses.curve import rising_eps
from robcomp.attacks import ATTACKS
from robcomp.attacks.base import MinimumNorm
from robcomp.attacks.pgd import PGD
from robcomp.cli.parser import main
from robcomp.evaluation.bars import EvaluationProgress
from robcomp.evaluation.evaluator import Evaluator
from robcomp.runs.load import load

VALUES = (0, 0.05, 0.1, 0.2, 0.3, 0.6, 1)
OVER_EPS = f"values={','.join(map(str, VALUES))}"
Runs = tuple[Path, Path]

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def curves(finished: Runs, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], Path]:
    """The curves of both runs over eps, and where they are."""
    target = tmp_path_factory.mktemp("curves")
    return evaluated(target, "curve", f"run={finished[0]},{finished[1]}", OVER_EPS), target


def surviving(folder: Path, budgets: list[float]) -> np.ndarray:
    """Which images are correct under each of the budgets, each of them met by all images."""
    run = load(folder, [])
    with Evaluator(run.model, run.dataset.test, 0) as evaluator:
        correct = evaluator.clean
        for eps in budgets:
            correct = correct & evaluator.under("pgd", PGD(eps, steps=3, random_start=False), evaluator.clean).correct
    return correct


def test_default_values_reach_from_nothing_to_everything() -> None:
    assert rising_eps(0.1, 1) == pytest.approx([0, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.6, 0.8, 1])
    assert rising_eps(1, 1) == [0, 0.25, 0.5, 0.75, 1]
    assert rising_eps(0.5, 16)[-3:] == [8, 12, 16]


def test_a_curve_starts_at_clean_accuracy_falls_and_stops_below_chance(
    curves: tuple[dict[str, Any], Path], finished: Runs
) -> None:
    for line, folder in zip(curves[0]["curves"], finished, strict=True):
        heights = [point["correct"] for point in line["points"]]
        assert heights[0] == json.loads((folder / "report.json").read_text())["accuracy"]["clean"]["correct"]
        assert heights == sorted(heights, reverse=True)
        assert line["falls_to_chance"] is (line["points"][-1]["value"] < 1 / 3)
        assert all(point["value"] >= 1 / 3 for point in line["points"][:-1])
        assert [*(point["eps"] for point in line["points"]), *line["not_run"]] == list(VALUES)
        assert [point["attacked"] for point in line["points"]] == [0, *heights[:-1]]
        assert all(point["images"] == 20 for point in line["points"])


def test_a_point_is_what_all_budgets_up_to_it_leave(curves: tuple[dict[str, Any], Path], finished: Runs) -> None:
    for line, folder in zip(curves[0]["curves"], finished, strict=True):
        for place, point in enumerate(line["points"]):
            assert point["correct"] == surviving(folder, list(VALUES[1 : place + 1])).sum()


def test_json_table_and_figure_say_the_same(curves: tuple[dict[str, Any], Path], finished: Runs) -> None:
    result, target = curves
    (table,), (figure,) = target.glob("curve-*.csv"), target.glob("curve-*.png")
    rows = list(csv.DictReader(table.open()))
    points = [(line["run"], point) for line in result["curves"] for point in line["points"]]
    assert [(row["run"], float(row["eps"]), int(row["correct"])) for row in rows] == [
        (run, point["eps"], point["correct"]) for run, point in points
    ]
    assert drawn(figure)
    assert result["schema"] == "robcomp-curve/1"
    assert [run["folder"] for run in result["runs"]] == [str(folder) for folder in finished]
    assert result["seed"] == 0
    assert result["machine"]["device"] == "cpu"
    assert not list(target.glob("*.part.npz"))


def test_a_finished_curve_is_shown_without_an_attack(
    curves: tuple[dict[str, Any], Path],
    finished: Runs,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    result, target = curves
    calls = count_attacks(monkeypatch)
    (figure,) = target.glob("*.png")
    figure.unlink()
    assert evaluated(target, "curve", f"run={finished[0]}", f"run={finished[1]}", OVER_EPS) == result
    assert not calls
    assert "already evaluated" in capsys.readouterr().out
    assert drawn(figure)


def test_a_stopped_curve_goes_on_and_ends_the_same(
    curves: tuple[dict[str, Any], Path], finished: Runs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = ["curve", f"run={finished[0]},{finished[1]}", OVER_EPS]
    calls = count_attacks(monkeypatch)
    told = []

    def interrupt(self: EvaluationProgress, name: str, done: float, total: int) -> None:
        told.append(name)
        if len(told) == 25:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(EvaluationProgress, "advance", interrupt)
        assert main([*arguments, *PLAIN, f"out={tmp_path}"]) == 130
    assert not list(tmp_path.glob("*.json"))
    assert list(tmp_path.glob("*.part.npz"))
    first = len(calls)
    result = evaluated(tmp_path, *arguments)
    second = len(calls) - first
    without_times = [
        [{key: point[key] for key in ("eps", "correct", "attacked")} for point in line["points"]]
        for line in result["curves"]
    ]
    assert without_times == [
        [{key: point[key] for key in ("eps", "correct", "attacked")} for point in line["points"]]
        for line in curves[0]["curves"]
    ]
    calls.clear()
    evaluated(tmp_path, *arguments, "fresh=true")
    assert 0 < first < len(calls)
    assert second < len(calls) <= first + second


def test_over_steps(finished: Runs, tmp_path: Path) -> None:
    result = evaluated(tmp_path, "curve", f"run={finished[0]}", "over=steps", "values=1,2,4", "threat.eps=0.1")
    (line,) = result["curves"]
    assert [point["steps"] for point in line["points"]] == [1, 2, 4]
    assert line["attack"]["eps"] == 0.1
    heights = [point["correct"] for point in line["points"]]
    assert heights == sorted(heights, reverse=True)
    assert "falls_to_chance" not in line
    assert drawn(next(tmp_path.glob("*.png")))


@dataclass
class Brighter(MinimumNorm):
    """The nearest image on the way to white that is classified differently, to a hundredth."""

    kind = "brighter"

    @property
    def cost(self) -> int:
        return 100

    def nearest(self, model: Any, x: Any, y: Any, generator: Any, enough: float = 0.0) -> Any:
        best, distance = x.clone(), torch.full((len(x),), torch.inf)
        for step in reversed(range(101)):
            candidate = (x + step / 100).clamp(max=1)
            fooled = model(candidate).argmax(1) != y
            best[fooled] = candidate[fooled]
            distance[fooled] = (candidate - x).flatten(1).amax(1)[fooled]
        return best, distance


def test_a_minimum_norm_attack_gives_its_curve_in_one_run(
    finished: Runs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(ATTACKS._entries, "brighter", Brighter)
    arguments = [f"run={finished[1]}", OVER_EPS, "attack=pgd100", "+attack.attacks.brighter={eps: 0.1}"]
    result = evaluated(tmp_path, "curve", *arguments)
    line = next(line for line in result["curves"] if line["name"] == "brighter")
    run = load(finished[1], [])
    with Evaluator(run.model, run.dataset.test, 0) as evaluator:
        expected = [
            int((evaluator.under("b", Brighter(eps), evaluator.clean).correct).sum()) if eps else evaluator.clean.sum()
            for eps in VALUES
        ]
    assert [point["correct"] for point in line["points"]] == expected
    assert line["not_run"] == []
    assert line["falls_to_chance"] is (line["points"][-1]["value"] < 1 / 3)
    said = " ".join(capsys.readouterr().out.split())
    assert ("brighter: still" in said and "so this attack fails" in said) is not line["falls_to_chance"]


def test_without_matplotlib_there_is_a_sentence_and_no_figure(
    finished: Runs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    evaluated(tmp_path, "curve", f"run={finished[0]}", "values=0,0.1")
    assert "pip install" in capsys.readouterr().out
    assert sorted(path.suffix for path in tmp_path.iterdir()) == [".csv", ".json"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["over=size"], "unknown over 'size'"),
        (["values=0,abc"], "values='abc' is not a number"),
        (["values=0,2"], "did you mean 2/255"),
        (["over=steps", "values=0,1"], "are not numbers of steps"),
        (["over=steps", "+attack.attacks.fgsm={eps: 0.1}"], "fgsm takes no steps"),
        (["+attack.attacks.wrm={gamma: 1.3, steps: 2}"], "wrm does not bound the perturbation by eps"),
        (["steps=5"], "unknown key of the configuration 'steps'"),
        (["dataset.shape=[1,20,20]"], "[1, 20, 20]"),
        (["run=nowhere"], "run=nowhere is not a finished run"),
        (["out=a", "out=b"], "out= is given 2 times"),
    ],
)
def test_refusals(finished: Runs, words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["curve", f"run={finished[0]}", *words]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert said in line


def test_a_run_given_twice_and_none_at_all(finished: Runs, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["curve", f"run={finished[0]}", f"run={finished[0]}/."]) == 2
    assert "names a run twice" in capsys.readouterr().err
    assert main(["curve"]) == 2
    assert "write run=" in capsys.readouterr().err
