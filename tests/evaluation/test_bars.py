"""How far an evaluation is: one bar a series, a line an attack, the time left, what went before told apart."""

import io
import re

import numpy as np
import pytest
from rich.console import Console

from robcomp.evaluation import bars
from robcomp.evaluation.bars import EvaluationProgress
from robcomp.evaluation.evaluator import Outcome

COSTS = {"fgsm": 2, "pgd": 40, "square": 300}


class Clock:
    """Stands for time.monotonic."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 0.0
        monkeypatch.setattr(bars.time, "monotonic", lambda: self.now)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def plain() -> tuple[EvaluationProgress, io.StringIO]:
    stream = io.StringIO()
    return EvaluationProgress(Console(file=stream, width=10_000)), stream


def drawn(progress: EvaluationProgress, width: int) -> str:
    """The bar as it would be drawn now."""
    stream = io.StringIO()
    Console(file=stream, force_terminal=True, width=width, color_system=None).print(*progress._series.gauges())
    (line,) = stream.getvalue().splitlines()
    return line


def outcome(correct: int, of: int, attacked: int) -> Outcome:
    return Outcome(np.arange(of) < correct, attacked, 12.34)


def test_attacks_on_survivors_are_planned_for_those_that_are_left(clock: Clock) -> None:
    progress, _ = plain()
    with progress:
        progress.plan("attacks", COSTS, 100, {"square": ["fgsm"]})
        clock.now = 2.0
        progress.finished("fgsm", outcome(10, 120, 100))
        assert progress._series.left() == 2.0 * (100 * 40 + 10 * 300) / (100 * 2)
        clock.now = 42.0
        progress.finished("pgd", outcome(0, 120, 100))  # excluded: square meets what it broke
        assert progress._series.left() == pytest.approx(42.0 * (10 * 300) / (100 * 42))


def test_an_attack_that_is_done_is_a_line(clock: Clock) -> None:
    progress, stream = plain()
    with progress:
        progress.plan("attacks", COSTS, 100)
        clock.now = 2.0
        progress.finished("fgsm", outcome(60, 120, 100))
        clock.now = 42.0
        progress.finished("pgd", outcome(30, 120, 100))
    assert stream.getvalue().splitlines() == [
        "attacks 1/3 fgsm  accuracy 50.0 %  100 images attacked  12.3 s  about 6 min left",
        "attacks 2/3 pgd  accuracy 25.0 %  100 images attacked  12.3 s  about 5 min left",
    ]


@pytest.mark.parametrize("width", [50, 60, 80, 100, 160])
def test_the_bar_is_one_line_with_place_and_time_left(width: int, clock: Clock) -> None:
    progress, _ = plain()
    progress.plan("attacks", COSTS, 1000)
    progress.advance("fgsm", 1000, 1000)
    progress.advance("pgd", 250.5, 1000)
    clock.now = 12.02  # a second for 1000 passes
    line = drawn(progress, width)
    assert len(line) <= width
    assert re.search("[━╸][─]", line)
    assert line.startswith("attacks  ")
    assert " 2/3  " in line
    assert line.endswith("  5 min left")
    assert ("250/1,000 images" in line) == (width > 50)


def test_fewer_images_than_planned_shorten_the_rest(clock: Clock) -> None:
    """In a cumulative suite each attack meets those that survived; one may have none to meet."""
    progress, _ = plain()
    progress.plan("attacks", COSTS, 1000)
    progress.finished("fgsm", outcome(10, 1000, 1000))
    progress.finished("pgd", outcome(0, 1000, 10))
    clock.now = 2.4  # 2,400 passes
    assert drawn(progress, 80).endswith("5 min left")
    progress.finished("square", outcome(0, 1000, 0))
    assert "━" * 30 in drawn(progress, 80)


def test_what_was_found_before_says_nothing_of_the_pace(clock: Clock) -> None:
    progress, stream = plain()
    progress.plan("attacks", {"pgd": 40}, 1000)
    progress.goes_on("pgd", 800, 1000)
    assert stream.getvalue() == "resumed pgd at image 801 of 1,000\n"
    assert "left" not in drawn(progress, 80)
    clock.now = 10.0
    progress.advance("pgd", 900, 1000)
    assert drawn(progress, 80).endswith("10 s left")


def test_the_verdict_is_a_single_line(clock: Clock) -> None:
    progress, stream = plain()
    progress.plan("verdict", {"verdict.fgsm": 2, "verdict.pgd": 40}, 100, lines=False)
    for name in ("verdict.fgsm", "verdict.pgd"):
        progress.finished(name, outcome(50, 100, 100))
    assert "2/2  pgd  100/100 images" in drawn(progress, 80)
    clock.now = 61.0
    progress.close()
    assert stream.getvalue() == "verdict: 2 attacks in 1 min 01 s\n"


def test_attacks_that_no_one_planned_are_shown_too(clock: Clock) -> None:
    progress, stream = plain()
    progress.advance("square", 5, 10)
    clock.now = 5.0
    assert drawn(progress, 80).startswith("square  ")
    progress.finished("square")
    assert stream.getvalue() == "square\n"
