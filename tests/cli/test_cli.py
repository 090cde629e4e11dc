"""The command line: its commands, its exit codes, what it writes, and how soon it answers."""

import inspect
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from rich.console import Console
from tiny import RUN, typed

import robcomp
from robcomp.attacks import ATTACKS
from robcomp.cli.parser import main
from robcomp.models import MODELS
from robcomp.settings.choices import GROUPS, choices
from robcomp.settings.compose import compose_config
from robcomp.sweeps.sweep import Means
from robcomp.trainers.method import METHODS

pytestmark = pytest.mark.usefixtures("sandbox", "no_curves")

ROOT = Path(__file__).resolve().parents[2]
TRAIN = ["train", *typed("nat")]
COMMANDS = [
    "train",
    "plan",
    "evaluate",
    "curve",
    "transfer",
    "combine",
    "sensitivity",
    "histogram",
    "losses",
    "compare",
    "list",
    "completion",
    "table",
]
LISTS = [f"{group}s" for group in (*GROUPS, "table")]


def shell(*arguments: str) -> tuple[subprocess.CompletedProcess[str], float]:
    """`python -m robcomp ...` in a process of its own, and the best time of three."""
    command, best = [sys.executable, "-m", "robcomp", *arguments], float("inf")
    for _ in range(3):
        started = time.monotonic()
        result = subprocess.run(command, capture_output=True, text=True)
        best = min(best, time.monotonic() - started)
        if best < 0.8:
            break
    return result, best


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """The one line with which these arguments are refused."""
    assert main(arguments) == 2
    captured = capsys.readouterr()
    (line,) = captured.err.splitlines()
    assert line.startswith("robcomp: ")
    return line


def reports(folder: Path = Path("outputs")) -> list[Path]:
    return sorted(folder.glob("tiny-*/*/report.json"))


@pytest.mark.parametrize("command", [[], ["train"], ["evaluate"], ["list"], ["table"]])
def test_help_answers_at_once_without_torch(command: list[str]) -> None:
    result, seconds = shell(*command, "--help")
    assert result.returncode == 0
    assert "usage: robcomp" in result.stdout
    assert seconds < 1


@pytest.mark.parametrize("group", LISTS)
def test_a_list_answers_at_once(group: str) -> None:
    result, seconds = shell("list", group)
    assert result.returncode == 0
    assert result.stdout.startswith(group.removesuffix("s"))
    assert seconds < 1


