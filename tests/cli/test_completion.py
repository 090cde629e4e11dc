"""Tab completion: what the last word may become, how soon, and the scripts in their shells."""

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from robcomp.cli.completion import SHELLS, complete
from robcomp.cli.parser import main
from robcomp.settings.choices import GROUPS, choices

pytestmark = pytest.mark.usefixtures("sandbox")


@pytest.fixture
def answers(capsys: pytest.CaptureFixture[str]):
    """What `robcomp __complete LINE` prints, line by line."""

    def ask(line: str) -> list[str]:
        assert main(["__complete", line]) == 0
        return capsys.readouterr().out.splitlines()

    return ask


@pytest.fixture
def places(sandbox: Path) -> Path:
    for run in ("outputs/digits-lenet-atmc/aa11", "outputs/digits-lenet-al0/bb22", "old/outputs/x/cc33"):
        (sandbox / run).mkdir(parents=True)
        (sandbox / run / "report.json").write_text("{}")
    (sandbox / "outputs" / "stages" / "dd44").mkdir(parents=True)
    (sandbox / "mine" / "method").mkdir(parents=True)
    (sandbox / "mine" / "experiment").mkdir()
    (sandbox / "mine" / "method" / "mine.yaml").write_text("defaults: [al0, _self_]\n")
    (sandbox / "mine" / "experiment" / "foo.yaml").write_text("# @package _global_\n")
    (sandbox / "net.pt").write_text("")
    return sandbox


# The line up to the cursor, and all that its last word may become; a blank at the end: nothing can follow
ANSWERS = {
    "robcomp tr": ["train ", "transfer "],
    "robcomp train method=atm": ["method=atmc "],
    "robcomp train method=a": [f"method={name} " for name in ("admm", "admm_oneshot", "al0", "alr", "ap", "atmc")],
    "robcomp train -m method=al0,atm": ["method=al0,atmc "],
    "robcomp train seed=1 meth": ["method=", "method."],
    "robcomp train method.ra": ["method.ratio="],
    "robcomp train method=alr method.ru": ["method.rule="],
    "robcomp train method=al0 method.ru": [],
    "robcomp train schedule.d": ["schedule.dense."],
    "robcomp train schedule.dense.ep": ["schedule.dense.epochs="],
    "robcomp train ++schedule.dense.ep": ["++schedule.dense.epochs="],
    "robcomp train attack.attacks.pgd.rest": ["attack.attacks.pgd.restarts="],
    "robcomp train attack=full attack.attacks.cw": ["attack.attacks.cw_margin.", "attack.attacks.cw."],
    "robcomp train recipe=dnr-cifar10 method.lay": ["method.layers="],
    "robcomp train dataset.flip=t": ["dataset.flip=true "],
    "robcomp train dataset.flip=": ["dataset.flip=true ", "dataset.flip=false "],
    "robcomp train threat.norm=": ["threat.norm=Linf ", "threat.norm=L2 "],
    "robcomp train seed=": [],
    "robcomp train nope.x": [],
    "robcomp train --c": ["--cfg ", "--config-dir "],
    "robcomp train -c ": ["job ", "hydra ", "all "],
    "robcomp train --cfg h": ["hydra "],
    "robcomp train --package schedule.de": ["schedule.dense ", "schedule.dense."],
    "robcomp train --config-dir mi": ["mine/"],
    "robcomp train method=m": [],
    "robcomp train --config-dir mine method=m": ["method=mine "],
    "robcomp train --config-dir=mine method=m": ["method=mine "],
    "robcomp train hydra.searchpath=[mine] method=m": ["method=mine "],
    "robcomp train hydra.searchpath=[mi": ["hydra.searchpath=[mine/"],
    "robcomp train -cd mine +exp": ["+experiment="],
    "robcomp train -cd mine +experiment=": ["+experiment=foo "],
    "robcomp train +exp": [],
    "robcomp train model.weights=n": ["model.weights=net.pt "],
    "robcomp train out=ou": ["out=outputs/"],
    "robcomp evaluate ru": ["run="],
    "robcomp evaluate run=": ["run=outputs/digits-lenet-al0/bb22", "run=outputs/digits-lenet-atmc/aa11"],
    "robcomp evaluate run=outputs/digits-lenet-at": ["run=outputs/digits-lenet-atmc/aa11"],
    "robcomp evaluate run=outputs/digits-lenet-al0/b": ["run=outputs/digits-lenet-al0/bb22"],
    "robcomp evaluate run=ol": ["run=old/"],
    "robcomp evaluate run=old/": ["run=old/outputs/x/cc33"],
    "robcomp evaluate run=x attack=qu": ["attack=quick "],
    "robcomp evaluate run=x meth": [],
    "robcomp combine run=a,outputs/digits-lenet-al": ["run=a,outputs/digits-lenet-al0/bb22"],
    "robcomp losses ": ["run=", "out="],
    "robcomp losses meth": [],
    "robcomp compare outputs/digits-lenet-at": ["outputs/digits-lenet-atmc/aa11"],
    "robcomp list m": ["models ", "methods "],
    "robcomp table atmc": ["atmc-mnist "],
    "robcomp table atmc-mnist --scale sm": ["smoke "],
    "robcomp table atmc-mnist see": ["seed="],
    "robcomp completion z": ["zsh "],
    "robcomp --v": ["--version "],
    "robcomp nonsense x": [],
}


