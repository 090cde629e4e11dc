"""What the documentation shows is true: its commands, links and figures, and the changes that it gives as diffs."""

import argparse
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import yaml
from tiny import rng

import robcomp as rc
from robcomp.cli import arguments, commands
from robcomp.cli.parser import main
from robcomp.runs import effect
from robcomp.settings.compose import compose_config
from robcomp.settings.override_paths import absolute_paths
from robcomp.sweeps import sweep
from robcomp.tables import spec

TOP = Path(__file__).parents[1]
WRITTEN = [
    TOP / "README.md",
    TOP / "CONTRIBUTING.md",
    TOP / "CHANGELOG.md",
    *sorted(TOP.glob("docs/*.md")),
    TOP / "results" / "README.md",
]
STUDIES = sorted(TOP.glob("results/*/README.md"))
PAGES = [*WRITTEN, *STUDIES, *sorted(TOP.glob("results/*.md")), *sorted(TOP.glob("results/*/*/*.md"))]
FENCE = re.compile(r"^ *```(\w*)\n(.*?)^ *```$", re.S | re.M)
COMMENT = re.compile(r"<!--.*?-->", re.S)
NUMBER = re.compile(r"\d[\d,]*(?:\.\d+)?")

here = pytest.mark.skipif(not STUDIES, reason="results/ is not part of this copy")


def name_of(page: Path) -> str:
    return str(page.relative_to(TOP))


def prose(page: Path) -> str:
    """The page without its blocks of code and its comments."""
    return FENCE.sub("", COMMENT.sub("", page.read_text(encoding="utf-8")))


# Links


def anchors(page: Path) -> set[str]:
    """What its headings are called in links, as code forges make it of them."""
    heads = re.findall(r"^#+ (.+)$", FENCE.sub("", page.read_text(encoding="utf-8")), re.M)
    texts = [re.sub(r"\[([^]]*)]\([^)]*\)", r"\1", head).lower() for head in heads]
    return {re.sub(r"[^\w\- ]", "", text).replace(" ", "-") for text in texts}


def dead(page: Path) -> list[str]:
    """The relative links of a page that lead to no file, or to no heading of theirs."""
    wrong = []
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        if target.startswith(("http://", "https://")):
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        if not file.exists() or (anchor and anchor not in anchors(file)):
            wrong.append(target)
    return wrong


@here
def test_every_link_leads_somewhere() -> None:
    assert {name_of(page): links for page in PAGES if (links := dead(page))} == {}


