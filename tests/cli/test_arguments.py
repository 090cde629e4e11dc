"""The arguments of a command that are its own: how they are told from overrides, and what is refused."""

from pathlib import Path

import pytest

from robcomp.cli import arguments
from robcomp.cli.parser import main
from robcomp.errors import UserError


def run_directory(path: Path) -> Path:
    path.mkdir()
    (path / "report.json").write_text("{}")
    return path


def test_a_commands_own_arguments_are_told_from_the_others() -> None:
    mine, rest = arguments.split("sensitivity", ["run=a", "method.ratio=0.1", "run=b,c", "--x"])
    assert mine == {"run": ["a", "b,c"], "values": [], "out": []}
    assert rest == ["method.ratio=0.1", "--x"]
    assert arguments.only("losses", ["run=a", "out=b"]) == {"run": ["a"], "out": ["b"]}
    with pytest.raises(UserError, match=r"unknown key 'method\.ratio'; choose from out, run"):
        arguments.only("losses", ["run=a", "method.ratio=0.1"])


@pytest.mark.parametrize("command", arguments.KEYS)
def test_help_shows_the_keys_that_a_command_reads(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main([command, "--help"])
    shown = capsys.readouterr().out.partition("keys:\n")[2]
    assert [line.split("=")[0].strip() for line in shown.splitlines()[: len(arguments.KEYS[command])]] == [
        *arguments.KEYS[command]
    ]


def test_numbers_rise_and_come_once() -> None:
    assert arguments.numbers("values", ["0.5,1/4,0,0.25"]) == [0, 0.25, 0.5]
    assert arguments.numbers("values", ["[0.5]"]) == [0.5]
    assert arguments.numbers("values", []) == []
    with pytest.raises(UserError, match="values= is given 2 times"):
        arguments.numbers("values", ["0", "1"])


def test_folders_in_every_spelling(tmp_path: Path) -> None:
    a, b = (run_directory(tmp_path / name) for name in "ab")
    for values in ([str(a), str(b)], [f"{a},{b}"], [f"[{a}, {b}]"]):
        assert arguments.folders("run", values, at_least=2) == [a, b]
    with pytest.raises(UserError, match="1 run directories given, at least 2 needed; write run="):
        arguments.folders("run", [str(a)], at_least=2)
    with pytest.raises(UserError, match="names a run twice"):
        arguments.folders("run", [str(a), f"{a}/."])
    assert arguments.folder("run", [str(a)]) == a
    with pytest.raises(UserError, match="takes one run directory, given 2"):
        arguments.folder("run", [f"{a},{b}"])
    with pytest.raises(UserError, match="0 run directories given, at least 1"):
        arguments.folder("run", [])


def test_out_is_a_folder_or_nothing() -> None:
    here = Path()
    assert arguments.output(["there/too"], here) == Path("there/too")
    assert arguments.output([], here) is None
    with pytest.raises(UserError, match="out= is empty"):
        arguments.output([""], here)
    with pytest.raises(UserError, match="out= is given 2 times"):
        arguments.output(["a", "b"], here)