def test_help_and_lists_do_not_import_torch() -> None:
    asked = [[], *(["list", group] for group in LISTS), *([command, "--help"] for command in COMMANDS)]
    program = (
        "import sys, robcomp.cli.parser\n"
        f"for arguments in {asked}:\n"
        "    try: robcomp.cli.parser.main(arguments)\n"
        "    except SystemExit: pass\n"
        "assert not {'torch', 'hydra', 'numpy', 'omegaconf', 'rich'} & set(sys.modules), sorted(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], check=True, stdout=subprocess.DEVNULL)


@pytest.mark.slow
def test_a_wrong_configuration_answers_soon() -> None:
    result, seconds = shell("train", "method=atcm")
    assert result.returncode == 2
    assert result.stdout == ""
    assert "Traceback" not in result.stderr
    assert result.stderr.startswith("robcomp: unknown method 'atcm'")
    assert seconds < 4


def test_help_of_train_shows_every_choice(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["train", "--help"])
    assert ended.value.code == 0
    text = capsys.readouterr().out
    for group in GROUPS:
        assert re.search(rf"^  {group} +{', '.join(choices(group))}$", text, re.MULTILINE), group


def test_list_names_everything_with_a_line_of_its_own(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list"]) == 0
    lines = [line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines() if line.startswith("  ")]
    named = dict(lines)
    for name in [*METHODS, "fgsm", "pgd", *(c for g in (*GROUPS, "table") for c in choices(g))]:
        assert len(named[name]) > 10, name
    assert {"digits", "mnist", "cifar10", "lenet", "resnet18", "resnet34", "quick", "atmc-mnist"} <= set(named)


def test_every_choice_of_method_and_model_is_a_registered_one() -> None:
    assert set(choices("method")) == set(METHODS)
    kinds = {compose_config([f"model={name}"]).model.kind for name in choices("model")}
    assert kinds == set(MODELS)


@pytest.mark.parametrize("group", [["attacks"], []])
def test_attacks_are_listed_with_the_first_sentence_of_their_docstrings(
    group: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["list", *group]) == 0
    suites, attacks = capsys.readouterr().out.split("attacks (one more in a suite")
    lines = [line.split(maxsplit=1) for line in attacks.splitlines() if line.startswith("  ")]
    said = {name: " ".join(inspect.getdoc(cls).split("\n\n")[0].split()) for name, cls in ATTACKS.items()}
    assert len(lines) == len(said)
    assert dict(lines) == said
    assert not any(text.startswith(f"{ATTACKS[name].__name__}(") for name, text in said.items())  # a signature
    for suite in choices("attack"):
        assert re.search(rf"^  {suite} ", suites, re.MULTILINE), suite


def test_list_of_one_group(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", "methods"]) == 0
    out = capsys.readouterr().out
    assert "al0" in out
    assert "digits" not in out
    assert "unknown group 'method'" in refused(capsys, "list", "method")


@pytest.mark.parametrize("command", ["curve", "transfer", "combine", "compare"])
def test_help_of_an_analysis_gives_an_example(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main([command, "--help"])
    text = capsys.readouterr().out
    assert f"robcomp {command} " in text.split("example:")[1]


def test_no_command_is_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    assert "usage: robcomp" in capsys.readouterr().out


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--version"])
    assert capsys.readouterr().out.strip() == f"robcomp {robcomp.__version__}"


@pytest.mark.parametrize(
    "arguments",
    [["trian"], ["train", "--fast"], ["table"], ["train", "--cfg", "jobs"], ["table", "atmc-mnist", "--target", "x"]],
)
def test_what_argparse_refuses(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("robcomp")
    assert "error: " in last


def test_cfg_job_prints_the_composed_yaml_and_does_nothing(sandbox: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "--cfg", "job", "dataset=mnist", "method=al0", "seed=7"]) == 0
    composed = yaml.safe_load(capsys.readouterr().out)
    assert (composed["dataset"]["name"], composed["method"]["name"], composed["seed"]) == ("mnist", "al0", 7)
    assert composed["threat"]["eps"] == "76/255"
    assert composed["schedule"]["dense"]["lr"] == 0.05
    assert list(sandbox.iterdir()) == []


def test_options_may_stand_anywhere(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "seed=7", "--cfg", "job", "method=al0"]) == 0
    composed = yaml.safe_load(capsys.readouterr().out)
    assert (composed["method"]["name"], composed["seed"]) == ("al0", 7)


def test_cfg_job_of_a_wrong_configuration(capsys: pytest.CaptureFixture[str]) -> None:
    assert "method.ratio=3" in refused(capsys, "train", "--cfg", "job", "method.ratio=3")


def test_what_only_the_machine_or_the_data_can_refuse(capsys: pytest.CaptureFixture[str]) -> None:
    assert "device=cuda:99" in refused(capsys, *TRAIN, "device=cuda:99")
    assert "dataset.val=800" in refused(capsys, *TRAIN, "dataset.val=800")
    assert "dataset.shape=[1, 20, 20]" in refused(capsys, *TRAIN, "dataset.shape=[1,20,20]")
    said = refused(capsys, *TRAIN, "dataset.name=tinyy")
    assert "unknown dataset 'tinyy'" in said
    assert "tinyy.safetensors either." in said
    assert not reports()


def test_divergence_is_a_sentence_too(capsys: pytest.CaptureFixture[str]) -> None:
    assert "lower schedule.dense.lr" in refused(capsys, *TRAIN, "schedule.dense.lr=1e30")


def test_a_run_is_quiet_without_a_terminal_and_ends_with_its_directory(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(TRAIN) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    assert "\x1b" not in captured.out
    assert str(reports()[0].parent) in captured.out.replace("\n", "")


def test_a_finished_run_is_skipped_and_fresh_does_it_again(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(TRAIN) == 0
    (report,) = reports()
    first = report.stat().st_mtime_ns
    capsys.readouterr()
    assert main(TRAIN) == 0
    assert "already finished" in capsys.readouterr().out
    assert report.stat().st_mtime_ns == first
    assert main([*TRAIN, "fresh=true"]) == 0
    assert reports() == [report]
    assert report.stat().st_mtime_ns > first
    assert not json.loads(report.read_text())["stages"][0]["cached"]


def test_out_is_where_everything_goes(sandbox: Path) -> None:
    assert main([*TRAIN, "out=there/too"]) == 0
    assert len(reports(sandbox / "there" / "too")) == 1
    assert [path.name for path in sandbox.iterdir()] == ["there"]


def test_a_sweep_expands_and_skips_what_is_finished(capsys: pytest.CaptureFixture[str]) -> None:
    sweep = ["train", "-m", *typed("nat"), "method=nat,da", "seed=0,1"]
    assert main([*TRAIN, "seed=1"]) == 0
    (first,) = reports()
    before = first.stat().st_mtime_ns
    capsys.readouterr()
    assert main(sweep) == 0
    out = capsys.readouterr().out
    runs = [json.loads(path.read_text())["run"] for path in reports()]
    assert sorted((run["method"], run["seed"]) for run in runs) == [("da", 0), ("da", 1), ("nat", 0), ("nat", 1)]
    assert out.count("already finished") == 1
    assert first.stat().st_mtime_ns == before
    assert "4 of 4 runs finished" in out
    assert main(sweep) == 0
    assert capsys.readouterr().out.count("already finished") == 4


def test_a_sweep_goes_on_after_a_failed_run(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "-m", *typed("nat"), "schedule.dense.lr=1e30,0.001", "seed=0"]) == 1
    out = capsys.readouterr().out
    assert len(reports()) == 1
    (failure,) = Path("outputs").glob("tiny-*/*/failure.txt")
    assert not (failure.parent / "report.json").exists()
    assert "Traceback" in failure.read_text()
    assert "diverged" in failure.read_text()
    assert "1 of 2 runs finished" in out
    assert "failed: " in out
    assert "failure.txt" in out.replace("\n", "")


def test_a_run_that_failed_before_and_now_finishes_is_no_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    sweep = ["train", "-m", *typed("nat"), "seed=0,1"]
    with monkeypatch.context() as patch:
        patch.setattr("robcomp.artifact.save", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
        assert main(sweep) == 1
    assert len(list(Path("outputs").glob("tiny-*/*/failure.txt"))) == 2
    assert main(sweep) == 0
    assert len(reports()) == 2
    assert not list(Path("outputs").glob("tiny-*/*/failure.txt"))


def test_a_sweep_is_checked_before_its_first_run(capsys: pytest.CaptureFixture[str]) -> None:
    assert "'atcm'" in refused(capsys, "train", "-m", *RUN, "method=nat,atcm")
    assert "method.ratio=2" in refused(capsys, "train", "-m", *RUN, "method=al0", "method.ratio=0.1,2")
    assert "cannot read 'method.ratio=0.1,'" in refused(capsys, "train", "-m", "method.ratio=0.1,")
    assert not Path("outputs").exists()


def test_evaluate_writes_another_report_beside_the_first(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*TRAIN, "attack=quick"]) == 0
    folder = reports()[0].parent
    before = (folder / "report.json").read_bytes()
    again = ["evaluate", f"run={folder}", "attack=quick", "threat.eps=0.3", "attack.attacks.pgd.steps=5"]
    assert main(again) == 0
    (path,) = folder.glob("evaluation-*.json")
    report = json.loads(path.read_text())
    assert report["evaluation"]["threat"]["eps"] == 0.3 != report["threat"]["eps"]
    assert report["accuracy"]["attacks"]["pgd"]["attack"]["steps"] == 5
    assert report["accuracy"]["attacks"]["pgd"]["attack"]["eps"] == 0.3
    assert report["accuracy"]["clean"] == json.loads(before)["accuracy"]["clean"]
    assert path.with_suffix(".npz").exists()
    assert (folder / "report.json").read_bytes() == before
    assert main(again) == 0
    assert list(folder.glob("evaluation-*.json")) == [path]
    assert main(["evaluate", f"run={folder}", "attack=atmc"]) == 0
    assert len(list(folder.glob("evaluation-*.json"))) == 2


def test_evaluate_attacks_the_file(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(TRAIN) == 0
    folder = reports()[0].parent
    content = bytearray((folder / "model.rcz").read_bytes())
    content[len(content) // 2] ^= 0xFF
    (folder / "model.rcz").write_bytes(content)
    capsys.readouterr()
    assert "model.rcz" in refused(capsys, "evaluate", f"run={folder}")


def test_evaluate_refuses_what_is_no_run(sandbox: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "run=DIR" in refused(capsys, "evaluate")
    assert "run=a is not a finished run" in refused(capsys, "evaluate", "run=a", "run=b")
    assert "nowhere is not a finished run" in refused(capsys, "evaluate", "run=nowhere")
    (sandbox / "empty").mkdir()
    assert "empty is not a finished run" in refused(capsys, "evaluate", "run=empty")
    (sandbox / "empty" / "report.json").write_text("[1]")
    assert "schema" in refused(capsys, "evaluate", "run=empty")


def test_evaluate_refuses_other_images(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(TRAIN) == 0
    folder = reports()[0].parent
    capsys.readouterr()
    assert "[1, 20, 20]" in refused(capsys, "evaluate", f"run={folder}", "dataset.shape=[1,20,20]")
    assert "unknown attack 'fast'" in refused(capsys, "evaluate", f"run={folder}", "attack=fast")


def test_table_refuses_what_there_is_not(capsys: pytest.CaptureFixture[str]) -> None:
    assert "Did you mean atmc-mnist" in refused(capsys, "table", "atmc-minst")
    assert "huge" in refused(capsys, "table", "atmc-mnist", "--scale", "huge")
    assert "out= is given 2 times" in refused(capsys, "table", "atmc-mnist", "out=a", "out=b")


@pytest.mark.parametrize(
    ("arguments", "page", "more"),
    [
        ([], "results/atmc-mnist-cpu.md", []),
        (["out=there"], "there/atmc-mnist-cpu.md", []),
        (["out=there", "runs=else=where, too", "seed=1"], "there/atmc-mnist-cpu.md", ["out='else=where, too'"]),
    ],
)
@pytest.mark.parametrize("failed", [False, True])
def test_the_page_of_a_table_goes_to_out_and_its_runs_go_to_runs(
    arguments: list[str],
    page: str,
    more: list[str],
    failed: bool,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """And the exit code says whether a run failed."""
    seen = {}
    extra = [argument for argument in arguments if argument == "seed=1"]

    def build(name: str, scale: str, extra: list[str], run_all: Callable[..., Any], out: Path) -> Path:
        seen["extra"] = extra
        seen["folders"] = run_all([["method=nat", *extra], ["method=da", *extra]])
        return out / f"{name}-{scale}.md"

    def run_jobs(jobs: list[list[str]], console: Console, typed: int, means: Means) -> list[Path | None]:
        assert means == Means()
        seen["jobs"] = jobs
        assert typed == len(extra) + len(more)  # what of each job is the user's own
        return [Path("a"), None if failed else Path("b")]

    monkeypatch.setattr("robcomp.tables.build.build", build)
    monkeypatch.setattr("robcomp.sweeps.sweep.run", run_jobs)
    assert main(["table", "atmc-mnist", *arguments]) == int(failed)
    assert f"table: {page}" in capsys.readouterr().out
    assert seen["extra"] == extra
    assert seen["folders"] == [Path("a"), None if failed else Path("b")]
    assert seen["jobs"] == [["method=nat", *extra, *more], ["method=da", *extra, *more]]


def test_interrupted(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("robcomp.runs.train.train", interrupt)
    assert main(TRAIN) == 130
    assert capsys.readouterr().err.startswith("robcomp: interrupted")


def test_a_wheel_brings_its_configuration_along(installed: Path) -> None:
    """Unpacked, as a plain installation would, and found before the checkout."""
    names = {str(path.relative_to(installed)) for path in installed.rglob("*")}
    groups = [path.relative_to(ROOT) for path in (ROOT / "conf").rglob("*.yaml")]
    assert {f"robcomp/{path}" for path in groups} <= names
    assert {"robcomp/conf/config.yaml", "robcomp/tables/published.csv", "robcomp/py.typed"} <= names
    program = "import robcomp.settings.choices as c; print(c.conf_dir(), *c.choices('dataset'))"
    environment = {**os.environ, "PYTHONPATH": str(installed)}
    found = subprocess.check_output([sys.executable, "-c", program], env=environment, text=True)
    assert found.split() == [str(installed / "robcomp" / "conf"), *choices("dataset")]
