"""Finished runs read back: what is taken from them, and when they cannot be put together."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from robcomp.errors import UserError
from robcomp.runs.load import load, load_all, same_images

Runs = tuple[Path, Path]


def test_a_run_comes_back_as_it_was_configured(finished: Runs) -> None:
    run = load(finished[0], ["seed=3"])
    assert run.config.method.name == "nat"
    assert run.config.seed == 3
    assert run.config.attack.attacks["pgd"]["steps"] == 2
    assert len(run.dataset.test) == 20
    assert not run.model.training
    assert run.label == f"lenet nat {finished[0].name[:6]}"


def test_a_run_in_doubt_carries_the_mark_in_its_label(finished: Runs, tmp_path: Path) -> None:
    copy = shutil.copytree(finished[0], tmp_path / "copy")
    report = json.loads((copy / "report.json").read_text())
    report["verdict"] = {"trusted": False, "images": 100, "checks": []}
    (copy / "report.json").write_text(json.dumps(report))
    assert load(copy, []).label.endswith(" (!)")


def test_another_suite_takes_nothing_from_that_of_the_training(finished: Runs) -> None:
    assert load(finished[0], ["attack=pgd100"]).config.attack.attacks["pgd"]["steps"] == 100
    assert load_all([finished[0]], [])[0].config.attack.name == "pgd100"
    assert load_all([finished[0]], ["attack=quick"])[0].config.attack.name == "quick"


def test_a_run_that_was_started_over_is_not_evaluated_anew_each_time(finished: Runs, tmp_path: Path) -> None:
    copy = shutil.copytree(finished[0], tmp_path / "copy")
    report = json.loads((copy / "report.json").read_text())
    report["run"]["overrides"].append("fresh=true")
    (copy / "report.json").write_text(json.dumps(report))
    assert not load(copy, []).config.fresh
    assert load(copy, ["fresh=true"]).config.fresh


def test_runs_of_one_name_are_told_apart_by_their_folders(finished: Runs, tmp_path: Path) -> None:
    copy = shutil.copytree(finished[0], tmp_path / "copy")
    assert [run.label for run in load_all([finished[0], copy], [])] == [str(finished[0]), str(copy)]


def test_runs_share_their_images(finished: Runs) -> None:
    first, second = load_all(finished, [])
    assert first.dataset is second.dataset
    fewer = load(finished[1], ["dataset.test_subset=10"])
    with pytest.raises(UserError, match=r"tested on 10 images .* on 20; add dataset\.test_subset=N"):
        same_images([first, fewer])
    other = replace(second, dataset=replace(second.dataset, classes=("a", "b", "c")))
    with pytest.raises(UserError, match="images or classes differ"):
        same_images([first, other])


def test_other_data_than_at_training_are_refused(finished: Runs, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="leave dataset= out"):
        load(finished[0], ["dataset.name=other"])
    copy = shutil.copytree(finished[0], tmp_path / "copy")
    report = json.loads((copy / "report.json").read_text())
    report["data"]["checksum"] = "0"
    (copy / "report.json").write_text(json.dumps(report))
    with pytest.raises(UserError, match="was trained on other tiny images"):
        load(copy, [])
