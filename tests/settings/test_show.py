"""The configuration as `--cfg` prints it: valid YAML, of Hydra's kinds, in whole or one node."""

from pathlib import Path

import pytest
import yaml
from omegaconf import OmegaConf

from robcomp.cli.parser import main
from robcomp.errors import UserError
from robcomp.settings.compose import compose_node
from robcomp.settings.show import shown

pytestmark = pytest.mark.usefixtures("sandbox")


def test_job_hydra_and_all() -> None:
    job, hydra, both = (yaml.safe_load(shown(["seed=3"], part)) for part in ("job", "hydra", "all"))
    assert job == OmegaConf.to_container(compose_node(["seed=3"]))
    assert list(hydra) == ["hydra"]
    assert hydra["hydra"]["runtime"]["choices"]["method"] == "atmc"
    assert both == job | hydra


def test_resolved_there_is_no_interpolation_left() -> None:
    plain, resolved = shown([]), shown([], resolve=True)
    assert "${" in plain
    assert "${" not in resolved
    assert yaml.safe_load(resolved)["method"]["ratio"] == yaml.safe_load(plain)["ratio"]


@pytest.mark.parametrize(
    ("package", "values"),
    [
        ("schedule.dense", {"epochs": 30, "optimizer": "adam"}),
        ("seed", {"seed": 3}),
        ("method.ratio", {"ratio": "${ratio}"}),
        ("_global_", {"seed": 3}),
    ],
)
def test_one_node(package: str, values: dict[str, object]) -> None:
    text = shown(["seed=3"], package=package)
    composed = yaml.safe_load(text)
    assert {key: composed[key] for key in values} == values
    assert len(composed) == len(values) or package in ("schedule.dense", "_global_")
    assert text.startswith(f"# @package {package}\n") is (package != "_global_")


def test_a_node_that_is_not_there() -> None:
    with pytest.raises(UserError, match=r"--package method.rati: unknown key of method 'rati'.*Did you mean ratio\?"):
        shown([], package="method.rati")
    with pytest.raises(UserError, match=r"--package nope.x: there is no node nope"):
        shown([], package="nope.x")


@pytest.mark.slow
def test_a_sweep_is_one_document_a_run_with_its_overrides_above(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "-m", "-c", "job", "seed=0,1", "method=al0,atmc", "out='a\tb'"]) == 0
    text = capsys.readouterr().out
    documents = list(yaml.safe_load_all(text))
    assert [(d["seed"], d["method"]["name"]) for d in documents] == [(0, "al0"), (0, "atmc"), (1, "al0"), (1, "atmc")]
    heads = [line for line in text.splitlines() if line.startswith("# run")]
    assert heads[2] == "# run 3 of 4: seed=1 method=al0 out='a b'"
    assert main(["train", "-m", "--cfg", "job", "-p", "method", "seed=3"]) == 0
    (only,) = yaml.safe_load_all(capsys.readouterr().out)
    assert only["name"] == "atmc"


@pytest.mark.slow
def test_nothing_is_printed_of_a_sweep_with_a_wrong_run(capsys: pytest.CaptureFixture[str], sandbox: Path) -> None:
    assert main(["train", "-m", "--cfg", "job", "method.ratio=0.1,2", "seed=0,1", "method=al0"]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("robcomp: run 3 of 4 (method.ratio=2 seed=0): method.ratio=2 is out of range")
    assert list(sandbox.iterdir()) == []


@pytest.mark.parametrize("override", ["hydra/launcher=joblib", "method=atcm", "dataset=="])
def test_what_is_wrong_with_all_runs_of_a_sweep_is_of_none(override: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "-m", "seed=0,1", override]) == 2
    assert "run 1" not in capsys.readouterr().err
