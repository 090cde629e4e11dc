"""docs/library.md: every line of its code blocks runs, in order, in an empty folder, on the installed package."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

TOP = Path(__file__).parents[2]
PAGE = (TOP / "docs" / "library.md").read_text(encoding="utf-8")
BLOCK = re.compile(r"^```(\w+)(?: (\S+))?\n(.*?)^```$", re.M | re.S)


def blocks() -> list[tuple[str, str, str]]:
    """(language, file or '', text) of each code block of the page."""
    return [(match[1], match[2] or "", match[3]) for match in BLOCK.finditer(PAGE)]


def test_every_block_is_of_a_kind_that_is_run() -> None:
    assert PAGE.count("```") == 2 * len(blocks())
    assert {language for language, _, _ in blocks()} == {"python", "shell"}


@pytest.mark.slow
def test_the_pages_lines_run(tmp_path: Path, installed: Path) -> None:
    script = []
    for language, file, text in blocks():
        if file:
            (tmp_path / file).write_text(text)
        elif language == "python":
            script.append(text)
    (tmp_path / "page.py").write_text("\n".join(script))
    environment = os.environ | {
        "PYTHONPATH": str(installed),
        "OMP_NUM_THREADS": "1",
        "ROBCOMP_DATA_DIR": str(tmp_path / "data"),
    }

    def run(*command: str) -> str:
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert done.stderr == ""
        return done.stdout

    printed = run(sys.executable, "page.py").splitlines()
    assert printed[0].startswith("suite quick on 60 images")
    assert printed[-1].startswith("x lies in [0, 255]")
    assert sum(line.startswith("Verdict:") for line in printed) == 1
    assert len(printed) == 10  # head, seven accuracies, verdict, and the error: nothing prints unless asked
    for language, _, text in blocks():
        if language == "shell":
            for line in text.splitlines():
                command, *arguments = shlex.split(line)
                assert command == "robcomp"
                assert "run directory" in run(sys.executable, "-m", "robcomp", *arguments)