def test_a_dead_link_is_found(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("# One `word`, two\n[a](page.md#one-word-two) [b](#one) [c](gone.md) [d](https://e.org)\n")
    assert dead(page) == ["#one", "gone.md"]


@here
def test_every_study_is_in_the_overview() -> None:
    linked = set(re.findall(r"\]\(([^)\s]+)\)", prose(TOP / "results" / "README.md")))
    assert {str(page.relative_to(TOP / "results")) for page in STUDIES} <= linked


# The map


def test_the_map_names_every_room_and_its_modules() -> None:
    """But for rooms of one module for each method, attack and so on, which the map says they are."""
    package, rows = TOP / "src" / "robcomp", {}
    for line in prose(TOP / "docs" / "architecture.md").splitlines():
        if row := re.match(r"\| `([a-z_/]+)/` \| (.*?) \|", line):
            rows[row[1]] = row[2]
    rooms = {path.parent.relative_to(package).as_posix() for path in package.glob("*/__init__.py")}
    assert rooms <= rows.keys()
    for room, said in rows.items():
        modules = {path.stem for path in (package / room).glob("*.py")} - {"__init__"}
        if not re.search(r"\bfile\b", said):
            named = set(re.findall(r"\w+", said))
            assert named == modules, f"{room}/: docs/architecture.md is to name {modules ^ named}, or no longer"


# Figures


@here
def test_every_figure_of_the_overview_is_on_the_page_that_it_names() -> None:
    rows = [line.split(" | ") for line in prose(TOP / "results" / "README.md").splitlines() if line.startswith("| ")][
        2:
    ]
    assert len(rows) > 10
    for finding, figure, pages in rows:
        texts = [(TOP / "results" / path).read_text() for path in re.findall(r"\]\(([^)]+)\)", pages)]
        there = set(NUMBER.findall(" ".join(texts)))
        assert set(NUMBER.findall(figure)) <= there, finding


@here
@pytest.mark.parametrize("page", [p for p in [*WRITTEN, *STUDIES] if p.name != "report.md"], ids=name_of)
def test_lines_are_of_ordinary_length(page: Path) -> None:
    """But for rows of tables, headings, and what cannot be broken; docs/report.md is made by code."""
    lines = [line for line in page.read_text(encoding="utf-8").splitlines() if not line.startswith(("|", "#", "!["))]
    assert [line for line in lines if len(line) > 120 and " " in line.strip()] == []


# Commands


def fenced(page: Path) -> Iterator[list[str]]:
    """The commands in the page's blocks of shell code, as words."""
    for language, block in FENCE.findall(COMMENT.sub("", page.read_text(encoding="utf-8"))):
        for line in block.replace("\\\n", " ").splitlines() if language == "sh" else ():
            if words := shlex.split(line, comments=True):
                yield words


def quoted(page: Path) -> Iterator[list[str]]:
    """The robcomp commands in the page's running text; they may be shortened."""
    for code in re.findall(r"`(robcomp [^`]+)`", prose(page)):
        yield code.split()


class Heavy:
    """Stands in for the commands that train or attack: their configurations are composed, which finds a wrong name."""

    def train(self, args: argparse.Namespace) -> int:
        mine, overrides = arguments.split("train", args.overrides)
        _, overrides = arguments.means(mine, overrides)
        jobs = sweep.expand(overrides) if args.multirun else [overrides]
        for job in jobs[:2]:
            compose_config(absolute_paths(job))
        return 0

    def plan(self, args: argparse.Namespace) -> int:
        mine, overrides = arguments.split("plan", args.overrides)
        if mine["table"]:
            assert spec.jobs(spec.load(mine["table"][0]), mine["scale"][0], overrides)
            return 0
        args.overrides = overrides
        return self.train(args)

    def table(self, args: argparse.Namespace) -> int:
        mine, overrides = arguments.split("table", args.overrides)
        assert spec.jobs(spec.load(args.name), args.scale, arguments.means(mine, overrides)[1])
        return 0

    def compare(self, args: argparse.Namespace) -> int:
        return 0

    def other(self, name: str, args: argparse.Namespace) -> int:
        compose_config(absolute_paths(arguments.split(name, args.overrides)[1]))
        return 0


@pytest.fixture
def no_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`main` reads, checks and composes, and does nothing else; `list` and `train --cfg` are run as they are.

    The file of settings that the README shows is there.
    """
    (own,) = [code for language, code in FENCE.findall((TOP / "README.md").read_text()) if language == "yaml"]
    (tmp_path / "my_conf" / "experiment").mkdir(parents=True)
    (tmp_path / "my_conf" / "experiment" / "short.yaml").write_text(own)
    monkeypatch.chdir(tmp_path)
    heavy, train = Heavy(), commands.train
    monkeypatch.setattr(commands, "train", lambda args: (train if args.cfg else heavy.train)(args))
    monkeypatch.setattr(commands, "plan", heavy.plan)
    monkeypatch.setattr(commands, "table", heavy.table)
    monkeypatch.setattr(commands, "compare", heavy.compare)
    for name in arguments.KEYS.keys() - {"plan", "table", "train"}:
        monkeypatch.setattr(commands, name, lambda args, name=name: heavy.other(name, args))


def check(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    if words[0] == "robcomp" and words[-1] != "--help":
        code = main(words[1:])
        assert code == 0, f"{shlex.join(words)}: {capsys.readouterr().err}"
    elif words[0] == "make":
        for target in [word for word in words[1:] if "=" not in word and word.isascii() and word != "&&"][:1]:
            makefile = (TOP / "Makefile").read_text()
            assert re.search(rf"^({re.escape(target)}|{re.escape(target.split('-')[0])}-%):", makefile, re.M), target
            assert not target.startswith("table-") or spec.load(target.removeprefix("table-"))
    elif words[0] == "python":
        script = (TOP / words[1]).read_text()
        assert [word for word in words[2:] if word.startswith("--") and f'"{word}"' not in script] == []


@here
@pytest.mark.slow
@pytest.mark.usefixtures("no_work")
@pytest.mark.parametrize("page", [*WRITTEN, *STUDIES], ids=name_of)
def test_every_command_is_one(page: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Those that train, attack or build are composed only; a run's own configuration is taken to be the default one.

    Of commands that differ in their numbers alone, as in a study's, one is composed; where it is refused since it was
    recorded, it is one with what the page says to add.
    """
    added = re.search(r"\badd\s+`(schedule[^`]+)`", prose(page))
    for words in {re.sub(r"[\d.,]+", "", " ".join(words)): words for words in fenced(page)}.values():
        try:
            check(words, capsys)
        except AssertionError:
            if not added:
                raise
            check([*words, *added[1].split()], capsys)
    for words in quoted(page):
        if not words[1].startswith("-") and words[1] != "COMMAND":
            with pytest.raises(SystemExit, match=r"^0$"):  # argparse exits with 2 for a command that is not there
                main([words[1], "--help"])
        if words[1] == "train" and all("=" in word for word in words[2:]):
            check(words, capsys)


@pytest.mark.slow
def test_no_setting_of_the_readme_is_without_effect() -> None:
    trained = [words[2:] for words in fenced(TOP / "README.md") if words[:2] == ["robcomp", "train"]]
    alone = [words for words in trained if not any(word.startswith("-") for word in words)]
    assert len(alone) > 10
    for overrides in alone:
        effect.check_training(absolute_paths(overrides))


def test_the_suite_that_is_shown_is_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = (TOP / "docs" / "adding-things.md").read_text()
    (shown,) = [code for language, code in FENCE.findall(page) if language == "yaml"]
    (tmp_path / "attack").mkdir()
    (tmp_path / "attack" / "mine.yaml").write_text(shown)
    asked = ["--cfg", "job", "--resolve", "--package", "attack.attacks"]
    assert main(["train", "--config-dir", str(tmp_path), "attack=mine", "threat.eps=0.25", *asked]) == 0
    attacks = yaml.safe_load(capsys.readouterr().out)
    assert {settings["eps"] for settings in attacks.values()} == {0.25}
    assert f"`robcomp train --config-dir my_conf attack={yaml.safe_load(shown)['name']}`" in page


@pytest.mark.usefixtures("no_work")
@pytest.mark.parametrize("wrong", ["train mehtod=da", "train method.ratoi=1", "curve run=RUN nonsense=1", "table none"])
def test_a_wrong_command_is_found(wrong: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(AssertionError, match=wrong.split()[-1].partition("=")[0]):
        check(["robcomp", *wrong.split()], capsys)


@here
@pytest.mark.slow
def test_the_readme_s_python_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a network of results/ and images that it gets wrong, which AutoAttack leaves alone."""
    shutil.copy(TOP / "results" / "mnist-cpu" / "96500f3af2e9" / "model.rcz", tmp_path)
    monkeypatch.chdir(tmp_path)
    (shown,) = [code for language, code in FENCE.findall((TOP / "README.md").read_text()) if language == "python"]
    x = torch.rand(4, 1, 28, 28, generator=rng())
    names = {"x": x, "y": rc.load("model.rcz")(x).argmin(1)}
    exec(shown, names)
    assert names["result"].worst_case.value == 0
    assert (names["x_adv"] - x).abs().max() <= 8 / 255 + 1e-6


def test_the_forge_runs_the_two_commands_of_the_readme() -> None:
    workflow = yaml.safe_load((TOP / ".github" / "workflows" / "test.yml").read_text(encoding="utf-8"))
    job = workflow["jobs"]["test"]
    assert job["strategy"]["matrix"]["python"] == ["3.11", "3.13"]
    readme = (TOP / "README.md").read_text(encoding="utf-8")
    section = re.search(r"^## Two commands\n(.*?)^## ", readme, re.S | re.M)[1]
    shown = [shlex.split(line, comments=True) for line in FENCE.search(section)[2].splitlines()]
    assert [shlex.split(step["run"]) for step in job["steps"] if "run" in step] == shown
    contributing = (TOP / "CONTRIBUTING.md").read_text(encoding="utf-8")
    assert [shlex.split(line, comments=True) for line in FENCE.search(contributing)[2].splitlines()] == shown


# Changes


def new_files(page: str) -> dict[str, str]:
    """The files that the page's diffs create, by path."""
    diffs = "\n".join(re.findall(r"```diff\n(.*?)```", page, re.S))
    parts = re.findall(r"--- /dev/null\n\+\+\+ b/(\S+)\n@@\n((?:\+.*\n)+)", diffs)
    return {path: "".join(line[1:] + "\n" for line in body.splitlines()) for path, body in parts}


def new_rows(page: str) -> dict[str, list[str]]:
    """The rows that the page's diffs add to tables of tests, by file."""
    rows = re.findall(r"--- a/(\S+)\n\+\+\+ b/\1\n@@\n((?:\+.*\n)+)", page)
    return {path: [line[1:] for line in body.splitlines()] for path, body in rows}


@pytest.mark.slow
def test_the_shown_diffs_add_things(tmp_path: Path) -> None:
    """A method, an attack, a model and a data set, trained and attacked in one run; and a table."""
    for part in ("src", "conf"):
        shutil.copytree(TOP / part, tmp_path / part, ignore=shutil.ignore_patterns("__pycache__"))
    page = (TOP / "docs" / "adding-things.md").read_text()
    files = new_files(page)
    assert sorted(files) == [
        "conf/dataset/digits8.yaml",
        "conf/method/ap_layer.yaml",
        "conf/model/mlp.yaml",
        "conf/table/pruning-digits.yaml",
        "src/robcomp/attacks/bim.py",
        "src/robcomp/data/sources/digits8.py",
        "src/robcomp/models/mlp.py",
        "src/robcomp/trainers/methods/ap_layer.py",
    ]
    for path, text in files.items():
        (tmp_path / path).write_text(text)
    environment = os.environ | {"PYTHONPATH": str(tmp_path / "src"), "OMP_NUM_THREADS": "1"}

    def robcomp(*words: str) -> str:
        command = [sys.executable, "-m", "robcomp", *words]
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    robcomp(
        "train",
        "method=ap_layer",
        "dataset=digits8",
        "method.ratio=0.1",
        "model.hidden=30",
        "method.epochs_scale=0.05",
        "dataset.test_subset=60",
        "attack.verdict=0",
        "+attack.attacks.bim={eps: 0.1, steps: 5}",
        f"out={tmp_path}/out",
        f"data_dir={tmp_path}/data",
    )
    (written,) = tmp_path.glob("out/digits8-mlp-ap_layer/*/report.json")
    report = json.loads(written.read_text())
    layers = report["density"]["layers"]
    assert [layer["weights"] for layer in layers] == [64 * 30, 30 * 10]
    assert [layer["nonzero"] for layer in layers] == [int(0.1 * layer["weights"]) for layer in layers]
    assert report["accuracy"]["attacks"]["bim"]["attack"]["steps"] == 5
    assert "pruning-digits" in robcomp("list", "tables")

    # The rows: the attack passes the contracts, the method is like AP
    shutil.copytree(TOP / "tests", tmp_path / "tests", ignore=shutil.ignore_patterns("__pycache__"))
    rows = new_rows(page)
    assert list(rows) == ["tests/contracts/test_methods.py", "tests/contracts/test_attacks.py"]
    methods, attacks = (tmp_path / path for path in rows)
    (row,), (line,) = rows.values()
    assert row.replace("ap_layer", "ap") in methods.read_text()
    attacks.write_text(attacks.read_text().replace("\nROWS = {\n", f"\nROWS = {{\n{line}\n"))
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(attacks), "-k", "bim or registered"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
