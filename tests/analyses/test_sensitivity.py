"""Pruning sensitivity: each figure against a layer pruned by hand, what is left alone, resuming, refusals."""

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from analysis_helpers import PLAIN, count_attacks, drawn, evaluated

from robcomp import artifact
from robcomp.analyses import sensitivity
from robcomp.attacks.pgd import PGD
from robcomp.cli.parser import main
from robcomp.evaluation.bars import EvaluationProgress
from robcomp.runs.load import load
from robcomp.seeding import generator

Runs = tuple[Path, Path]
SHARES = (0.3, 0.9, 1.0)
WORDS = [f"values={','.join(map(str, SHARES))}", "~attack.attacks.margin"]
LAYERS = ["conv1", "conv2", "fc1", "fc2"]

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def result(finished: Runs, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], Path]:
    """The sensitivity of both runs, and where it is."""
    target = tmp_path_factory.mktemp("sensitivity")
    return evaluated(target, "sensitivity", f"run={finished[0]},{finished[1]}", *WORDS), target


@pytest.fixture(scope="module")
def factored(lasting_run: Callable[..., Path]) -> Path:
    """A run whose layers hold U V + C."""
    return lasting_run("method=atmc", "method.ratio=0.5")


def kept(tensors: list[torch.Tensor], left: int) -> list[np.ndarray]:
    """The `left` entries of largest magnitude of all tensors together, found by a full stable sort; zeros elsewhere."""
    flat = np.concatenate([tensor.detach().numpy().ravel() for tensor in tensors])
    chosen = np.argsort(-np.abs(flat), kind="stable")[:left]
    only = np.zeros_like(flat)
    only[chosen] = flat[chosen]
    parts = np.split(only, np.cumsum([tensor.numel() for tensor in tensors])[:-1])
    return [part.reshape(tensor.shape) for part, tensor in zip(parts, tensors, strict=True)]


def by_hand(folder: Path, layer: str, x: float) -> tuple[int, int, int]:
    """(non-zeros left, images correct, images correct under PGD) with the share x of the layer pruned."""
    model, _, _ = artifact.load(folder / "model.rcz")
    weight = model.get_submodule(layer).weight
    left = weight.numel() - round(x * weight.numel())
    with torch.no_grad():
        weight.copy_(torch.from_numpy(kept([weight], left)[0]))
    split = load(folder, []).dataset.test
    images, labels = split.images.float() / 255, split.labels
    eps = json.loads((folder / "report.json").read_text())["threat"]["eps"]
    correct = model(images).argmax(1) == labels
    attacked = PGD(eps, steps=3, random_start=False)(model, images, labels, generator(torch.device("cpu"), 0))
    robust = correct & (model(attacked).argmax(1) == labels)
    return int(weight.count_nonzero()), int(correct.sum()), int(robust.sum())


def test_every_figure_is_that_of_the_layer_pruned_by_hand(result: tuple[dict[str, Any], Path], finished: Runs) -> None:
    seen = set()
    for network, folder in zip(result[0]["networks"], finished, strict=True):
        before = {kind: network["unpruned"][kind]["correct"] for kind in ("clean", "robust")}
        assert list(before.values()) == list(by_hand(folder, "fc2", 0)[1:])
        assert [layer["name"] for layer in network["layers"]] == LAYERS
        for layer in network["layers"]:
            assert [point["x"] for point in layer["pruned"]] == list(SHARES)
            for point in layer["pruned"]:
                found = point["left"], point["clean"]["correct"], point["robust"]["correct"]
                assert found == by_hand(folder, layer["name"], point["x"]), (layer["name"], point["x"])
                for kind, correct in before.items():
                    after = point[kind]["correct"]
                    percent = 100 * (correct - after) / correct if correct else None
                    assert point[f"{kind}_reduction_percent"] == pytest.approx(percent)
                seen.add(found[1:])
    assert len(seen) > 4  # pruning does something here


def test_json_table_and_figure_say_the_same(result: tuple[dict[str, Any], Path], finished: Runs) -> None:
    found, target = result
    (table,), (figure,) = target.glob("sensitivity-*.csv"), target.glob("sensitivity-*.png")
    rows = list(csv.DictReader(table.open()))
    expected = []
    for network in found["networks"]:
        points = [("", network["unpruned"] | {"x": 0})]
        points += [(layer["name"], point) for layer in network["layers"] for point in layer["pruned"]]
        expected += [
            (network["run"], name, point["x"], point["clean"]["correct"], point["robust"]["value"])
            for name, point in points
        ]
    assert [
        (row["run"], row["layer"], float(row["x"]), int(row["clean_correct"]), float(row["robust"])) for row in rows
    ] == expected
    assert drawn(figure)
    assert found["schema"] == "robcomp-sensitivity/1"
    assert found["values"] == list(SHARES)
    assert list(found["attacks"]) == ["pgd"]
    assert [entry["folder"] for entry in found["runs"]] == [str(folder) for folder in finished]
    assert not list(target.glob("*.part.npz"))


