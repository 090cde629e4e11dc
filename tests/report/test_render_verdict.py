"""What a reader is told of a verdict: beside every figure under attack, in reports and in tables."""

import io
from dataclasses import replace
from typing import Any

import pytest
from made_up import make_evaluation, make_report, parsed
from rich.console import Console

from robcomp.report import render
from robcomp.report.results import SizeShare, TableRecord, TableResult, TableRun
from robcomp.report.schema import Report
from robcomp.tables.page import _doubts, _row

SEEN = {"name": "zero_gradients", "flag": True, "evidence": "For 53 of 94 images the gradient is zero."}
CALM = {"name": "random_output", "flag": False, "evidence": "Two passes differ by 0."}


def judged(trusted: bool | None, *checks: dict[str, Any], images: int = 94) -> Report:
    return parsed({**make_report(), "verdict": {"trusted": trusted, "images": images, "checks": list(checks)}})


def printed(report: Report) -> str:
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
        (
            judged(True, CALM),
            "no flag in 1 check on 94 images. The worst case is over fgsm and pgd; AutoAttack was",
        ),
        (judged(None, CALM, images=6), "cannot tell; evaluate on more."),
        (judged(None, CALM, images=60), "stronger attacks broke more than 5 % of these"),
        (parsed(make_report()), "Verdict: none;"),
    ],
)
def test_without_a_flag_nothing_is_marked(report: Report, said: str) -> None:
    text = " ".join(printed(report).split())
    assert said in text
    assert "(!)" not in text


STANDARD = {"apgd_ce": {"steps": 100}, "apgd_t": {"steps": 100, "targets": 9}, "fab_t": {"steps": 100, "targets": 9}}


@pytest.mark.parametrize(
    ("queries", "excluded", "said"),
    [(5000, False, "which is AutoAttack's standard version."), (4999, False, "not run."), (5000, True, "not run.")],
)
def test_autoattack_is_what_has_its_four_attacks_at_full_length(queries: int, excluded: bool, said: str) -> None:
    report = make_report()
    square = {"square": {"queries": queries}}
    report["accuracy"]["attacks"] = {
        f"my_{name}": {**report["accuracy"]["attacks"]["fgsm"], "excluded": excluded and name == "square"}
        | {"attack": {"name": name, "norm": "Linf", "eps": 0.3, **settings}}
        for name, settings in (STANDARD | square).items()
    }
    assert render.trust(parsed(report)).replace("my_", "").endswith(said)


def test_autoattack_at_a_smaller_eps_is_not_that_of_the_worst_case() -> None:
    report = make_report()
    lengths = STANDARD | {"square": {"queries": 5000}}
    own = {name: {"attack": {"name": name, "norm": "Linf", "eps": 0.1, **length}} for name, length in lengths.items()}
    strong = {"attack": {"name": "fgsm", "norm": "Linf", "eps": 0.3}}
    base = report["accuracy"]["attacks"]["fgsm"]
    report["accuracy"]["attacks"] = {name: base | entry for name, entry in own.items()}
    assert parsed(report).accuracy.autoattack
    report["accuracy"]["attacks"]["fgsm"] = base | strong
    assert not parsed(report).accuracy.autoattack


def test_a_table_of_the_papers_marks_and_explains() -> None:
    report = parsed(make_report(accuracy={"clean": 0.5, "pgd": 0.5, "worst_case": 0.5}))
    record = TableRecord(
        label="A-l0",
        point={},
        overrides=[],
        run="mnist-lenet-al0/ab",
        published={},
        result=TableRun(
            accuracy={key: report.accuracy[key] for key in ("clean", "pgd")},
            size={"nominal": SizeShare(bytes=1, fraction=0.1)},
            seed=0,
            seconds=3,
            finished=report.run.finished,
            train_epochs=1,
            machine=report.run.machine,
            robcomp=report.robcomp,
            data=report.data,
            threat=report.threat,
            doubt="because",
        ),
    )
    table = TableResult.make(
        **dict.fromkeys(("name", "scale", "title", "source", "note"), "-"),
        **{key: [] for key in ("extra", "grid", "published", "comparisons")},
        accuracy=["clean", "pgd"],
        size=["nominal"],
        x="nominal",
        definitions={},
        records=[record],
    )
    clean, pgd = (cell for cell in _row(record, table) if cell.startswith("50.0"))
    assert ("(!)" in clean, "(!)" in pgd) == (False, True)
    assert "A-l0 mnist-lenet-al0/ab: because" in "".join(_doubts(table))
    calm = replace(record, result=replace(record.result, doubt=None))
    assert not list(_doubts(replace(table, records=[calm])))
    assert "(!)" not in "".join(_row(calm, table))


def test_cumulative_rows_and_other_norms_say_so() -> None:
    report = make_report()
    attacks = report["accuracy"]["attacks"]
    attacks["pgd"] |= {"cumulative": True, "attacked": 31}
    attacks["fgsm"] |= {"excluded": True, "attacked": 400, "median_distance": None}
    attacks["fgsm"]["attack"] |= {"norm": "L2", "eps": 0.5}
    text = " ".join(printed(parsed(report)).split())
    assert "+ pgd 70.0 %" in text
    assert "31 of 400" in text
    assert "fgsm (excluded)" in text
    assert "L2, eps 0.5" in text
    assert "median distance infinite" in text


def test_a_later_evaluation_is_headed_by_its_own_threat() -> None:
    later = make_evaluation(threat={"norm": "L2", "eps": 0.5})
    assert "L2 eps 0.5" in render.header(parsed({**make_report(), "evaluation": later}))
    assert "Linf eps 0.298" in render.header(parsed(make_report()))


def test_a_worst_case_of_each_norm_and_eps_has_a_row_of_its_own() -> None:
    report = make_report()
    report["accuracy"]["attacks"]["pgd"] |= {"excluded": True}  # from the worst case that is Linf's
    several = [("Linf", 0.1, 0.6, ["fgsm"]), ("L2", 2.0, 0.5, ["pgd", "other"])]
    report["accuracy"]["worst_cases"] = [
        {"value": v, "correct": round(400 * v), "images": 400, "interval": [v - 0.02, v + 0.02]}
        | {"norm": n, "eps": e, "attacks": names}
        for n, e, v, names in several
    ]
    text = render.markdown(parsed(report))
    assert "| worst at Linf 0.1 | 60.0 % | [58.0, 62.0] | 400 | - | fgsm |" in text
    assert "| worst at L2 2 | 50.0 % | [48.0, 52.0] | 400 | - | pgd, other |" in text
    assert "excluded" not in text
    flagged = parsed({**report, "verdict": {"trusted": False, "images": 94, "checks": [SEEN]}})
    assert "| worst at L2 2 | 50.0 % (!) |" in render.markdown(flagged)