@pytest.mark.parametrize(("line", "candidates"), ANSWERS.items())
def test_what_the_last_word_may_become(line: str, candidates: list[str], places: Path, answers) -> None:
    assert answers(line) == candidates


def test_every_command_and_choice_is_offered(answers) -> None:
    commands = [line.strip() for line in answers("robcomp ")]
    assert {"train", "evaluate", "list", "table", "completion"} <= set(commands)
    assert not any(name.startswith("_") for name in commands)
    for group in GROUPS:
        assert answers(f"robcomp train {group}=") == [f"{group}={name} " for name in choices(group)]


def test_an_answer_comes_at_once_without_torch(places: Path) -> None:
    program = (
        "import sys, robcomp.cli.parser\n"
        "for line in ('robcomp ', 'robcomp train method.', 'robcomp train method=', 'robcomp evaluate run='):\n"
        "    robcomp.cli.parser.main(['__complete', line])\n"
        "assert not {'torch', 'hydra', 'numpy', 'omegaconf', 'rich'} & set(sys.modules), sorted(sys.modules)"
    )
    best = float("inf")
    for _ in range(3):
        started = time.monotonic()
        subprocess.run([sys.executable, "-c", program], check=True, stdout=subprocess.DEVNULL)
        best = min(best, time.monotonic() - started)
    assert best < 1.5


def test_the_script_of_a_shell_and_of_none(capsys: pytest.CaptureFixture[str]) -> None:
    for shell, script in SHELLS.items():
        assert main(["completion", shell]) == 0
        assert capsys.readouterr().out == script
    assert main(["completion", "csh"]) == 2
    assert "unknown shell 'csh'; choose from bash, fish, zsh" in capsys.readouterr().err
    assert complete("", {"": "", "train": ""}) == ["train "]


@pytest.fixture
def command(sandbox: Path) -> dict[str, str]:
    """An environment in which `robcomp` is this one."""
    (sandbox / "bin").mkdir()
    program = sandbox / "bin" / "robcomp"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m robcomp "$@"\n')
    program.chmod(0o755)
    return {**os.environ, "PATH": f"{program.parent}:{os.environ['PATH']}"}


@pytest.mark.skipif(shutil.which("bash") is None, reason="no bash")
@pytest.mark.parametrize(
    ("line", "words", "replies"),
    [
        ("robcomp comp", ["robcomp", "comp"], ["compare ", "completion "]),
        ("robcomp train method=atm", ["robcomp", "train", "method", "=", "atm"], ["atmc "]),  # as bash splits at =
        ("robcomp train dataset=", ["robcomp", "train", "dataset", "="], [f"{name} " for name in choices("dataset")]),
        ("robcomp train method.ra", ["robcomp", "train", "method.ra"], ["method.ratio="]),
        ("robcomp losses run=", ["robcomp", "losses", "run", "="], ["outputs/digits-lenet-al0/bb22"]),
        ("robcomp train method=al0,atm --cfg", ["robcomp", "train", "method", "=", "al0,atm", "--cfg"], ["--cfg "]),
    ],
)
def test_in_bash(line: str, words: list[str], replies: list[str], command: dict[str, str], places: Path) -> None:
    shutil.rmtree("outputs/digits-lenet-atmc")
    program = (
        f"{SHELLS['bash']}\nCOMP_LINE={line!r} COMP_POINT={len(line)} COMP_CWORD={len(words) - 1}\n"
        f"COMP_WORDS=({' '.join(map(repr, words))})\n_robcomp\nprintf '%s\\n' \"${{COMPREPLY[@]}}\""
    )
    said = subprocess.run(["bash", "-c", program], env=command, capture_output=True, text=True, check=True)
    assert said.stderr == ""
    assert said.stdout.splitlines() == replies


@pytest.mark.skipif(shutil.which("zsh") is None, reason="no zsh")
def test_in_zsh(command: dict[str, str]) -> None:
    program = (
        "compdef() { :; }\ncompadd() { while [[ $1 != -- ]]; do shift; done; shift; print -l -- $@ }\n"
        f"{SHELLS['zsh']}\nLBUFFER='robcomp train method=atm'\n_robcomp"
    )
    assert subprocess.check_output(["zsh", "-fc", program], env=command, text=True).splitlines() == ["method=atmc "]


@pytest.mark.skipif(shutil.which("fish") is None, reason="no fish")
def test_in_fish(command: dict[str, str]) -> None:
    program = f"{SHELLS['fish']}\ncomplete -C 'robcomp train method=atm'"
    assert subprocess.check_output(["fish", "-c", program], env=command, text=True).splitlines() == ["method=atmc"]
