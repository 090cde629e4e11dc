"""The distribution of the conv and linear weights of finished runs, one over the other.

Source: figures 4.1, 4.2, B.2 and B.3 of the thesis, figure 1a of DNR (Kundu et al., 2020). The weights are those that
the layers compute with (factors multiplied out). Zeros are counted apart: in a pruned network they would dwarf the
rest.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import track

from robcomp import artifact, storage
from robcomp.analyses import files, reported
from robcomp.errors import UserError
from robcomp.figures.histogram import histogram as figure
from robcomp.models.parameterisation import effective_weight, weight_layers
from robcomp.report.formatting import percent, print_table
from robcomp.report.records import now
from robcomp.report.results import HistogramResult, WeightCounts

BINS = 100
MAX_BINS = 10_000


@dataclass(frozen=True, eq=False)
class Weights:
    """The effective weights of a run's layers, float64, those of all layers behind each other."""

    layers: list[str]
    values: np.ndarray

    @property
    def largest(self) -> float:
        """The largest magnitude."""
        return float(np.abs(self.values).max())


def histogram(
    folders: Sequence[Path], bins: int, layers: str, normalised: bool, out: Path | None, console: Console
) -> Path:
    """Count, write and print the weights of the runs in `bins` bins of equal width; returns the JSON's path.

    The bins reach from minus to plus the largest magnitude of all runs. `layers` is a pattern of layer names (* and ?);
    `normalised` divides each run's weights by their largest magnitude. Neither the data set nor an attack is needed.
    """
    runs = reported.read_all(folders)
    networks = [run.folder / "model.rcz" for run in runs]
    read = track(
        networks, "weights", console=console, transient=True, disable=not console.is_terminal, total=len(networks)
    )
    weights = [load(network, layers) for network in read]
    units = [(each.largest or 1.0) if normalised else 1.0 for each in weights]
    reach = max(each.largest / unit for each, unit in zip(weights, units, strict=True)) or 1.0
    edges = np.linspace(-reach, reach, bins + 1)
    found = [
        WeightCounts(
            **run.head(),
            sha256=storage.file_digest(network),
            clean=run.report.accuracy.clean.value,
            robust=run.report.accuracy.worst_case.value,
            **counted(each, edges, unit),
        )
        for run, network, each, unit in zip(runs, networks, weights, units, strict=True)
    ]
    result = HistogramResult.make(
        finished=now(), normalised=normalised, layers=layers, edges=edges.tolist(), runs=found
    )
    _show(result, console)
    identity = [[run.sha256 for run in found], bins, layers, normalised]
    page = files.stem(HistogramResult, out or folders[0], identity).with_suffix(".json")
    files.write(page, result)
    return files.complete(page, list(_rows(result)), lambda path: figure(result, path), console)


def number_of_bins(text: str) -> int:
    """The whole number of bins=N, `BINS` for nothing."""
    number = int(text) if text.isdecimal() else 0
    if text and not 1 <= number <= MAX_BINS:
        raise UserError(f"bins={text} is not a number of bins; give a whole number from 1 to {MAX_BINS}.")
    return number or BINS


def load(network: Path, pattern: str) -> Weights:
    """The weights of a model.rcz in the layers whose names match `pattern`, all for an empty one."""
    if not network.is_file():
        raise UserError(f"no network at {network}; a finished run keeps its model.rcz beside report.json.")
    model, *_ = artifact.load(network)
    found = weight_layers(model)
    chosen = {name: layer for name, layer in found.items() if fnmatchcase(name, pattern or "*")}
    if not chosen:
        raise UserError(f"layers={pattern} matches no layer of {network}; it has {', '.join(found)}.")
    parts = [effective_weight(layer).detach().double().numpy().ravel() for layer in chosen.values()]
    return Weights(list(chosen), np.concatenate(parts))


def counted(weights: Weights, edges: np.ndarray, unit: float) -> dict[str, Any]:
    """The counts of the non-zero weights, divided by `unit`, between the edges; and what all of them are like.

    The fields of `WeightCounts` that the weights alone decide. A bin holds its lower edge, the last one its upper edge
    too. The moments are in the weights' own unit.
    """
    values = weights.values
    nonzero = values[values != 0]
    counts, _ = np.histogram(nonzero / unit, edges)
    moments = {"mean": values.mean(), "standard_deviation": values.std()}
    if len(nonzero):
        moments |= {"nonzero_mean": nonzero.mean(), "nonzero_standard_deviation": nonzero.std()}
    else:
        moments |= dict.fromkeys(("nonzero_mean", "nonzero_standard_deviation"), 0.0)
    zeros = len(values) - len(nonzero)
    return {
        "layers": weights.layers,
        "weights": len(values),
        "zeros": zeros,
        "zero_share": zeros / len(values),
        **{key: float(value) for key, value in moments.items()},
        "largest": weights.largest,
        "divided_by": unit,
        "counts": counts.tolist(),
    }


def _rows(result: HistogramResult) -> Iterator[dict[str, object]]:
    """The table: a row for each run and bin, the run's own figures repeated in each."""
    edges = result.edges
    own = ("weights", "zeros", "mean", "standard_deviation", "largest", "divided_by")
    for run in result.runs:
        for low, high, count in zip(edges[:-1], edges[1:], run.counts, strict=True):
            yield {"run": run.label, "low": low, "high": high, "count": count} | {key: getattr(run, key) for key in own}


def _show(result: HistogramResult, console: Console) -> None:
    rows = [
        [
            run.label,
            f"{run.weights:,}",
            percent(run.zero_share),
            *(f"{value:.3g}" for value in (run.standard_deviation, run.nonzero_standard_deviation, run.largest)),
        ]
        for run in result.runs
    ]
    of = f" of layers {result.layers}" if result.layers else ""
    columns = ["run", "weights", "zeros", "deviation", "w/o zeros", "largest"]
    print_table(console, f"Conv and linear weights{of}, with their standard deviation", columns, rows)
