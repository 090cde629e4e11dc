"""Runs on a folder of pictures: which runs are the same, what an evaluation refuses, and where commands may start."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from robcomp.cli.parser import main

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("sandbox", "no_curves")]

TINY = [
    "dataset=folder",
    "dataset.shape=[3,16,16]",
    "dataset.pad=2",
    "method=al0",
    "model=lenet",
    "model.width=0.1",
    "training.attack.steps=1",
    "attack.attacks.pgd.steps=1",
    "schedule.dense.epochs=1",
    "schedule.sparse.epochs=1",
    "attack.verdict=0",
    "device=cpu",
]


def photos(folder: Path, seed: int = 0, classes: tuple[str, ...] = ("cats", "dogs"), count: int = 10) -> Path:
    """Noise of another brightness for each class."""
    random = np.random.default_rng(seed)
    for index, name in enumerate(classes):
        (folder / name).mkdir(parents=True)
        for i in range(count):
            pixels = random.integers(60 * index, 60 * index + 90, (20, 18, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{i}.png")
    return folder


def trained(path: object, *overrides: str) -> tuple[Path, dict]:
    """The run directory and the report of a run on the pictures under `path`, out of outputs/."""
    before = set(Path("outputs").glob("*-*/*/report.json"))
    assert main(["train", *TINY, f"dataset.path={path}", *overrides]) == 0
    (report,) = set(Path("outputs").glob("*-*/*/report.json")) - before
    return report.parent, json.loads(report.read_text())


def refusal(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    capsys.readouterr()
    assert main(arguments) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    return said


def test_folders_of_the_same_name_are_runs_of_their_own(tmp_path: Path) -> None:
    first, one = trained(photos(tmp_path / "a" / "photos"))
    second, two = trained(photos(tmp_path / "b" / "photos", seed=1))
    assert first.parent == second.parent == Path("outputs/photos-lenet-al0")
    assert one["data"]["checksum"] != two["data"]["checksum"]
    assert one["stages"][0]["key"] != two["stages"][0]["key"]
    assert (one["data"]["own"], one["data"]["classes"], one["data"]["test"]) == (True, 2, 4)


def test_an_added_picture_makes_another_run_and_another_spelling_does_not(tmp_path: Path) -> None:
    folder = photos(tmp_path / "photos")
    first, _ = trained(folder)
    assert main(["train", *TINY, f"dataset.path={os.path.relpath(folder)}"]) == 0
    assert len(list(Path("outputs").glob("photos-*/*"))) == 1
    (folder / "cats" / "more.png").write_bytes((folder / "cats" / "0.png").read_bytes())
    second, report = trained(folder)
    assert second != first
    assert report["data"]["train"] + report["data"]["val"] + report["data"]["test"] == 21


def test_a_sweep_over_folders_is_as_many_runs(tmp_path: Path) -> None:
    for name in ("one", "two"):
        photos(tmp_path / name, seed=len(name))
    os.chdir(tmp_path)
    assert main(["train", "-m", *TINY, "dataset.path=one,two"]) == 0
    reports = [json.loads(path.read_text()) for path in Path("outputs").glob("*-lenet-al0/*/report.json")]
    assert {report["run"]["dataset"] for report in reports} == {"one", "two"}
    assert all(f"dataset.path='{tmp_path}/" in " ".join(report["run"]["overrides"]) for report in reports)


@pytest.mark.parametrize("name", ["my photos", "it's", "a=b,c", "größe", "back\\slash"])
def test_any_folder_name_will_do_and_an_evaluation_may_start_elsewhere(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    photos(tmp_path / name)
    quoted = name.replace("'", "\\'")
    folder, _ = trained(f"'{quoted}'" if set(name) & set("'=,\\ö") else name)
    run = folder.resolve()
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert main(["evaluate", f"run={run}", "attack.attacks.pgd.steps=2"]) == 0
    assert list(run.glob("evaluation-*.json"))


@pytest.mark.parametrize("change", ["picture", "class", "dataset.test_fraction=0.5", "dataset.shape=[1,16,16]"])
def test_an_evaluation_on_other_images_is_refused(
    tmp_path: Path, change: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """They could be the ones that it was trained on: the split depends on all pictures."""
    pictures = photos(tmp_path / "photos")
    folder, _ = trained(pictures)
    if change == "picture":
        (pictures / "cats" / "more.png").write_bytes((pictures / "cats" / "0.png").read_bytes())
    if change == "class":
        photos(pictures, seed=3, classes=("ants",))
    overrides = [change] if "=" in change else []
    assert "was trained on other photos images" in refusal(["evaluate", f"run={folder}", *overrides], capsys)
    assert not list(folder.glob("evaluation-*"))


@pytest.mark.parametrize("key", ["out", "data_dir"])
def test_nothing_is_written_among_the_pictures(tmp_path: Path, key: str, capsys: pytest.CaptureFixture[str]) -> None:
    pictures = photos(tmp_path / "photos")
    said = refusal(["train", *TINY, f"dataset.path={pictures}", f"{key}={pictures}/runs"], capsys)
    assert f"{key}={pictures}/runs lies inside dataset.path={pictures}" in said
    os.chdir(pictures)
    assert "lies inside" in refusal(["train", *TINY, "dataset.path=."], capsys)
    assert sorted(path.name for path in pictures.iterdir()) == ["cats", "dogs"]


@pytest.mark.parametrize("path", ["nothere", "~nobody-of-that-name/x", ""])
def test_a_folder_that_is_not_there_leaves_nothing_behind(path: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert "dataset.path" in refusal(["train", *TINY, f"dataset.path={path}"], capsys)
    assert not Path("outputs").exists()


def test_a_sweep_with_a_missing_file_of_weights_is_refused_before_its_first_run(
    capsys: pytest.CaptureFixture[str],
) -> None:
    said = refusal(["train", "-m", "dataset=digits", "model.weights=a.pt,b.pt", "device=cpu"], capsys)
    assert "model.weights=a.pt is not a file" in said
    assert not Path("outputs").exists()
