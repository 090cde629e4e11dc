"""Files of the user's own, in a folder laid out like conf/: --config-dir, hydra.searchpath and +experiment=."""

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from tiny import typed

from robcomp.cli.parser import main
from robcomp.errors import UserError
from robcomp.settings.choices import choices, summaries
from robcomp.settings.compose import compose_config
from robcomp.settings.override_paths import absolute_paths, where_found, with_config_dir

pytestmark = pytest.mark.usefixtures("sandbox", "no_curves")

FILES = {
    "method/mine.yaml": "# A-l0 at a fiftieth\ndefaults: [al0, _self_]\nname: mine\nratio: 0.02\n",
    "attack/strong.yaml": "name: strong\nattacks:\n  pgd: {eps: '${threat.eps}', steps: 3, restarts: 2}\n",
    "experiment/foo.yaml": (
        "# @package _global_\n# A-l0 on MNIST\ndefaults:\n  - override /method: al0\n  - override /dataset: mnist\n"
        "training: {batch_size: 256}\nseed: 7\n"
    ),
}


def write(folder: Path, files: dict[str, str] = FILES) -> Path:
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


@pytest.fixture
def mine(sandbox: Path) -> Path:
    return write(sandbox / "my conf, 'new'")


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert main(arguments) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.endswith((".", "?"))
    return line


def composed(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, dict[str, object]]:
    assert main(["train", "--cfg", "job", *arguments]) == 0
    return yaml.safe_load(capsys.readouterr().out)


