"""Transfer between networks and networks combined: each figure against the same computed step by step."""

import csv
from pathlib import Path

import numpy as np
import pytest
import torch
from analysis_helpers import count_attacks, drawn, evaluated
from tiny import randomise_batch_norm, rng, two_layers

from robcomp.analyses.combine import Average
from robcomp.attacks.pgd import PGD
from robcomp.cli.parser import main
from robcomp.data import to_float
from robcomp.evaluation.bars import EvaluationProgress
from robcomp.evaluation.evaluator import Evaluator
from robcomp.models.snapshot import Snapshot
from robcomp.runs.load import LoadedRun, load

ATTACK = PGD(0.1, steps=3, random_start=False)
Runs = tuple[Path, Path]


@pytest.fixture(scope="module")
def loaded(finished: Runs) -> list[LoadedRun]:
    return [load(folder, []) for folder in finished]


def images(run: LoadedRun) -> tuple[torch.Tensor, torch.Tensor]:
    return to_float(run.dataset.test.images), run.dataset.test.labels


def correct(model: torch.nn.Module, x: torch.Tensor, y: torch.Tensor) -> np.ndarray:
    with torch.no_grad():
        return (model(x).argmax(1) == y).numpy()


def white_box(model: torch.nn.Module, run: LoadedRun) -> int:
    with Evaluator(model, run.dataset.test, 0) as evaluator:
        return int(evaluator.under("pgd", ATTACK, evaluator.clean).correct.sum())


def test_transfer_matrix(finished: Runs, loaded: list[LoadedRun], tmp_path: Path) -> None:
    first, second = finished
    result = evaluated(tmp_path, "transfer", f"source={first}", f"source={second}", f"targets=[{second},{first}]")
    (matrix,) = result["matrices"]
    assert matrix["eps"] == 0.1
    cells = {(cell["source"], cell["target"]): cell for cell in matrix["cells"]}
    assert len(cells) == 4
    for source in loaded:
        x, y = images(source)
        x_adv = ATTACK(source.model, x, y, rng())
        for target in loaded:
            cell = cells[source.label, target.label]
            expected = correct(target.model, x, y) & correct(target.model, x_adv, y)
            assert cell["correct"] == expected.sum()
            assert cell["white_box"] is (source is target)
        assert cells[source.label, source.label]["correct"] == white_box(source.model, source)
    clean = {cell["target"]: cell["correct"] for cell in result["clean"]}
    assert clean == {run.label: correct(run.model, *images(run)).sum() for run in loaded}
    rows = list(csv.DictReader(next(tmp_path.glob("*.csv")).open()))
    assert list(rows[0]) == ["source", "target", "attack", "eps", "correct", "images", "accuracy", "low", "high"]
    assert len(rows) == 6
    assert drawn(next(tmp_path.glob("*.png")))


def test_transfer_at_several_eps(finished: Runs, tmp_path: Path) -> None:
    first, second = finished
    result = evaluated(tmp_path, "transfer", f"source={first}", f"targets={second}", "values=0,0.1,0.3")
    assert [matrix["eps"] for matrix in result["matrices"]] == [0, 0.1, 0.3]
    (start,), (end,) = result["matrices"][0]["cells"], result["matrices"][-1]["cells"]
    assert start["correct"] == result["clean"][0]["correct"] >= end["correct"]
    assert drawn(next(tmp_path.glob("*.png")))


def test_a_stopped_transfer_goes_on(finished: Runs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = ["transfer", f"source={finished[0]}", f"targets={finished[1]}"]
    whole = evaluated(tmp_path / "whole", *arguments)
    calls = count_attacks(monkeypatch)

    def interrupt(self: EvaluationProgress, name: str, done: float, total: int) -> None:
        if done > 16:  # in the third batch of 8
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(EvaluationProgress, "advance", interrupt)
        with pytest.raises(AssertionError):
            evaluated(tmp_path / "stopped", *arguments)
    assert calls == [8, 8, 4]
    again = evaluated(tmp_path / "stopped", *arguments)
    assert calls == [8, 8, 4, 4]
    assert again["matrices"][0]["cells"][0]["correct"] == whole["matrices"][0]["cells"][0]["correct"]


def test_average_is_the_mean_of_probabilities() -> None:
    members = [two_layers(seed) for seed in range(3)]
    x = torch.rand(5, 1, 16, 16, generator=rng()) * 4
    mean = torch.stack([member(x).softmax(1) for member in members]).mean(0)
    logits = Average(members)(x)
    assert torch.allclose(logits, mean.log(), atol=1e-6)
    assert torch.allclose(logits.softmax(1), mean, atol=1e-6)


def test_average_of_certain_members_is_finite() -> None:
    class Certain(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.tensor([[1e4, -1e4, 0.0]]).expand(len(x), 3)

    assert Average([Certain(), Certain()])(torch.zeros(2, 1)).isfinite().all()


def test_the_average_is_attacked_on_a_folded_copy_that_computes_the_same(loaded: list[LoadedRun]) -> None:
    average = Average([run.model for run in loaded])
    randomise_batch_norm(average)
    x, _ = images(loaded[0])
    copied = Snapshot(average, torch.float32, torch.channels_last)
    assert torch.allclose(copied(x), average(x), atol=1e-5)


def test_combine(finished: Runs, loaded: list[LoadedRun], tmp_path: Path) -> None:
    result = evaluated(tmp_path, "combine", f"run={finished[0]}", f"run={finished[1]}")
    rows = {(row["attack"], row["way"], row["run"]): row["correct"] for row in result["rows"]}
    average = Average([run.model for run in loaded]).eval()
    x, y = images(loaded[0])
    clean = correct(average, x, y)
    assert rows["clean", "clean", "combined"] == clean.sum()
    left = clean
    for run in loaded:
        assert rows["pgd", "alone", run.label] == white_box(run.model, run)
        fooled = clean & correct(average, ATTACK(run.model, x, y, rng()), y)
        assert rows["pgd", "through", run.label] == fooled.sum()
        left = left & fooled
    assert rows["pgd", "adaptive", "combined"] == white_box(average, loaded[0])
    left = left & correct(average, ATTACK(average, x, y, rng()), y)
    assert rows["pgd", "worst", "combined"] == rows["worst_case", "worst", "combined"] == left.sum()
    assert "adaptive" in result["note"]
    assert drawn(next(tmp_path.glob("*.png")))
    assert len(list(csv.DictReader(next(tmp_path.glob("*.csv")).open()))) == len(result["rows"])


def test_results_lie_in_the_first_run_unless_told_otherwise(finished: Runs, capsys: pytest.CaptureFixture[str]) -> None:
    steps = "attack.attacks.pgd.steps=1"
    assert main(["combine", f"run={finished[1]},{finished[0]}", steps]) == 0
    assert len(list(finished[1].glob("combine-*.json"))) == 1
    assert not list(finished[0].glob("combine-*"))
    assert "as a whole (adaptive)" in capsys.readouterr().out


def test_refusals(finished: Runs, capsys: pytest.CaptureFixture[str]) -> None:
    for words, said in (
        (["combine", f"run={finished[0]}"], "1 run directories given, at least 2"),
        (["transfer", f"source={finished[0]}"], "write targets="),
        (
            [
                "transfer",
                f"source={finished[0]}",
                f"targets={finished[1]}",
                "values=0.1",
                "+attack.attacks.wrm={gamma: 1.3, steps: 2}",
            ],
            "wrm does not bound the perturbation",
        ),
    ):
        assert main(words) == 2
        assert said in capsys.readouterr().err
