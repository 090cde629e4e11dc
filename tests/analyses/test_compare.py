"""Paired comparison of two evaluations: exact numbers on made-up outcomes, and what is not compared."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_up import make_evaluation, make_report

from robcomp.analyses.compare import compare
from robcomp.cli.parser import main
from robcomp.errors import UserError
from robcomp.evaluation.statistics import paired_difference
from robcomp.report.records import to_json
from robcomp.report.results import CompareResult, SizeShare
from robcomp.report.schema import Threat

FIGURES = ("clean", "fgsm", "pgd", "worst_case")


def made(folder: Path, correct: dict[str, list[int]], images: int = 40, name: str = "report", **changes: Any) -> Path:
    """A run directory whose images of these numbers are correct."""
    folder.mkdir(exist_ok=True)
    report = make_report(accuracy={key: len(numbers) / images for key, numbers in correct.items()}, images=images)
    for path, value in changes.items():
        *parents, last = path.split("__")
        place = report
        for parent in parents:
            place = place[parent]
        place[last] = value
    (folder / f"{name}.json").write_text(json.dumps(report))
    outcomes = {key: np.isin(np.arange(images), numbers) for key, numbers in correct.items()}
    archive = "outcomes" if name == "report" else name
    np.savez(folder / f"{archive}.npz", **outcomes, **{"pgd.distance": np.ones(images, np.float32)})
    return folder


def numbers(start: int, stop: int) -> list[int]:
    return list(range(start, stop))


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, Path]:
    a = {"clean": numbers(0, 38), "fgsm": numbers(0, 30), "pgd": numbers(0, 28), "worst_case": numbers(0, 28)}
    b = {"clean": numbers(1, 39), "fgsm": numbers(0, 29), "pgd": numbers(0, 12), "worst_case": numbers(0, 12)}
    return made(tmp_path / "a", a), made(tmp_path / "b", b)


def test_exact_numbers(pair: tuple[Path, Path]) -> None:
    result = compare(*pair)
    assert list(result.accuracy) == list(FIGURES)
    pgd = result.accuracy["pgd"]
    assert (pgd.a, pgd.b, pgd.not_comparable) == (0.7, 0.3, None)
    a, b = np.arange(40) < 28, np.arange(40) < 12
    assert pgd.paired == paired_difference(a, b)
    assert pgd.paired.difference == pytest.approx(0.4)
    assert (pgd.paired.only_a, pgd.paired.only_b) == (16, 0)
    assert pgd.paired.p_value == pytest.approx(2 / 2**16)
    assert pgd.conclusion == "A is more robust"
    clean = result.accuracy["clean"]
    assert (clean.paired.only_a, clean.paired.only_b, clean.paired.p_value) == (1, 1, 1)
    assert clean.conclusion == "no difference shown at 95 %"
    assert compare(*reversed(pair)).accuracy["pgd"].conclusion == "B is more robust"
    assert result.a.size == {
        "file": SizeShare(bytes=2400, fraction=2400 / 1724320),
        "nominal": SizeShare(bytes=645, fraction=645 * 8 / 13776000),
    }


def test_console_and_json(pair: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", *map(str, pair)]) == 0
    text = capsys.readouterr().out
    assert "pgd: A is more robust" in text
    assert "16 / 0" in text
    assert re.search(r"file size: A 2.4 kB .*; nominal size: A 645 B", text.replace("\n", " "))
    assert main(["compare", *map(str, pair), "--json"]) == 0
    written = json.loads(capsys.readouterr().out)
    assert written["accuracy"]["pgd"]["paired"]["only_a"] == 16
    assert CompareResult.parse(written, "the output") == compare(*pair)


def test_other_settings_are_said_and_not_compared(tmp_path: Path, pair: tuple[Path, Path]) -> None:
    correct = {key: numbers(0, 20) for key in FIGURES}
    other = made(tmp_path / "c", correct, accuracy__attacks__pgd__attack={"name": "pgd", "steps": 7})
    entries = compare(pair[0], other).accuracy
    assert to_json(entries["pgd"]) == {"not_comparable": "settings differ"}
    assert "suites differ" in entries["worst_case"].not_comparable
    assert entries["fgsm"].paired is not None


def test_an_attack_that_one_alone_has(
    tmp_path: Path, pair: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    less = made(tmp_path / "c", {key: numbers(0, 20) for key in ("clean", "pgd", "worst_case")})
    result = compare(pair[0], less)
    assert (result.only_a, result.only_b) == (["fgsm"], [])
    assert "suites differ" in result.accuracy["worst_case"].not_comparable
    assert main(["compare", str(pair[0]), str(less)]) == 0
    assert "only in A: fgsm" in capsys.readouterr().out


def test_cumulative_figures_are_compared_among_themselves(tmp_path: Path) -> None:
    correct = {key: numbers(0, 20) for key in FIGURES}
    plain, first, second = (
        made(tmp_path / name, correct, **({"accuracy__attacks__pgd__cumulative": True} if name != "plain" else {}))
        for name in ("plain", "first", "second")
    )
    assert "cumulative" in compare(plain, first).accuracy["pgd"].not_comparable
    assert compare(first, second).accuracy["pgd"].paired is not None


def test_the_first_attack_of_a_cascade_met_all_images(tmp_path: Path) -> None:
    """So its figure is that of the attack alone."""
    correct = {key: numbers(0, 20) for key in FIGURES}
    plain = made(tmp_path / "plain", correct)
    marked = {"accuracy__attacks__pgd__cumulative": True}
    first = made(tmp_path / "first", correct, **marked, accuracy__attacks__pgd__attacked=20)
    later = made(tmp_path / "later", correct, **marked, accuracy__attacks__pgd__attacked=19)
    assert compare(plain, first).accuracy["pgd"].paired is not None
    assert compare(plain, later).accuracy["pgd"].paired is None


def test_an_excluded_attack_is_no_part_of_the_worst_case(tmp_path: Path) -> None:
    correct = {key: numbers(0, 20) for key in FIGURES}
    more = made(tmp_path / "more", correct, accuracy__attacks__fgsm__excluded=True)
    less = made(tmp_path / "less", {key: correct[key] for key in ("clean", "pgd", "worst_case")})
    assert compare(more, less).accuracy["worst_case"].paired is not None


def test_what_is_in_doubt_is_marked(tmp_path: Path) -> None:
    one, other = ({key: numbers(0, correct) for key in FIGURES} for correct in (20, 2))
    flagged = {"trusted": False, "images": 100, "checks": []}
    doubted, plain = made(tmp_path / "a", one, verdict=flagged), made(tmp_path / "b", other)
    for result in (compare(doubted, plain), compare(plain, doubted)):
        assert result.accuracy["pgd"].conclusion.endswith("more robust (!)")
        assert result.accuracy["clean"].conclusion.endswith("more accurate")
    assert compare(doubted, plain).a.label.endswith("(!)")


def test_the_order_of_a_cumulative_suite_matters(tmp_path: Path) -> None:
    correct = {key: numbers(0, 20) for key in ("clean", "pgd", "fgsm", "worst_case")}
    turned = {key: correct[key] for key in ("clean", "fgsm", "pgd", "worst_case")}
    cumulative = {"accuracy__attacks__pgd__cumulative": True, "accuracy__attacks__fgsm__cumulative": True}
    first, second = made(tmp_path / "a", correct, **cumulative), made(tmp_path / "b", turned, **cumulative)
    assert "differ" in compare(first, second).accuracy["pgd"].not_comparable


def test_a_later_evaluation_brings_its_own_outcomes_and_images(tmp_path: Path, pair: tuple[Path, Path]) -> None:
    correct = {key: numbers(0, 10) for key in FIGURES}
    later = make_evaluation(threat={"norm": "L2", "eps": 0.5}, images=20)
    folder = made(pair[0], correct, images=20, name="evaluation-x", evaluation=later, data__test=40)
    other = made(tmp_path / "c", {key: numbers(0, 5) for key in FIGURES}, images=20)
    result = compare(folder / "evaluation-x.json", other)
    assert result.images == 20
    assert (result.a.threat, result.b.threat.norm) == (Threat(norm="L2", eps=0.5), "Linf")
    assert result.accuracy["pgd"].paired.only_a == 5


def test_refusals(tmp_path: Path, pair: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    correct = {key: numbers(0, 10) for key in FIGURES}
    with pytest.raises(UserError, match="different images"):
        compare(pair[0], made(tmp_path / "c", correct, data__checksum="9"))
    with pytest.raises(UserError, match=r"evaluated on 40 test images and .* on 20"):
        compare(pair[0], made(tmp_path / "d", correct, images=20))
    (pair[1] / "outcomes.npz").unlink()
    with pytest.raises(UserError, match="no outcomes at"):
        compare(*pair)
    assert main(["compare", "nowhere", "there"]) == 2
    assert "no report at nowhere" in capsys.readouterr().err


def test_compare_does_without_torch(pair: tuple[Path, Path]) -> None:
    program = (
        "import sys, robcomp.cli.parser\n"
        f"robcomp.cli.parser.main(['compare', {str(pair[0])!r}, {str(pair[1])!r}])\n"
        "assert 'torch' not in sys.modules and 'hydra' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True, stdout=subprocess.DEVNULL)
