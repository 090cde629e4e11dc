"""What the documentation shows is true: the diff in docs/adding-a-method.md, applied to a copy, adds a method."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

TOP = Path(__file__).parents[1]


def new_files(page: str) -> dict[str, str]:
    """The files that the page's diff creates, by path."""
    diff = re.search(r"```diff\n(.*?)```", page, re.S)[1]
    parts = re.findall(r"--- /dev/null\n\+\+\+ b/(\S+)\n@@\n((?:\+.*\n)+)", diff)
    return {path: "".join(line[1:] + "\n" for line in body.splitlines()) for path, body in parts}


@pytest.mark.slow
def test_the_shown_diff_adds_a_method(tmp_path: Path) -> None:
    for part in ("src", "conf"):
        shutil.copytree(TOP / part, tmp_path / part, ignore=shutil.ignore_patterns("__pycache__"))
    files = new_files((TOP / "docs" / "adding-a-method.md").read_text())
    assert sorted(files) == ["conf/method/ap_layer.yaml", "src/robcomp/trainers/methods/ap_layer.py"]
    for path, text in files.items():
        (tmp_path / path).write_text(text)
    environment = os.environ | {"PYTHONPATH": str(tmp_path / "src"), "OMP_NUM_THREADS": "1"}
    command = [
        sys.executable,
        "-m",
        "robcomp",
        "train",
        "method=ap_layer",
        "method.ratio=0.1",
        "model.width=0.2",
        "method.epochs_scale=0.01",
        "dataset.subset=300",
        "dataset.test_subset=20",
        f"out={tmp_path}/out",
        f"data_dir={tmp_path}/data",
    ]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (report,) = tmp_path.glob("out/digits-lenet-ap_layer/*/report.json")
    layers = json.loads(report.read_text())["density"]["layers"]
    assert [layer["nonzero"] for layer in layers] == [int(0.1 * layer["weights"]) for layer in layers]
    # the third place is the row in the table of contracts, which names what stands there
    row = re.search(r"\+    \"ap_layer\": Row\((\w+)\)", (TOP / "docs" / "adding-a-method.md").read_text())
    assert re.search(rf"\"ap\": Row\({row[1]}\)", (TOP / "tests" / "contracts" / "test_methods.py").read_text())
