"""What `robcomp curve` writes."""

from dataclasses import dataclass
from typing import ClassVar

from robcomp.report.accuracy import Proportion, Settings
from robcomp.report.records import meaning
from robcomp.report.results.analysis import Analysis


@dataclass(frozen=True, kw_only=True)
class CurvePoint(Proportion):
    """The accuracy at one budget."""

    eps: float | None = meaning("the budget, of a curve over eps", default=None)
    steps: int | None = meaning("the budget, of a curve over steps", default=None)
    attacked: int = meaning("how many images were attacked: those that no smaller budget had broken")
    seconds: float = meaning("time of the attack")

    @property
    def budget(self) -> float:
        """The eps or the steps."""
        return self.eps if self.eps is not None else self.steps or 0


@dataclass(frozen=True, kw_only=True)
class Curve:
    """A run under an attack whose budget rises."""

    run: str = meaning("label of the run")
    name: str = meaning("name of the attack in the suite")
    attack: Settings = meaning("its settings")
    points: list[CurvePoint] = meaning("the accuracies, at rising budgets")
    not_run: list[float] = meaning("the budgets left out, as the accuracy had fallen below chance before")
    falls_to_chance: bool | None = meaning("of a curve over eps: whether it ends below chance", default=None)
    whole_range: bool | None = meaning("of a curve over eps: whether the last eps allows any image", default=None)


@dataclass(frozen=True, kw_only=True)
class CurveResult(Analysis):
    """`robcomp curve`: accuracy while the adversary's budget rises."""

    SCHEMA: ClassVar[str] = "robcomp-curve/1"

    over: str = meaning("what rises: `eps` or `steps`")
    curves: list[Curve] = meaning("one for each run and attack")