def test_the_loaded_network_is_not_touched(finished: Runs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = []
    load_all = sensitivity.load_all
    monkeypatch.setattr(sensitivity, "load_all", lambda *given: loaded.extend(load_all(*given)) or loaded)
    evaluated(tmp_path, "sensitivity", f"run={finished[1]}", "values=0.9", "~attack.attacks.margin")
    fresh, _, _ = artifact.load(finished[1] / "model.rcz")
    for name, tensor in loaded[0].model.state_dict().items():
        assert torch.equal(tensor, fresh.state_dict()[name]), name


def test_a_factored_layer_is_pruned_over_all_its_factors(factored: Path, tmp_path: Path) -> None:
    model, _, _ = artifact.load(factored / "model.rcz")
    for name in LAYERS:
        layer = model.get_submodule(name)
        factors = [layer.U, layer.V, layer.C]
        left = sum(int(factor.count_nonzero()) for factor in factors) // 3
        copy = sensitivity.pruned(model, name, left).get_submodule(name)
        for mine, theirs in zip(kept(factors, left), (copy.U, copy.V, copy.C), strict=True):
            assert np.array_equal(mine, theirs.detach().numpy())
    found = evaluated(tmp_path, "sensitivity", f"run={factored}", "values=0.2,0.9", "~attack.attacks.margin")
    reported = json.loads((factored / "report.json").read_text())["density"]["layers"]
    (network,) = found["networks"]
    keys = ("name", "weights", "nonzero", "density")
    assert [[layer[key] for key in keys] for layer in network["layers"]] == [
        [layer[key] for key in keys] for layer in reported
    ]
    for layer in network["layers"]:
        for point in layer["pruned"]:
            assert point["left"] == min(layer["nonzero"], layer["weights"] - round(point["x"] * layer["weights"]))


def test_a_layer_that_is_sparse_already_does_not_change_and_is_not_attacked(
    finished: Runs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = shutil.copytree(finished[1], tmp_path / "copy")
    model, spec, bits = artifact.load(copy / "model.rcz")
    with torch.no_grad():
        for name in LAYERS:
            weight = model.get_submodule(name).weight
            weight.copy_(torch.from_numpy(kept([weight], int(0.04 * weight.numel()))[0]))
    artifact.save(model, spec, bits, copy / "model.rcz")
    calls = count_attacks(monkeypatch)
    found = evaluated(tmp_path / "out", "sensitivity", f"run={copy}", "values=0.5,0.95", "~attack.attacks.margin")
    (network,) = found["networks"]
    assert sum(calls) == network["unpruned"]["clean"]["correct"]  # PGD on the unpruned network alone
    for layer in network["layers"]:
        assert layer["density"] <= 0.04
        for point in layer["pruned"]:
            assert (point["clean"], point["robust"]) == (network["unpruned"]["clean"], network["unpruned"]["robust"])


def test_a_stopped_analysis_goes_on_and_ends_the_same(
    result: tuple[dict[str, Any], Path],
    finished: Runs,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    arguments = ["sensitivity", f"run={finished[0]},{finished[1]}", *WORDS]
    calls, told = count_attacks(monkeypatch), []

    def interrupt(self: EvaluationProgress, name: str, done: float, total: int) -> None:
        told.append((name, done / total))
        if len(told) == 150:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(EvaluationProgress, "advance", interrupt)
        assert main([*arguments, *PLAIN, f"out={tmp_path}"]) == 130
    assert 0 < told[-1][1] <= 1
    assert not list(tmp_path.glob("*.json"))
    assert list(tmp_path.glob("*.part.npz"))
    first = len(calls)
    assert evaluated(tmp_path, *arguments)["networks"] == result[0]["networks"]
    second = len(calls) - first
    calls.clear()
    assert evaluated(tmp_path, *arguments)["networks"] == result[0]["networks"]
    assert not calls
    assert "already evaluated" in capsys.readouterr().out
    evaluated(tmp_path, *arguments, "fresh=true")
    assert 0 < first < len(calls)
    assert second < len(calls) <= first + second


def test_the_default_suite_and_shares(
    finished: Runs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(PGD, "perturb", lambda self, model, x, y, generator: x)
    found = evaluated(tmp_path / "a", "sensitivity", f"run={finished[0]}")
    assert list(found["attacks"]) == ["pgd", "margin"]
    assert found["values"] == [0.5, 0.8, 0.95]
    assert "80 % of one layer pruned" in capsys.readouterr().out
    found = evaluated(tmp_path / "b", "sensitivity", f"run={finished[0]}", "attack=pgd100", "dataset.test_subset=10")
    assert (list(found["attacks"]), found["data"]["test"]) == (["pgd"], 10)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["values=0,0.5"], "values=0 is not a share"),
        (["values=95"], "values=95 is not a share"),
        (["values=half"], "values='half' is not a number"),
        (["shares=0.5"], "unknown key of the configuration 'shares'"),
        (["run=nowhere"], "run=nowhere is not a finished run"),
        (["out=a", "out=b"], "out= is given 2 times"),
    ],
)
def test_refusals(finished: Runs, words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sensitivity", f"run={finished[0]}", *words]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert said in line


def test_help_gives_an_example(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["sensitivity", "--help"])
    text = capsys.readouterr().out
    assert "robcomp sensitivity " in text.split("example:")[1]
    assert "default: pgd20" in text
    assert "pgd100" not in text
