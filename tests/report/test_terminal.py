"""Lines and bars that fit their terminal; nothing folded where there is none."""

import io

import pytest
from rich.console import Console

from robcomp.report import terminal
from robcomp.report.terminal import Gauge, Gauges, about, fitted, line, say

PARTS = [(0, "epoch 12/40"), (1, "step 33/88"), (0, "1 h 23 min left"), (3, "loss 0.812"), (2, "clean 93.1 %")]
PATH = "/a folder/" + "/".join(["of-many-parts"] * 20) + "/[bold]"


def printed(width: int, thing: object, terminal: bool = True) -> list[str]:
    stream = io.StringIO()
    console = Console(file=stream, force_terminal=terminal, width=width, color_system=None)
    if isinstance(thing, str):
        say(console, thing)
    else:
        console.print(thing)
    return stream.getvalue().splitlines()


def test_the_highest_ranks_go_first_and_the_order_stays() -> None:
    assert fitted(PARTS, 70) == "epoch 12/40  step 33/88  1 h 23 min left  loss 0.812  clean 93.1 %"
    assert fitted(PARTS, 60) == "epoch 12/40  step 33/88  1 h 23 min left  clean 93.1 %"
    assert fitted(PARTS, 50) == "epoch 12/40  step 33/88  1 h 23 min left"
    assert fitted(PARTS, 30) == "epoch 12/40  1 h 23 min left"
    assert fitted(PARTS, 12) == "epoch 12/40…"
    assert fitted([(0, "a"), (0, ""), (1, "b")], 9) == "a  b"


@pytest.mark.parametrize("width", [60, 80, 100, 160])
@pytest.mark.parametrize("title", ["dense", "a_stage_with_a_name_of_its_very_own"])
def test_a_gauge_is_one_line_that_keeps_bar_counts_and_time(width: int, title: str) -> None:
    (text,) = printed(width, Gauge(title, 0.3, PARTS, 10))
    assert len(text) <= width
    assert sum(map(text.count, "━╸─")) >= terminal.SHORTEST
    assert "epoch 12/40" in text
    assert "1 h 23 min left" in text
    assert ("step 33/88" in text) == (width > 60 or title == "dense")
    assert ("loss 0.812" in text) == (width > 100 or (title == "dense" and width > 80))


@pytest.mark.parametrize(
    ("share", "drawn"),
    [(-1.0, "─" * 30), (0.0, "─" * 30), (0.25, "━" * 7 + "╸" + "─" * 22), (1.0, "━" * 30), (7.0, "━" * 30)],
)
def test_the_bar_is_as_full_as_its_share_without_colours_too(share: float, drawn: str) -> None:
    assert printed(100, Gauge("x", share, [])) == [f"x  {drawn}  "]


def test_the_bar_of_a_terminal_that_knows_ascii_alone() -> None:
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    Console(file=stream, force_terminal=True, width=100, color_system=None).print(Gauge("x", 0.5, []))
    stream.seek(0)
    assert stream.read().strip() == "x  " + "#" * 15 + "-" * 15


def test_a_path_is_never_broken_and_markup_in_it_is_kept() -> None:
    """On a terminal the terminal itself goes on in its next line, and copies the whole."""
    for kind in (True, False):
        assert printed(80, f"run directory: {PATH}", kind) == [f"run directory: {PATH}"]


def test_sentences_fold_between_words_on_a_terminal_alone() -> None:
    stream = io.StringIO()
    sentence = "stages: " + ", ".join(f"stage{number} 10 epochs" for number in range(9))
    say(Console(file=stream, force_terminal=True, width=60), sentence, fold=True)
    lines = stream.getvalue().splitlines()
    assert max(map(len, lines)) <= 60
    assert " ".join(part.strip() for part in lines) == sentence


def test_without_a_terminal_lines_are_whole_and_plain(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "40")
    console = terminal.console()
    line(console, [(rank, text) for rank, text in PARTS] * 9)
    say(console, "in red", "bold red")
    say(console, "word " * 100, fold=True)
    assert capsys.readouterr().out == "  ".join([text for _, text in PARTS] * 9) + "\nin red\n" + "word " * 100 + "\n"


def test_with_stderr_or_quiet_stdout_is_empty(capsys: pytest.CaptureFixture[str]) -> None:
    say(terminal.console(stderr=True), "progress")
    say(terminal.console(quiet=True), "nothing")
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", "progress\n")


@pytest.mark.parametrize("kind", [True, False])
def test_bars_are_drawn_on_terminals_alone(kind: bool) -> None:
    stream = io.StringIO()
    gauges = Gauges(Console(file=stream, force_terminal=kind, width=80), lambda: [Gauge("dense", 0.5, PARTS)])
    gauges.start()
    gauges.stop()
    assert ("epoch 12/40" in stream.getvalue()) == kind
    assert kind or stream.getvalue() == ""


def test_estimates_are_as_fine_as_they_can_be() -> None:
    told = [about(seconds) for seconds in (None, 0.2, 41.3, 89, 91, 719, 7500)]
    assert told == ["", "0 s", "41 s", "89 s", "2 min", "12 min", "2 h 05 min"]
