"""The whole of `robcomp table` on real MNIST at smoke scale: fourteen runs, one page, and nothing trained twice."""

import json
import os
from pathlib import Path

import pytest

from robcomp.cli.parser import main

DATA = os.environ.get("ROBCOMP_DATA_DIR", "")
MISSING = not (Path(DATA) / "mnist.safetensors").is_file()
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(MISSING, reason="set ROBCOMP_DATA_DIR to a folder with mnist.safetensors"),
]


def test_the_mnist_table_builds_and_builds_again_from_what_is_there(tmp_path: Path) -> None:
    command = [
        "table",
        "atmc-mnist",
        "--scale",
        "smoke",
        f"out={tmp_path}/page",
        f"runs={tmp_path}/runs",
        f"data_dir={DATA}",
        "training.attack.steps=2",
        "dataset.subset=400",
        "dataset.val=40",
        "attack=pgd20",
        "attack.verdict=0",
    ]
    assert main(command) == 0
    reports = list(tmp_path.glob("runs/mnist-lenet-*/*/report.json"))
    assert len(reports) == 15
    page = (tmp_path / "page" / "atmc-mnist-smoke.md").read_text()
    for label, ratio, paper in (("A-l0", "0.0015", "58.7"), ("A-l0", "0.006", "70.2"), ("AP", "0.006", "65.8")):
        (row,) = [line for line in page.splitlines() if line.startswith(f"| {label} | {ratio} |")]
        assert paper in row
    assert (tmp_path / "page" / "atmc-mnist-smoke.png").stat().st_size > 10_000
    dense = {json.loads(path.read_text())["stages"][0]["key"] for path in reports}
    assert len(dense) == 4  # natural and adversarial, each of 4 epochs (nat, DA) and of 1 (all others)
    before = {path: path.stat().st_mtime_ns for path in reports}
    assert main(command) == 0
    assert {path: path.stat().st_mtime_ns for path in reports} == before
