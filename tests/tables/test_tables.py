"""The tables of the papers: the spec's runs, the page, its claims, and runs that failed."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from made_up import make_report, make_run, parsed

from robcomp.errors import UserError
from robcomp.figures import table as table_figure
from robcomp.report.results import TableRecord, TableResult
from robcomp.settings.choices import choices
from robcomp.settings.compose import compose_config
from robcomp.tables import published
from robcomp.tables.build import assemble, build, write
from robcomp.tables.claims import conclusion
from robcomp.tables.records import collect, printed_figure
from robcomp.tables.spec import SIZES, Row, jobs, load, names, parse

STAGES = {
    "nat": ["dense"],
    "DA": ["dense"],
    "NAP": ["dense", "sparse"],
    "AP": ["dense", "sparse"],
    "A-l0": ["dense", "sparse"],
    "ALR": ["dense", "sparse"],
    "ATMC-32": ["dense", "sparse", "factored"],
    "ATMC-8": ["dense", "sparse", "factored", "quantised"],
    "ATMC-4": ["dense", "sparse", "factored", "quantised"],
}
ACCURACY = {  # clean, PGD
    "nat": (0.99, 0.0),
    "da": (0.98, 0.78),
    "nap": (0.97, 0.0),
    "ap": (0.8, 0.5),
    "al0": (0.82, 0.6),
    "atmc": (0.83, 0.61),
    "alr": (0.4, 0.2),
}


def settings(overrides: list[str]) -> dict[str, str]:
    return dict(override.split("=", 1) for override in overrides)


class Runner:
    """A stand-in for the sweep: makes a run directory for each list of overrides, None for the methods in `failing`."""

    def __init__(self, folder: Path, failing: tuple[str, ...] = ()) -> None:
        self.folder, self.failing = folder, failing

    def __call__(self, todo: list[list[str]]) -> list[Path | None]:
        return [self.run(number, settings(overrides)) for number, overrides in enumerate(todo)]

    def run(self, number: int, given: dict[str, str]) -> Path | None:
        method = given["method"]
        if method in self.failing:
            return None
        clean, pgd = ACCURACY[method]
        nonzero, bits = int(430500 * float(given.get("method.ratio", 1))), int(given.get("method.bits", 32))
        folder = self.folder / f"mnist-lenet-{method}" / f"{number:012x}"
        return make_run(folder, {"clean": clean, "pgd": pgd}, method=method, nonzero=nonzero, bits=bits)


@pytest.mark.parametrize(("scale", "total"), [("smoke", 4), ("cpu", 9), ("gpu", 30), ("paper", 100)])
def test_every_row_of_the_spec_trains_equally_long_in_its_own_stages(scale, total):
    for job in jobs(load("atmc-mnist"), scale, []):
        epochs = {
            key.split(".")[1]: int(value)
            for key, value in settings(job.overrides).items()
            if key.startswith("schedule.")
        }
        assert list(epochs) == STAGES[job.label]
        assert sum(epochs.values()) == total


@pytest.mark.slow
@pytest.mark.parametrize(
    ("table", "scale", "total"),
    [
        ("rivals-mnist", "smoke", 4),
        ("rivals-mnist", "cpu", 10),
        ("rivals-mnist", "gpu", 60),
        ("rivals-cifar10", "smoke", 4),
        ("rivals-cifar10", "cpu", 4),
        ("rivals-cifar10", "gpu", 90),
    ],
)
def test_rivals_train_equally_long(table, scale, total):
    """By the stages that each method makes of the overrides; the lottery ticket pays for its mask besides."""
    for job in jobs(load(table), scale, []):
        config = compose_config(job.overrides)
        epochs = [stage.schedule.epochs for stage in config.method.stages(config.recipe_context())]
        if job.label != "lottery ticket":
            assert sum(epochs) == total, (job.label, epochs)
        elif scale == "cpu":
            assert epochs[-1] == total


def test_the_rivals_are_all_the_methods():
    assert {settings(job.overrides)["method"] for job in jobs(load("rivals-mnist"), "cpu", [])} == set(
        choices("method")
    )


def test_jobs_are_rows_times_points_and_extra_overrides_come_last():
    spec = load("atmc-mnist")
    assert len(jobs(spec, "cpu", [])) == 2 + 6 * 2 + 1
    assert len(jobs(spec, "paper", [])) == 2 + 6 * 8 + 6
    low_rank = [job.point["method.ratio"] for job in jobs(spec, "paper", []) if job.label == "ALR"]
    assert low_rank == [0.006, 0.01, 0.025, 0.05, 0.1, 0.2]  # rank 1 in every layer takes 0.0056
    last = jobs(spec, "cpu", ["seed=1"])[-1]
    assert (last.label, last.point) == ("ATMC-4", {"method.ratio": 0.006})
    assert last.overrides[-2:] == ["method.ratio=0.006", "seed=1"]
    assert not any("ratio" in override for override in jobs(spec, "cpu", [])[0].overrides)


def test_each_published_eight_bit_size_stands_for_the_ratio_of_its_rank():
    spec = load("atmc-mnist")
    row = next(row for row in spec.rows if row.label == "ATMC-8")
    for metric in spec.columns.accuracy.values():
        rows = published.figures(paper="ATMC", dataset="MNIST", method="ATMC-8bits", metric=metric)
        ranked = [entry["value"] for entry in sorted(rows, key=lambda entry: entry["compression"])]
        ratios = spec.scales["paper"].grid["method.ratio"]
        assert [printed_figure(spec, row, {"method.ratio": ratio}, metric) for ratio in ratios] == ranked


def test_two_published_figures_for_one_cell_are_refused():
    with pytest.raises(UserError, match="8 published figures of AL0 fit"):
        printed_figure(load("atmc-mnist"), Row("x", published="AL0"), {}, "pgd_accuracy")


def test_the_published_point_of_rank_one_everywhere_is_found():
    spec = load("atmc-mnist")
    row = next(row for row in spec.rows if row.label == "ALR")
    for metric, value in (("benign_accuracy", 11.35), ("pgd_accuracy", 11.35)):
        assert printed_figure(spec, row, {"method.ratio": 0.006}, metric) == value
        assert printed_figure(spec, row, {"method.ratio": 0.01}, metric) is None


def test_build_writes_page_figure_and_records(tmp_path):
    pytest.importorskip("matplotlib")
    page = build("atmc-mnist", "cpu", ["seed=1"], Runner(tmp_path / "runs"), tmp_path / "tables")
    text = page.read_text()
    assert page.name == "atmc-mnist-cpu.md"
    assert page.with_suffix(".png").read_bytes().startswith(b"\x89PNG")
    assert "| nat | - | 99.0 [97.0, 100.0] | 99.3 | 0.0 [0.0, 2.0] | - | 2.4 kB" in text
    assert (
        "| A-l0 | 0.006 | 82.0 [80.0, 84.0] | 83.5 | 60.0 [58.0, 62.0] | 70.2 | 2.4 kB (0.14 %) | 0.6 % | 0.6 % |"
        in text
    )
    assert "| ATMC-8 | 0.0015 | 83.0 [81.0, 85.0] | 78.0 | 61.0 [59.0, 63.0] | 59.5 |" in text
    assert "| A-l0 is above AP | 0.0015 | PGD +10.0 points |" in text
    # Wilson on the outcomes, 388 of 400
    assert "| NAP keeps at least 80 % clean accuracy | 0.006 | clean 97.0 % | [94.8, 98.3] | - | holds |" in text
    assert "`robcomp table atmc-mnist --scale cpu seed=1`" in text
    assert "Some CPU (cpu, bf16, torch 2.9.0)" in text
    assert "Runs finished 2026-11-20" in text
    assert str(tmp_path) not in text


def test_a_table_that_no_paper_has_shows_no_column_for_one(tmp_path):
    pytest.importorskip("matplotlib")
    page = build("atmc-mnist", "cpu", [], Runner(tmp_path / "runs"), tmp_path / "one")
    table = TableResult.read(page.with_suffix(".json"))
    records = [replace(record, published={}) for record in table.records]
    text = write(replace(table, records=records), tmp_path / "two").read_text()
    assert "| nat | - | 99.0 [97.0, 100.0] | 0.0 [0.0, 2.0] | 2.4 kB" in text
    assert "paper" not in text.split("![accuracy")[0].split("Scale")[1].partition("|")[2]


def test_many_rows_are_told_apart_by_colour_and_marker():
    fixed = {"overrides": [], "run": None, "published": {}}
    records = [TableRecord(label=f"row {n}", point={"method.ratio": 0.1}, **fixed) for n in range(20)]
    lines = [TableRecord(label=f"line {n}", point={}, **fixed) for n in range(4)]
    table = assemble("atmc-mnist", load("atmc-mnist"), "cpu", [], [])
    looks = table_figure._looks(replace(table, records=[*records, *lines]))
    assert len(set(looks.values())) == len(looks) == 24


def test_the_page_can_be_rebuilt_from_its_records(tmp_path):
    pytest.importorskip("matplotlib")
    page = build("atmc-mnist", "smoke", [], Runner(tmp_path / "runs", failing=("ap",)), tmp_path / "one")
    again = write(TableResult.read(page.with_suffix(".json")), tmp_path / "two")
    assert again.read_text() == page.read_text()
    assert again.with_suffix(".json").read_text() == page.with_suffix(".json").read_text()


def test_a_failed_run_is_shown_and_its_claims_get_no_conclusion(tmp_path):
    pytest.importorskip("matplotlib")
    text = build("atmc-mnist", "cpu", [], Runner(tmp_path / "runs", failing=("ap",)), tmp_path).read_text()
    assert "| AP | 0.006 | failed | 80.7 | failed | 65.8 | - | - | - | - |" in text
    assert "| A-l0 is above AP | 0.006 | - | - | - | none (the run of AP failed) |" in text
    assert "- Failed: AP (`dataset=mnist model=lenet attack=atmc method=ap " in text


def test_a_table_of_which_every_run_failed_is_still_a_page(tmp_path):
    pytest.importorskip("matplotlib")
    text = build("atmc-mnist", "smoke", [], Runner(tmp_path / "runs", failing=tuple(ACCURACY)), tmp_path).read_text()
    assert text.count("failed |") > 14
    assert "No run finished." in text


@pytest.mark.parametrize(
    ("interval", "bounds", "expected"),
    [
        ((0.5, 3.0), (0, float("inf")), "holds"),
        ((-3.0, -0.5), (0, float("inf")), "does not hold"),
        ((-0.5, 3.0), (0, float("inf")), "not decided (interval includes 0)"),
        ((-1.0, 1.5), (-2, 2), "holds"),
        ((2.5, 4.0), (-2, 2), "does not hold"),
        ((1.0, 4.0), (-2, 2), "not decided (interval includes 2)"),
        ((-4.0, -1.0), (-2, 2), "not decided (interval includes -2)"),
        ((0.0, 2.1), (float("-inf"), 3), "holds"),
        ((3.5, 5.0), (float("-inf"), 3), "does not hold"),
    ],
)
def test_conclusions(interval, bounds, expected):
    assert conclusion(*interval, *bounds) == expected


@pytest.mark.parametrize(
    ("al0", "ap", "expected"),
    [(0.6, 0.5, "holds"), (0.5, 0.6, "does not hold"), (0.5, 0.5, "not decided (interval includes 0)")],
)
def test_a_claim_is_judged_on_the_runs_outcomes(tmp_path, monkeypatch, al0, ap, expected):
    pytest.importorskip("matplotlib")
    monkeypatch.setitem(ACCURACY, "al0", (0.8, al0))
    monkeypatch.setitem(ACCURACY, "ap", (0.8, ap))
    page = build("atmc-mnist", "smoke", [], Runner(tmp_path / "runs"), tmp_path)
    claims = json.loads(page.with_suffix(".json").read_text())["comparisons"]
    assert [claim["conclusion"] for claim in claims if claim["claim"] == "A-l0 is above AP"] == [expected] * 2


def test_unknown_tables_and_scales_are_named():
    assert "atmc-mnist" in names()
    with pytest.raises(UserError, match=r"unknown table 'atmc-mnits'.*Did you mean atmc-mnist"):
        load("atmc-mnits")
    with pytest.raises(UserError, match="unknown scale 'huge'; choose from cpu, gpu, paper, smoke"):
        jobs(load("atmc-mnist"), "huge", [])


SPEC = "title: t\nsource: s\noverrides: []\npublished: {}\nscales: {}\nrows: [{label: DA}]\n"


@pytest.mark.parametrize(
    ("addition", "message"),
    [
        ("colour: red", "colour"),
        ("comparisons: [{claim: c, metric: pgd, row: DB, at_least: 1}]", "unknown row 'DB'"),
        ("comparisons: [{claim: c, metric: pgd, row: DA}]", "exactly one bound"),
        ("comparisons: [{claim: c, metric: pgd, row: DA, within: 2}]", "exactly one bound"),
        ("comparisons: [{claim: c, metric: pgd, better: DA, at_least: 2}]", "exactly one bound"),
    ],
)
def test_a_spec_with_a_slip_is_refused(addition, message):
    with pytest.raises(UserError, match=message):
        parse(f"{SPEC}columns: {{accuracy: {{}}, size: [file], x: file}}\n{addition}", "conf/table/x.yaml")


@pytest.mark.parametrize("sizes", ["size: [nominal, b], x: file", "size: [file], x: b"])
def test_a_spec_with_another_size_is_refused_before_any_run(sizes):
    with pytest.raises(UserError, match=r"unknown size in conf/table/x\.yaml 'b'; choose from coded, file, nominal"):
        parse(f"{SPEC}columns: {{accuracy: {{}}, {sizes}}}\n", "conf/table/x.yaml")


def test_the_sizes_of_a_spec_are_those_of_a_report():
    assert tuple(parsed(make_report()).size.named()) == SIZES


def test_a_spec_without_a_title_is_refused():
    with pytest.raises(UserError, match="title"):
        parse("source: s", "conf/table/x.yaml")


def test_a_run_in_doubt_is_marked_on_the_page_and_distances_are_passed_over(tmp_path):
    class Doubted(Runner):
        def run(self, number: int, given: dict[str, str]) -> Path | None:
            folder = super().run(number, given)
            if given["method"] == "da":
                report = json.loads((folder / "report.json").read_text())
                check = {"name": "zero_gradients", "flag": True, "evidence": "Seen."}
                report["verdict"] = {"trusted": False, "images": 100, "checks": [check]}
                (folder / "report.json").write_text(json.dumps(report))
                with np.load(folder / "outcomes.npz") as arrays:
                    np.savez(folder / "outcomes.npz", **arrays, **{"fab.distance": np.full(400, np.inf, np.float32)})
            return folder

    page = build("atmc-mnist", "smoke", [], Doubted(tmp_path / "runs"), tmp_path / "pages").read_text()
    rows = {line.split("|")[1].strip(): line for line in page.splitlines() if line.startswith("|")}
    assert "(!)" in rows["DA"]
    assert "Zero gradients: Seen." in page
    job = next(job for job in jobs(load("atmc-mnist"), "smoke", []) if "method=da" in job.overrides)
    folder = next((tmp_path / "runs").glob("mnist-lenet-da/*"))
    (record,) = collect([job], [folder])
    assert "fab.distance" not in record.outcomes
