"""How much accuracy a finished network loses when a single layer is pruned: the pruning sensitivity of its layers.

Source: section 3.3 and figure 2b of DNR (Kundu et al., 2020), after Ding et al. (2019): the share x of one layer's
weights, those of smallest magnitude, becomes zero, all other layers stay as they are, and the relative reduction of
the clean and of the robust accuracy is taken. Nothing is trained afterwards.
"""

from collections.abc import Iterator, Sequence
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from torch import nn

from robcomp.analyses.result import Result
from robcomp.errors import UserError
from robcomp.evaluation.accuracy import evaluate_suite
from robcomp.evaluation.bars import EvaluationProgress
from robcomp.evaluation.evaluator import Evaluator, proportion
from robcomp.evaluation.ledger import Ledger
from robcomp.evaluation.size import layer_sizes
from robcomp.evaluation.suite import SuiteConfig
from robcomp.figures.sensitivity import sensitivity as figure
from robcomp.models.parameterisation import stored_weights, weight_layers
from robcomp.projections import l0_
from robcomp.report.accuracy import Proportion
from robcomp.report.formatting import interval, percent, print_table, share
from robcomp.report.results import Accuracies, LayerSensitivity, NetworkSensitivity, PrunedLayer, SensitivityResult
from robcomp.report.size import LayerSize
from robcomp.runs.load import LoadedRun, load_all

SUITE = "pgd20"  # a cheap one: each layer is attacked anew for each share
SHARES = (0.5, 0.8, 0.95)
DEFINITION = (
    "Of one layer at a time the share x of its weights, those of smallest magnitude, is set to zero; those that are "
    "zero already count among them. The reduction is 100 * (1 - accuracy after / accuracy before), in percent; robust "
    "is the worst case over the suite."
)


def sensitivity(
    folders: Sequence[Path], overrides: Sequence[str], values: Sequence[float], out: Path | None, console: Console
) -> Path:
    """Evaluate, write and print the sensitivity of every conv and linear layer of the runs; returns the JSON's path.

    `values` are the shares x in (0, 1], `SHARES` where none is given; the suite is `SUITE` unless attack= is.
    """
    shares = _checked(values) or list(SHARES)
    chosen = any(override.startswith("attack=") for override in overrides)
    runs = load_all(folders, overrides if chosen else [f"attack={SUITE}", *overrides])
    suite = runs[0].config.attack
    record = Result(SensitivityResult, runs, [shares, replace(suite, verdict=0).identity()], overrides, out)
    result = record.present(console)
    if result is None:
        with EvaluationProgress(console) as progress:
            costs = {_title(run): 1 + len(shares) * len(layer_sizes(run.model)) for run in runs}
            progress.plan("sensitivity", costs, len(runs[0].dataset.test))
            networks = [_evaluate(run, shares, record, part, progress) for part, run in enumerate(runs)]
        settings = {name: attack.settings() for name, attack in suite.build().items()}
        result = record.write(definition=DEFINITION, attacks=settings, values=shares, networks=networks)
    _show(result, console)
    return record.complete(list(_rows(result)), lambda path: figure(result, path), console)


def pruned(model: nn.Module, layer: str, left: int) -> nn.Module:
    """A copy of `model` in which the `left` stored weights of `layer` of largest magnitude stay, the others are zero.

    Of a factored layer they are the largest of all its factors together. Of equal magnitudes the first ones stay.
    """
    copy = deepcopy(model)
    l0_([tensor.data for tensor in stored_weights(weight_layers(copy)[layer]).values()], left)
    return copy


def _checked(values: Sequence[float]) -> list[float]:
    for x in values:
        if not 0 < x <= 1:
            raise UserError(
                f"values={x:g} is not a share of a layer's weights; give numbers above 0 and up to 1: 0.5,0.95."
            )
    return list(values)


class _Part(Ledger):
    """The entries of one pruned network in the ledger of its run."""

    def __init__(self, shared: Ledger, network: Sequence[Any]) -> None:
        super().__init__()
        self.shared, self.network = shared, list(network)

    def recall(self, entry: object) -> tuple[dict[str, np.ndarray], int, float]:
        return self.shared.recall([self.network, entry])

    def note(self, entry: object, arrays: dict[str, np.ndarray], done: int, seconds: float) -> None:
        self.shared.note([self.network, entry], arrays, done, seconds)


