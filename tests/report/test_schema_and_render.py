"""report.json: what is refused, what the documentation lists, and how a report reads as text."""

import io
import json

import pytest
from made_up import make_report, parsed
from rich.console import Console

from robcomp.errors import UserError
from robcomp.report import formatting, render
from robcomp.report.records import to_json
from robcomp.report.schema import Report


def test_a_complete_report_passes_and_new_keys_are_welcome():
    report = make_report()
    assert to_json(parsed(report)) == report
    assert parsed({**report, "latency": {}}) == parsed(report)


@pytest.mark.parametrize("given", [{"schema": "robcomp-report/9"}, {"schema": "robcomp-report/2"}, {}, []])
def test_another_version_is_refused(given):
    with pytest.raises(UserError, match=r"reads 'robcomp-report/3'"):
        parsed(given)


def test_missing_keys_are_named_with_their_place():
    report = make_report()
    del report["accuracy"]["attacks"]["pgd"]["interval"]
    del report["density"]["layers"][0]["tensors"][0]["distinct"]
    del report["size"], report["stages"]
    places = r"stages, accuracy\.attacks\.pgd\.interval, size, density\.layers\[0\]\.tensors\[0\]\.distinct;"
    with pytest.raises(UserError, match=f"this report lacks {places}"):
        parsed(report)


def test_read_tells_an_absent_file_from_a_broken_one(tmp_path):
    page = tmp_path / "report.json"
    with pytest.raises(UserError, match="no report at"):
        Report.read(page)
    page.write_text("{")
    with pytest.raises(UserError, match="is not JSON"):
        Report.read(page)
    page.write_text('{"schema": "robcomp-report/1"}')
    with pytest.raises(UserError, match=rf"{page} has schema 'robcomp-report/1'.*Train again"):
        Report.read(page)
    page.write_text(json.dumps(make_report()))
    assert to_json(Report.read(page)) == make_report()


def test_console_shows_accuracy_sizes_and_densities():
    stream = io.StringIO()
    render.console(parsed(make_report()), Console(file=stream, width=120))
    text = stream.getvalue()
    header, *rows = [" ".join(line.split()) for line in text.splitlines()]
    assert header.startswith(
        "mnist / lenet / atmc ab12cd34ef56 | seed 0 | 12 epochs, last kept | 13 min 32 s | Linf eps 0.298"
    )
    assert "pgd 70.0 % [68.0, 72.0] 400 1.2 eps 0.298, steps 16" in rows
    assert "worst case 69.0 % [67.0, 71.0] 400 -" in rows
    sizes = [
        "file 2.4 kB 0.14 % 718x real bytes of model.rcz",
        "coded 645 B 0.037 % 2,670x non-zeros x bits, codebooks; no positions",
        "nominal 645 B 0.037 % 2,670x non-zeros x bits, as in the papers; no positions",
    ]
    assert rows[(start := rows.index(sizes[0])) : start + 3] == sizes
    assert "dense 2.3 M 100.0 % of the dense network" in rows
    assert "nonzero 12.3 k 0.54 % those with a non-zero weight" in rows
    assert "conv1 500 120 24.0 % U 3" in rows


def test_a_report_from_before_operations_were_counted_is_still_shown():
    report = make_report(rank=2)
    del report["macs"], report["density"]["layers"][0]["rank"]
    text = render.markdown(parsed(report))
    assert "## Compute" not in text
    assert "| conv1 | 500 | 120 | 24.0 % | U 3 |" in text


def test_low_rank_and_unofficial_data_are_said():
    report = make_report(rank=2)
    assert "| conv1 | 500 | 120 | 24.0 % | U V of rank 2 |" in render.markdown(parsed(report))
    assert "unofficial" not in render.header(parsed(report))
    report["data"]["official"] = False
    assert render.header(parsed(report)).startswith("mnist (unofficial split or order) / lenet")
    report["data"]["own"] = True
    assert render.header(parsed(report)).startswith("mnist (own images) / lenet")


def test_what_is_gone_is_said():
    report = make_report()
    report["density"] |= {"channels": [48, 64]}
    report["density"]["layers"][0] |= {"channels": [1, 1], "filters": [12, 20]}
    text = render.markdown(parsed(report))
    assert "| conv1 | 500 | 120 | 24.0 % | U 3, 12 of 20 filters |" in text
    assert "bits a weight, 48 of 64 convolution channels |" in text
    del report["density"]["channels"], report["density"]["layers"][0]["filters"]
    assert "of 64" not in render.markdown(parsed(report))


def test_markdown_holds_the_same_cells():
    text = render.markdown(parsed(make_report()))
    assert text.startswith("# mnist, lenet, atmc\n")
    assert "| clean | 97.0 % | [95.0, 99.0] | 400 | - |  |" in text
    assert "| coded | 645 B | 0.037 % | 2,670x | non-zeros x bits, codebooks; no positions |" in text
    assert "- nominal: non-zeros x bits [all]" in text
    assert "| all | 430,500 | 645 | 0.15 % | 8 bits a weight |" in text


@pytest.mark.parametrize(
    ("shown", "expected"),
    [
        (formatting.share(0.0), "0.0 %"),
        (formatting.share(0.00037), "0.037 %"),
        (formatting.share(0.5), "50.0 %"),
        (formatting.times(0.0), "infinitely"),
        (formatting.times(0.25), "4.0x"),
        (formatting.times(1 / 1188), "1,188x"),
        (formatting.byte_size(645), "645 B"),
        (formatting.byte_size(1_724_320), "1.7 MB"),
        (formatting.byte_size(5e9), "5.0 GB"),
        (formatting.duration(41.2), "41 s"),
        (formatting.duration(59.7), "1 min 00 s"),
        (formatting.duration(7500), "2 h 05 min"),
    ],
)
def test_numbers_are_readable(shown, expected):
    assert shown == expected
