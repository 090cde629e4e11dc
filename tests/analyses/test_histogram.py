"""Histograms of weights: each count against numpy on the weights in model.rcz, zeros apart, runs of any kind."""

import csv
import json
import shutil
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from analysis_helpers import drawn

from robcomp import artifact
from robcomp.cli.parser import main

Runs = tuple[Path, Path]


@pytest.fixture(scope="module")
def factored(lasting_run: Callable[..., Path]) -> Path:
    """A pruned run whose layers hold U V + C."""
    return lasting_run("method=atmc", "method.ratio=0.1")


def made(out: Path, *arguments: object) -> dict[str, Any]:
    """The JSON that the command wrote into `out`."""
    assert main(["histogram", *map(str, arguments), f"out={out}"]) == 0
    (path,) = out.glob("*.json")
    return json.loads(path.read_text())


def weights(folder: Path, *layers: str) -> np.ndarray:
    """The weights of a run in its network's file, multiplied out by hand where they are factors."""
    tensors = {key: value.numpy() for key, value in artifact.load(folder / "model.rcz")[0].state_dict().items()}
    names = list(dict.fromkeys(key.rpartition(".")[0] for key, value in tensors.items() if value.ndim > 1))
    parts = []
    for name in layers or names:
        if f"{name}.weight" in tensors:
            parts.append(tensors[f"{name}.weight"].ravel())
        else:
            U, V, C = (tensors[f"{name}.{part}"] for part in "UVC")
            square = V.shape[0] == V.shape[1]
            parts.append((U @ V + C + (U if square else V)).ravel())
    return np.concatenate(parts).astype(float)


def inside(values: np.ndarray, edges: list[float]) -> list[int]:
    """How many non-zero values lie in each bin, its lower edge included and of the last one the upper too."""
    values = values[values != 0]
    counts = [int(((values >= low) & (values < high)).sum()) for low, high in pairwise(edges)]
    counts[-1] += int((values == edges[-1]).sum())
    return counts


def test_counts_and_moments_are_those_of_the_weights_in_the_file(finished: Runs, tmp_path: Path) -> None:
    found = made(tmp_path, f"run={finished[0]},{finished[1]}", "bins=24")
    edges = found["edges"]
    arrays = [weights(folder) for folder in finished]
    largest = max(np.abs(array).max() for array in arrays)
    assert len(edges) == 25
    assert (edges[0], edges[-1]) == pytest.approx((-largest, largest))
    assert np.allclose(np.diff(edges), 2 * largest / 24)
    for entry, array in zip(found["runs"], arrays, strict=True):
        assert entry["counts"] == inside(array, edges)
        assert sum(entry["counts"]) + entry["zeros"] == entry["weights"] == len(array)
        assert entry["mean"] == pytest.approx(array.mean())
        assert entry["standard_deviation"] == pytest.approx(array.std())
        assert entry["largest"] == pytest.approx(np.abs(array).max())
        assert entry["divided_by"] == 1
        report = json.loads((Path(entry["folder"]) / "report.json").read_text())
        assert entry["weights"] == report["size"]["dense_weights"]
        assert entry["robust"] == report["accuracy"]["worst_case"]["value"]
    assert drawn(next(tmp_path.glob("*.png")))
    rows = list(csv.DictReader(next(tmp_path.glob("*.csv")).open()))
    assert [(row["run"], float(row["low"]), int(row["count"])) for row in rows] == [
        (entry["label"], low, count)
        for entry in found["runs"]
        for low, count in zip(edges[:-1], entry["counts"], strict=True)
    ]


def test_zeros_of_a_factored_run_are_counted_apart(factored: Path, tmp_path: Path) -> None:
    array = weights(factored)
    assert (array == 0).mean() > 0.5
    (entry,) = made(tmp_path, f"run={factored}")["runs"]
    assert entry["zeros"] == (array == 0).sum()
    assert entry["zero_share"] == pytest.approx((array == 0).mean())
    assert sum(entry["counts"]) == (array != 0).sum()
    assert entry["nonzero_standard_deviation"] == pytest.approx(array[array != 0].std(), rel=1e-5)
    assert entry["standard_deviation"] == pytest.approx(array.std(), rel=1e-5)