class _Bench:
    """Evaluates `total` networks of a run one after the other, with the settings of the analysis's first run."""

    def __init__(
        self, run: LoadedRun, record: Result[SensitivityResult], part: int, total: int, progress: EvaluationProgress
    ) -> None:
        config = record.runs[0].config
        self.suite: SuiteConfig = config.attack
        self.seed, self.split = config.seed, run.dataset.test
        self.ledger, self.progress = record.ledger(str(part)), progress
        self.names = list(self.suite.order())
        self.title, self.total, self.done = _title(run), total, 0

    def evaluate(self, model: nn.Module, *network: Any) -> Accuracies:
        """The clean and the robust accuracy of `model`, which `network` names in the ledger."""
        part = _Part(self.ledger, network)
        arrays, *_ = part.recall("suite")
        if not arrays:
            with Evaluator(model, self.split, self.seed, self.suite.batch_size, part, self._advance) as evaluator:
                _, outcomes = evaluate_suite(evaluator, self.suite)
            arrays = {"clean": outcomes["clean"], "robust": outcomes["worst_case"]}
            part.note("suite", arrays, len(self.split), 0.0)
        self.skip()
        return Accuracies(clean=proportion(arrays["clean"]), robust=proportion(arrays["robust"]))

    def skip(self) -> None:
        """One network more is done."""
        self.done += 1
        self._advance(self.names[0], 0, 1)

    def _advance(self, name: str, done: float, total: int) -> None:
        """An attack's progress as that of the whole run, in images."""
        attacks = self.done * len(self.names) + self.names.index(name) + done / max(total, 1)
        images = len(self.split)
        self.progress.advance(self.title, images * attacks / (self.total * len(self.names)), images)


def _title(run: LoadedRun) -> str:
    return f"pruned layers of {run.label}"


def _evaluate(
    run: LoadedRun, shares: list[float], record: Result[SensitivityResult], part: int, progress: EvaluationProgress
) -> NetworkSensitivity:
    """The run's network as it is, and with each share of each layer pruned."""
    layers = layer_sizes(run.model)
    bench = _Bench(run, record, part, 1 + len(shares) * len(layers), progress)
    before = bench.evaluate(run.model)
    found = [
        LayerSensitivity(
            name=layer.name,
            weights=layer.weights,
            nonzero=layer.nonzero,
            density=layer.density,
            pruned=[_without(run, layer, x, before, bench) for x in shares],
        )
        for layer in layers
    ]
    progress.finished(_title(run))
    return NetworkSensitivity(run=run.label, unpruned=before, layers=found)


def _without(run: LoadedRun, layer: LayerSize, x: float, before: Accuracies, bench: _Bench) -> PrunedLayer:
    """The network without the share `x` of the layer's weights."""
    left, after = min(layer.weights - round(x * layer.weights), layer.nonzero), before
    if left < layer.nonzero:
        after = bench.evaluate(pruned(run.model, layer.name, left), layer.name, left)
    else:  # so sparse already that nothing is pruned
        bench.skip()
    return PrunedLayer(
        x=x,
        left=left,
        clean=after.clean,
        robust=after.robust,
        clean_reduction_percent=_reduction(before.clean, after.clean),
        robust_reduction_percent=_reduction(before.robust, after.robust),
    )


def _reduction(before: Proportion, after: Proportion) -> float | None:
    """The relative reduction in percent, below 0 where the accuracy rose; None of an accuracy that was 0."""
    return 100 * (1 - after.correct / before.correct) if before.correct else None


def _rows(result: SensitivityResult) -> Iterator[dict[str, object]]:
    """The table: first the unpruned network of each run (no layer, x = 0), then layer by layer."""
    for network in result.networks:
        uncounted = dict.fromkeys(("weights", "nonzero", "density", "left"), "")
        place: dict[str, object] = {"run": network.run, "layer": ""}
        yield place | uncounted | _cells(0, network.unpruned, 0.0, 0.0)
        for layer in network.layers:
            for point in layer.pruned:
                place = {"run": network.run, "layer": layer.name}
                counts = {"weights": layer.weights, "nonzero": layer.nonzero, "density": layer.density}
                reductions = point.clean_reduction_percent, point.robust_reduction_percent
                yield place | counts | {"left": point.left} | _cells(point.x, point, *reductions)


def _cells(x: float, found: Accuracies, *reductions: float | None) -> dict[str, object]:
    row: dict[str, object] = {"x": x, "images": found.clean.images}
    for kind, accuracy, reduction in zip(("clean", "robust"), (found.clean, found.robust), reductions, strict=True):
        low, high = accuracy.interval
        row |= {
            f"{kind}_correct": accuracy.correct,
            kind: accuracy.value,
            f"{kind}_low": low,
            f"{kind}_high": high,
            f"{kind}_reduction_percent": reduction,
        }
    return row


def _show(result: SensitivityResult, console: Console) -> None:
    columns = ["layer", "density", "clean", "reduction", "robust", "reduction"]
    for network in result.networks:
        clean, robust = (_accuracy(entry) for entry in (network.unpruned.clean, network.unpruned.robust))
        console.print(f"\n{network.run}, unpruned: clean {clean}, robust {robust}", markup=False, highlight=False)
        for place, x in enumerate(result.values):
            points = [(layer, layer.pruned[place]) for layer in network.layers]
            rows = [
                [
                    layer.name,
                    share(layer.density),
                    percent(point.clean.value),
                    _said(point.clean_reduction_percent),
                    percent(point.robust.value),
                    _said(point.robust_reduction_percent),
                ]
                for layer, point in points
            ]
            print_table(console, f"{network.run} with {100 * x:g} % of one layer pruned", columns, rows)
    console.print(f"\n{result.definition}", markup=False, highlight=False)


def _accuracy(entry: Proportion) -> str:
    return f"{percent(entry.value)} {interval(entry.interval)}"


def _said(reduction: float | None) -> str:
    return "-" if reduction is None else f"{reduction:.1f} %"
