"""What `robcomp histogram` writes."""

from dataclasses import dataclass
from typing import ClassVar

from robcomp.report.records import Document, meaning
from robcomp.report.results.reported import NamedRun


@dataclass(frozen=True, kw_only=True)
class WeightCounts(NamedRun):
    """The weights of a run, counted."""

    sha256: str = meaning("SHA-256 of its model.rcz")
    clean: float = meaning("clean accuracy in its report")
    robust: float = meaning("worst case in its report")
    layers: list[str] = meaning("names of the layers counted")
    weights: int = meaning("how many weights")
    zeros: int = meaning("how many of them are zero")
    zero_share: float = meaning("`zeros` / `weights`")
    mean: float = meaning("of all weights, in their own unit, normalised or not")
    standard_deviation: float = meaning("of all weights, likewise")
    nonzero_mean: float = meaning("of the weights that are not zero; 0 where there is none")
    nonzero_standard_deviation: float = meaning("of these")
    largest: float = meaning("the largest magnitude")
    divided_by: float = meaning("what the weights were divided by before they were counted; 1 unless normalised")
    counts: list[int] = meaning("non-zero weights in each bin")


@dataclass(frozen=True, kw_only=True)
class HistogramResult(Document):
    """`robcomp histogram`: the distribution of the weights of runs; exact zeros are in no bin."""

    SCHEMA: ClassVar[str] = "robcomp-histogram/1"

    finished: str = meaning("when it ended, ISO 8601 with time zone")
    normalised: bool = meaning("whether each run's weights were divided by their largest magnitude")
    layers: str = meaning("the pattern that the layers' names match; empty for all")
    edges: list[float] = meaning(
        "edges of the bins, of equal width from minus to plus the largest magnitude of all runs (1 where normalised); "
        "a bin holds its lower edge, the last one its upper edge too"
    )
    runs: list[WeightCounts] = meaning("run by run")