def test_normalised_to_the_largest_magnitude_of_each(finished: Runs, factored: Path, tmp_path: Path) -> None:
    found = made(tmp_path, f"run={finished[1]}", f"run={factored}", "normalised=true", "bins=10")
    assert found["edges"] == pytest.approx(np.linspace(-1, 1, 11))
    for entry, folder in zip(found["runs"], (finished[1], factored), strict=True):
        array = weights(folder)
        assert entry["divided_by"] == entry["largest"] == pytest.approx(np.abs(array).max())
        assert entry["counts"] == inside(array / np.abs(array).max(), found["edges"])
        assert entry["counts"][0] + entry["counts"][-1] > 0
        assert entry["mean"] == pytest.approx(array.mean(), rel=1e-5)


def test_some_layers(finished: Runs, tmp_path: Path) -> None:
    found = made(tmp_path, f"run={finished[0]}", "layers=conv*")
    assert found["runs"][0]["layers"] == ["conv1", "conv2"]
    assert found["runs"][0]["counts"] == inside(weights(finished[0], "conv1", "conv2"), found["edges"])
    assert len(found["runs"][0]["counts"]) == 100


def test_runs_of_other_data_without_any_data_at_hand(
    finished: Runs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = shutil.copytree(finished[1], tmp_path / "copy")
    report = json.loads((copy / "report.json").read_text())
    report["run"]["dataset"], report["data"]["checksum"] = "elsewhere", "0"
    (copy / "report.json").write_text(json.dumps(report))
    monkeypatch.setattr("robcomp.data.load", None)
    labels = [entry["label"] for entry in made(tmp_path / "out", f"run={finished[1]},{copy}")["runs"]]
    assert labels == [f"{data} lenet da {finished[1].name[:6]}" for data in ("tiny", "elsewhere")]
    assert "0.0 %" in capsys.readouterr().out


def test_a_network_of_zeros(finished: Runs, tmp_path: Path) -> None:
    copy = shutil.copytree(finished[0], tmp_path / "copy")
    model, spec, bits = artifact.load(copy / "model.rcz")
    for parameter in model.parameters():
        parameter.data.zero_()
    artifact.save(model, spec, bits, copy / "model.rcz")
    (entry,) = made(tmp_path / "out", f"run={copy}", "normalised=true")["runs"]
    assert (entry["zero_share"], entry["largest"], sum(entry["counts"])) == (1, 0, 0)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["bins=0"], "bins=0 is not a number of bins"),
        (["bins=few"], "bins=few is not a number of bins"),
        (["bins=2.5"], "bins=2.5 is not a number of bins"),
        (["layers=block*"], "matches no layer"),
        (["normalised=yes"], "normalised=yes is neither"),
        (["attack=quick"], "unknown key 'attack'; choose from bins, layers, normalised, out, run"),
        (["binz=3"], "Did you mean bins?"),
        (["run=nowhere"], "run=nowhere is not a finished run"),
    ],
)
def test_refusals(finished: Runs, words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["histogram", f"run={finished[0]}", *words]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert said in line


def test_without_a_run_or_a_network(finished: Runs, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["histogram"]) == 2
    assert "write run=" in capsys.readouterr().err
    copy = shutil.copytree(finished[0], tmp_path / "copy")
    (copy / "model.rcz").unlink()
    assert main(["histogram", f"run={copy}"]) == 2
    assert "no network at" in capsys.readouterr().err


def test_help_gives_an_example(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["histogram", "--help"])
    assert "robcomp histogram " in capsys.readouterr().out.split("example:")[1]
