"""What a reader is told of a verdict: beside every figure under attack, in reports and in tables."""

import io
from typing import Any

import pytest
from made_up import make_report
from rich.console import Console

from robcomp.report import render
from robcomp.tables.page import _doubts, _row

SEEN = {"name": "zero_gradients", "flag": True, "evidence": "For 53 of 94 images the gradient is zero."}
CALM = {"name": "random_output", "flag": False, "evidence": "Two passes differ by 0."}


def judged(trusted: bool | None, *checks: dict[str, Any], images: int = 94) -> dict[str, Any]:
    return {**make_report(), "verdict": {"trusted": trusted, "images": images, "checks": list(checks)}}


def printed(report: dict[str, Any]) -> str:
    stream = io.StringIO()
    render.console(report, Console(file=stream, width=200))
    return stream.getvalue()


def test_a_flag_marks_every_figure_under_attack_and_says_why() -> None:
    report = judged(False, SEEN, CALM)
    for text in (printed(report), render.markdown(report)):
        lines = {line.strip(" |").split("  ")[0].split(" |")[0]: line for line in text.splitlines()}
        assert "97.0 %" in lines["clean"]
        assert "(!)" not in lines["clean"]
        for name in ("fgsm", "pgd", "worst case"):
            assert "% (!)" in lines[name]
        assert "NOT to be trusted. Zero gradients: For 53 of 94 images" in " ".join(text.split())


def test_the_page_shows_every_check() -> None:
    text = render.markdown(judged(False, SEEN, CALM))
    assert "## Verdict" in text
    assert "| Zero gradients | flag | For 53 of 94 images the gradient is zero. |" in text
    assert "| Random output | - | Two passes differ by 0. |" in text


@pytest.mark.parametrize(
    ("report", "said"),
    [
        (judged(True, CALM), "no sign that the figures under attack are too high (1 checks on 94 images)"),
        (judged(None, CALM, images=6), "Verdict: open."),
        (make_report(), "Verdict: none;"),
    ],
)
def test_without_a_flag_nothing_is_marked(report: dict[str, Any], said: str) -> None:
    text = " ".join(printed(report).split())
    assert said in text
    assert "(!)" not in text


def test_a_table_of_the_papers_marks_and_explains() -> None:
    record = {
        "label": "A-l0",
        "run": "mnist-lenet-al0/ab",
        "point": {},
        "published": {},
        "doubt": "because",
        "accuracy": {key: {"value": 0.5, "interval": [0.4, 0.6]} for key in ("clean", "pgd")},
        "size": {},
        "run_facts": {"seconds": 3},
    }
    table = {"grid": [], "accuracy": ["clean", "pgd"], "size": [], "records": [record]}
    clean, pgd = (cell for cell in _row(record, table) if cell.startswith("50.0"))
    assert ("(!)" in clean, "(!)" in pgd) == (False, True)
    assert "A-l0 mnist-lenet-al0/ab: because" in "".join(_doubts(table))
    assert not list(_doubts({**table, "records": [{**record, "doubt": None}]}))


def test_cumulative_rows_and_other_norms_say_so() -> None:
    report = make_report()
    report["accuracy"]["pgd"] |= {"cumulative": True, "attacked": 31}
    report["accuracy"]["fgsm"] |= {"excluded": True, "attacked": 400, "median_distance": None}
    report["accuracy"]["fgsm"]["attack"] |= {"norm": "L2", "eps": 0.5}
    text = " ".join(printed(report).split())
    assert "+ pgd 70.0 %" in text
    assert "31 of 400" in text
    assert "fgsm (excluded)" in text
    assert "L2, eps 0.5" in text
    assert "median distance infinite" in text


def test_a_later_evaluation_is_headed_by_its_own_threat() -> None:
    report = {**make_report(), "evaluation": {"threat": {"norm": "L2", "eps": 0.5}}}
    assert "L2 eps 0.5" in render.header(report)
    assert "Linf eps 0.298" in render.header(make_report())