@pytest.mark.parametrize(
    "how",
    [
        lambda folder: ["--config-dir", str(folder)],
        lambda folder: ["-cd", folder.name],
        lambda folder: [f'hydra.searchpath=["file://{folder}"]'],
        lambda folder: [f'hydra.searchpath=["{folder.name}"]'],
    ],
)
def test_ones_own_method_and_suite(
    mine: Path, how: Callable[[Path], list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    config = composed(capsys, *how(mine), "method=mine", "attack=strong")
    assert (config["method"]["name"], config["method"]["ratio"]) == ("mine", 0.02)
    assert list(config["attack"]["attacks"]) == ["pgd"]


def test_an_experiment_changes_groups_and_fields_and_the_command_line_wins(
    mine: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = composed(capsys, "--config-dir", str(mine), "+experiment=foo", "seed=8")
    assert (config["method"]["name"], config["dataset"]["name"]) == ("al0", "mnist")
    assert (config["training"]["batch_size"], config["seed"]) == (256, 8)


def test_two_folders_and_a_package(
    mine: Path, sandbox: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write(sandbox / "others" / "conf", {"model/tiny.yaml": "defaults: [lenet@_global_, _self_]\n"})
    (sandbox / "others" / "__init__.py").touch()
    (sandbox / "others" / "conf" / "__init__.py").touch()
    monkeypatch.syspath_prepend(sandbox)
    sys.modules.pop("others", None)
    searched = "hydra.searchpath=[pkg://others.conf]"
    config = composed(capsys, searched, "--config-dir", str(mine), "method=mine", "model=tiny", "model.width=0.5")
    assert (config["method"]["name"], config["model"]["width"]) == ("mine", 0.5)


def test_ones_own_files_are_listed_and_suggested(mine: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert choices("method", [mine]) == sorted([*choices("method"), "mine"])
    assert summaries("method", [mine])["mine"] == "A-l0 at a fiftieth"
    assert main(["list", "--config-dir", str(mine)]) == 0
    lines = {tuple(line.split(maxsplit=1)) for line in capsys.readouterr().out.splitlines() if line.startswith("  ")}
    assert ("mine", "A-l0 at a fiftieth") in lines
    assert ("foo", "A-l0 on MNIST") in lines
    assert main(["list"]) == 0
    assert "fiftieth" not in capsys.readouterr().out
    assert "Did you mean mine" in refused(capsys, "train", "--config-dir", str(mine), "method=mien")
    assert "--config-dir DIR" in refused(capsys, "list", "experiments")


@pytest.mark.slow
def test_a_run_keeps_the_folder_and_is_evaluated_from_anywhere(
    mine: Path, sandbox: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    small = [override for override in typed("al0") if not override.startswith("method=")]
    assert main(["train", "-cd", mine.name, *small, "method=mine"]) == 0
    (report,) = sandbox.glob("outputs/tiny-*-mine/*/report.json")
    (sandbox / "elsewhere").mkdir()
    monkeypatch.chdir(sandbox / "elsewhere")
    attacked = ["evaluate", f"run={report.parent}", "attack=strong", "attack.verdict=0"]
    assert main(attacked) == 0
    (page,) = report.parent.glob("evaluation-*.json")
    assert json.loads(page.read_text())["accuracy"]["attacks"]["pgd"]["attack"]["restarts"] == 2
    capsys.readouterr()
    mine.rename(sandbox / "moved")
    assert f"{mine} is no folder" in refused(capsys, *attacked)
    assert main([*attacked, "--config-dir", str(sandbox / "moved"), "fresh=true"]) == 0


BAD = {
    "no_folder": ("", "--config-dir nowhere", "nowhere is no folder", "DIR/method/mine.yaml"),
    "a_file": ("method/x.yaml", "--config-dir own/method/x.yaml", "is no folder", "laid out like conf/"),
    "no_package": ("", "hydra.searchpath=[pkg://no.such]", "pkg://no.such is no package", "conf/"),
    "no_scheme": ("", "hydra.searchpath=[s3://x]", "'s3://x' cannot be read", "file://FOLDER"),
    "no_list": ("", "hydra.searchpath=own", "is no list of folders", "hydra.searchpath=["),
    "plus": ("", "+hydra.searchpath=[own]", "+hydra.searchpath", "without a plus"),
    "clash": ("method/al0.yaml", "--config-dir own method=al0", "method=al0 stands for", "rename your own"),
    "clash_in_an_experiment": (
        "method/al0.yaml experiment/e.yaml:# @package _global_\ndefaults: [override /method: al0]",
        "--config-dir own +experiment=e",
        "method=al0 stands for",
        "rename your own",
    ),
    "no_method": ("method/x.yaml:ratio: 3", "--config-dir own method=x", "x.yaml builds on no method", "defaults: ["),
    "unknown_key": ("method/x.yaml:defaults: [al0]\nrato: 3", "--config-dir own method=x", "method.rato", "x.yaml"),
    "no_yaml": ("method/x.yaml:a: [1\nb: 2", "--config-dir own method=x", "x.yaml, line 2", "YAML"),
    "unknown_default": ("method/x.yaml:defaults: [al9]", "--config-dir own method=x", "'method/al9'", "x.yaml"),
    "experiment_without_folder": ("", "+experiment=foo", "+experiment=foo asks for a file", "--config-dir DIR"),
    "experiment_without_plus": ("experiment/e.yaml", "-cd own experiment=e", "experiment=e", "+experiment=e."),
    "unknown_experiment": ("experiment/e.yaml", "-cd own +experiment=f", "unknown experiment 'f'", "choose from e"),
    "no_experiments": ("method/x.yaml", "-cd own +experiment=f", "no experiment/*.yaml in", "write one"),
    "experiment_of_no_package": ("experiment/e.yaml:seed: 3", "-cd own +experiment=e", "e.yaml needs", "@package"),
    "experiment_of_hydras": (
        "experiment/e.yaml:# @package _global_\nhydra: {run: {dir: x}}",
        "-cd own +experiment=e",
        "e.yaml: hydra.run would change nothing",
        "out=DIR",
    ),
    "one_of_two_experiments": (
        "experiment/e.yaml:# @package _global_\nhydra: {mode: RUN}",
        "-cd own +experiment=[e]",
        "e.yaml: hydra.mode would change nothing",
        "-m",
    ),
    "experiment_of_another_type": (
        "experiment/e.yaml:# @package _global_\nseed: many",
        "-cd own +experiment=e",
        "seed=many has the wrong type; a whole number is allowed",
        "e.yaml",
    ),
    "experiment_for_another_method": (
        "experiment/e.yaml:# @package _global_\nschedule: {retrain: {epochs: 3}}",
        "-cd own +experiment=e",
        "schedule.retrain is for a stage that method=atmc does not have",
        "its stages are",
    ),
    "recipe_for_another_method": (
        "recipe/r.yaml:# @package _global_\nmethod: {layers: conv}",
        "-cd own recipe=r",
        "no key method.layers",
        "r.yaml",
    ),
    "experiment_with_a_typo": (
        "experiment/e.yaml:# @package _global_\nsed: 3",
        "-cd own +experiment=e",
        "no key sed",
        "e.yaml",
    ),
}


@pytest.mark.parametrize(("files", "words", "given", "cure"), BAD.values(), ids=BAD)
def test_what_is_wrong_with_ones_own_files_is_one_sentence(
    files: str,
    words: str,
    given: str,
    cure: str,
    sandbox: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("robcomp.runs.train.train", lambda *_: pytest.fail("it was accepted"))
    named = [files] if ":" in files and files.count(".yaml") == 1 else files.split(" ", 1)
    write(sandbox / "own", {"method/.keep": ""})
    write(sandbox / "own", {name: text for name, _, text in (file.partition(":") for file in named) if name})
    line = refused(capsys, "train", *words.split(" "))
    assert given in line
    assert cure in line


def test_folders_are_kept_as_one_override_in_front(mine: Path, sandbox: Path) -> None:
    other = write(sandbox / "other")
    first, *rest = with_config_dir(["seed=1", "hydra.searchpath=[other,'other']"], str(mine))
    assert rest == ["seed=1"]
    assert absolute_paths([first]) == [first]
    assert compose_config([first, "seed=1"]).seed == 1
    assert f"file://{other}" in first
    assert first.count("file://") == 2
    with pytest.raises(UserError, match="stands for"):
        compose_config([first, "method=mine"])


def test_folders_that_are_gone_are_left_out(mine: Path, sandbox: Path) -> None:
    assert where_found("hydra.searchpath=[/gone]") == []
    assert where_found("seed=3") == ["seed=3"]
    write(sandbox / "other")
    assert where_found("hydra.searchpath=[/gone,other]") == [f"hydra.searchpath=['file://{sandbox}/other']"]
