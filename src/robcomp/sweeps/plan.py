"""What runs will cost, before the first of them starts: passes, operations, memory, and time on this machine."""

import gc
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Any

import torch
from rich.console import Console
from torch import nn

from robcomp import storage
from robcomp.data import Dataset
from robcomp.errors import UserError
from robcomp.evaluation import verdict
from robcomp.evaluation.cost import macs
from robcomp.evaluation.machine import machine
from robcomp.hardware import choose_device, choose_precision
from robcomp.report.formatting import byte_size, count, duration, percent, print_table
from robcomp.report.results import PlannedEvaluation, PlannedRun, PlannedStage, PlanResult
from robcomp.report.schema import Report
from robcomp.report.terminal import say
from robcomp.runs import train
from robcomp.settings.schema import Config
from robcomp.sweeps import pace
from robcomp.sweeps.pace import Pace
from robcomp.trainers.loop.finalise import STATISTICS_IMAGES
from robcomp.trainers.loop.forecast import passes
from robcomp.trainers.loop.stage_store import StageStore
from robcomp.trainers.stage import Stage

# Where no run like it is finished: the shares of the test images that are taken to be classified correctly, and to
# withstand the first attacks after many steps of adversarial training; half of the latter after so many steps.
CLEAN, ROBUST, HALF = 0.9, 0.7, 1000
LATEST = 10  # of finished runs, so many are asked
AROUND = 2.0  # seconds that a run takes beside its stages and attacks: reading data, packing, drawing its curves
SHORT = 1e13  # operations, which take two cores about a minute
TIMING = "timing some steps of each kind of stage"  # what is done meanwhile


def plan(
    configs: Sequence[Config],
    targets: Sequence[Path],
    overrides: Sequence[Sequence[str]],
    jobs: int = 1,
    brief: bool = False,
) -> PlanResult:
    """The cost of runs in this order, `jobs` of them side by side; nothing is written but data sets that are not there.

    targets: their run directories; overrides: what sets each apart from the others. A stage that several of them share
    is counted once. Some steps of each kind of stage are timed, for a second or two. With `brief`, for a line before
    the runs start, that is left out where all operations are fewer than SHORT, and so are runs that cannot be planned:
    they will say why themselves.

    How many images the attacks on survivors will meet is not known before: it is taken from the latest finished runs of
    the same method under the same threat. Where there are none, it is a guess that grows with the training (`_guess`).
    """
    book, drafts, owns = _Book(jobs), [], []
    for config, folder, own in zip(configs, targets, overrides, strict=True):
        try:
            drafts.append(_Draft(book, config, folder))
            owns.append(list(own))
        except (UserError, OSError):
            if not brief:
                raise
    measured = not brief or sum(draft.flops for draft in drafts) >= SHORT
    runs = [draft.planned(own, measured) for draft, own in zip(drafts, owns, strict=True)]
    seconds = [run.seconds for run in runs]
    known = [each for each in seconds if each is not None]
    book.close()
    device = choose_device(configs[0].device)
    return PlanResult.make(
        machine=machine(device, choose_precision(configs[0].training.precision, device)),
        jobs=jobs,
        passes=sum(run.passes for run in runs),
        flops=sum(run.flops for run in runs),
        seconds=max([*known, sum(known) / jobs]) if len(known) == len(seconds) else None,
        runs=runs,
    )


def show(plan: PlanResult, console: Console) -> None:
    """Print the plan as a table: of one run its stages, of several the runs."""
    columns = ["", "epochs", "passes", "operations", "time"]
    if len(plan.runs) == 1:
        (run,) = plan.runs
        rows = [
            [
                stage.name + (" (from the cache)" if stage.cached else _share(stage.done)),
                str(stage.epochs),
                *_cells(stage),
            ]
            for stage in run.stages
        ]
        rows.append([f"attacks on {run.evaluation.images:,} images", "", *_cells(run.evaluation)])
        title = f"plan of {run.folder}"
    else:
        rows = [[" ".join(run.overrides) or run.folder, _left(run), *_cells(run)] for run in plan.runs]
        columns[1] = "stages left"
        title = f"plan of {len(plan.runs)} runs"
    print_table(console, title, columns, rows)
    console.print()
    say(console, sentence(plan), fold=True)
    guesses = [run.evaluation.withstanding for run in plan.runs if not (run.finished or run.evaluation.known)]
    if guesses:
        say(
            console,
            f"up to {percent(max(guesses))} of the test images are taken to withstand the first attacks: a guess, as "
            "no such run on the data set is finished. If others do, the attacks on survivors take more or less time.",
            fold=True,
        )


def sentence(plan: PlanResult) -> str:
    """The plan in a line: time, passes, operations, memory."""
    open_runs = [run for run in plan.runs if not run.finished]
    if not open_runs:
        return "nothing is left to be computed"
    many = f"{len(open_runs)} of {len(plan.runs)} runs left: " if len(plan.runs) > 1 else ""
    took = "" if plan.seconds is None else f"about {duration(plan.seconds)}, "
    memory = max((run.memory or 0 for run in open_runs), default=0)
    needs = f", {byte_size(memory)} of memory" + (" each" if plan.jobs > 1 else "") if memory else ""
    beside = f", {plan.jobs} side by side" if plan.jobs > 1 else ""
    return f"{many}{took}{count(plan.passes)} passes, {_flop(plan.flops)}{needs}{beside}"


def _flop(number: float) -> str:
    """'3.0 PFLOP', '10 FLOP'."""
    said = count(number)
    return f"{said}FLOP" if said[-1].isalpha() else f"{said} FLOP"


def _cells(cost: PlannedStage | PlannedEvaluation | PlannedRun) -> list[str]:
    seconds = "" if cost.seconds is None else duration(cost.seconds)
    return [count(cost.passes), count(cost.flops), seconds] if cost.passes else ["", "", ""]


def _share(done: float) -> str:
    return f" ({100 * done:.0f} % done)" if done else ""


def _left(run: PlannedRun) -> str:
    """'2 of 3'; nothing where the run is finished."""
    return "finished" if run.finished else f"{sum(not s.cached for s in run.stages)} of {len(run.stages)}"


class _Book:
    """What runs have in common, looked up once: data and networks, paces, and the stages that an earlier one trains."""

    def __init__(self, jobs: int) -> None:
        self.jobs = jobs
        self.trained: set[Path] = set()
        self._runs: dict[str, train.Run] = {}
        self._networks: dict[str, tuple[int, bool]] = {}
        self._paces: dict[str, Pace] = {}

    def run(self, config: Config, folder: Path) -> train.Run:
        """The run with its data."""
        told = storage.describe(config.dataset), storage.describe(config.model), storage.describe(config.training)
        key = storage.digest([*told, config.dataset.path, config.data_dir, config.device, config.method.name])
        if key not in self._runs:
            self._runs[key] = train.Run(config, [], folder, Console(quiet=True))
        return self._runs[key]

    def network(self, run: train.Run) -> tuple[int, bool]:
        """The operations of a pass of an image, and whether there is batch normalisation."""
        key = storage.digest([storage.describe(run.config.model), run.spec.shape, run.spec.classes])
        if key not in self._networks:
            model = run.spec.build().eval()
            norms = any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in model.modules())
            self._networks[key] = 2 * macs(model, run.spec.shape).executed, norms
        return self._networks[key]

    def pace(self, key: list[Any], measure: Callable[[], Pace]) -> Pace:
        """The pace of what `key` says in full."""
        name = storage.digest(key)
        if name not in self._paces:
            threads = torch.get_num_threads()
            torch.set_num_threads(max(1, threads // self.jobs))
            try:
                self._paces[name] = measure()
            finally:
                torch.set_num_threads(threads)
        return self._paces[name]

    def close(self) -> None:
        """Give back the memory that was measured with."""
        self._runs.clear()
        gc.collect()
        if torch.cuda.is_initialized():
            torch.cuda.empty_cache()


class _Draft:
    """A run, counted: what is left of its stages, and its attacks; nothing of one that is finished."""

    def __init__(self, book: _Book, config: Config, folder: Path) -> None:
        self.book, self.config, self.folder = book, config, folder
        self.finished = train.finished(config, folder)
        self.stages = config.stages()
        self.known, self.done = [True] * len(self.stages), [0.0] * len(self.stages)
        self.passes, self.attacks, self.flops = [0.0] * len(self.stages), 0.0, 0.0
        self.images, self.survivors = config.dataset.test_subset or 0, _Survivors()
        if not self.finished:
            self._count()

    def _count(self) -> None:
        config = self.config
        self.run = run = self.book.run(config, self.folder)
        operations, norms = self.book.network(run)
        stores = train.stage_stores(config, run.data.checksum)
        self.known = [self._cached(store) for store in stores]
        self.book.trained |= {store.folder for store in stores}
        self.done = [
            0.0 if known or config.fresh else store.progress() for store, known in zip(stores, self.known, strict=True)
        ]
        self.passes = [
            0.0 if known else (1 - done) * _stage_passes(stage, config, run.data, norms)
            for stage, known, done in zip(self.stages, self.known, self.done, strict=True)
        ]
        self.images, self.survivors = len(run.data.test), _found(config) or _guess(config, len(run.data.train))
        self.attacks = _attack_passes(config, self.images, self.survivors)
        self.operations = operations
        self.flops = operations * (sum(self.passes) + self.attacks)

    def _cached(self, store: StageStore) -> bool:
        return store.folder in self.book.trained or (store.finished and not self.config.fresh)

    def planned(self, overrides: list[str], measured: bool) -> PlannedRun:
        """With the time that it takes here, where that is asked for."""
        stages, paces = [], []
        for stage, known, done, work in zip(self.stages, self.known, self.done, self.passes, strict=True):
            found = self._training(stage) if work and measured else None
            paces += [found] if found else []
            stages.append(
                PlannedStage(
                    name=stage.name,
                    epochs=stage.schedule.epochs,
                    cached=known,
                    done=done,
                    **self._cost(work, found),
                )
            )
        found = self._attacking() if self.attacks and measured else None
        paces += [found] if found else []
        attacks = PlannedEvaluation(
            images=self.images,
            withstanding=self.survivors.robust,
            known=self.survivors.known,
            **self._cost(self.attacks, found),
        )
        parts = [part.seconds for part in (*stages, attacks)]
        seconds = [part for part in parts if part is not None]
        return PlannedRun(
            folder=str(self.folder),
            overrides=overrides,
            finished=self.finished,
            stages=stages,
            evaluation=attacks,
            memory=max((each.memory for each in paces), default=None),
            passes=sum(self.passes) + self.attacks,
            flops=self.flops,
            seconds=sum(seconds) + AROUND * (not self.finished) if len(seconds) == len(parts) else None,
        )

    def _training(self, stage: Stage) -> Pace:
        """Rates, ratios and eps take no part in the time of a step, by which many stages share one pace."""
        what = _without_fractions(storage.describe(stage) | {"schedule": None})
        batch = self.config.training.batch_size
        return self.book.pace([*self._where(), batch, what], lambda: pace.training(self.run, stage))

    def _attacking(self) -> Pace:
        batch = self.config.attack.batch_size
        return self.book.pace([*self._where(), batch], lambda: pace.evaluation(self.run, batch))

    def _where(self) -> list[Any]:
        env = self.run.env
        device = [str(env.device), env.precision, env.channels_last, env.graphs]
        return [storage.describe(self.config.model), self.config.dataset.shape, *device]

    def _cost(self, work: float, found: Pace | None) -> dict[str, Any]:
        seconds = work * found.seconds if found else None if work else 0.0
        return {"passes": work, "flops": work * self.operations if work else 0.0, "seconds": seconds}


@dataclass(frozen=True)
class _Survivors:
    """Which shares of the test images are correct without and under attack, and whether that was found or guessed."""

    clean: float = CLEAN
    robust: float = 0.0
    known: bool = False


def _guess(config: Config, images: int) -> _Survivors:
    """By the steps of adversarial training: a network that has had few of them withstands little."""
    steps = sum(
        stage.schedule.epochs * (images // min(config.training.batch_size, images))
        for stage in config.stages()
        if stage.objective.passes(max(stage.schedule.epochs - 1, 0), stage.schedule.epochs) > 2
    )
    return _Survivors(robust=ROBUST * steps / (steps + HALF))


def _found(config: Config) -> _Survivors | None:
    """Those of the latest finished runs of the same method on the same data set, under the same threat."""
    pages = Path(config.out).glob(f"{config.dataset.name}-*-{config.method.name}/*/report.json")
    found = []
    for page in sorted(pages, key=lambda page: page.stat().st_mtime)[-LATEST:]:
        report = Report.read(page) if Report.present(page) else None
        if report and (report.threat.norm, report.threat.eps) == (config.threat.norm, config.threat.eps):
            found.append(report.accuracy)
    if not found:
        return None
    return _Survivors(mean(each.clean.value for each in found), mean(each.worst_case.value for each in found), True)


def _stage_passes(stage: Stage, config: Config, data: Dataset, norms: bool) -> float:
    """Passes of images in a whole stage: its steps, and after each epoch validation, with statistics of batch norm."""
    epochs, images = stage.schedule.epochs, len(data.train)
    batch = min(config.training.batch_size, images)
    last = stage.objective.passes(max(epochs - 1, 0), epochs)
    statistics = 0.0
    if norms and (config.training.weight_average or stage.compressor.refreshes_statistics):
        statistics = batch * last  # of a first batch, before any counts
    whole = min(STATISTICS_IMAGES, images) // batch * batch * last + statistics if statistics else 0.0
    held_out = data.test if config.selection == "best_on_test" else data.val
    each = 0.0
    if held_out:
        few = min(STATISTICS_IMAGES, images // 10) // batch or 1
        each = len(held_out) * (2 + config.inner_attack().cost)
        each += whole if config.selection != "last" else statistics * (1 + few)
    return images // batch * batch * passes(stage, epochs) + epochs * each + whole


def _attack_passes(config: Config, images: int, survivors: _Survivors) -> float:
    """Passes of images in the suite and in its verdict."""
    suite, built = config.attack, config.attack.build()
    total = float(images)
    for name, before in suite.order().items():
        total += (built[name].cost + 1) * images * (survivors.robust if before else survivors.clean)
    channels, height, width = config.dataset.shape
    judged = min(suite.verdict, survivors.clean * images)
    share = min(survivors.robust / survivors.clean, 1.0) if survivors.clean else 0.0
    own = verdict.planned(suite, channels * height * width)
    for name, attack in own.items():
        everyone = name.removeprefix(f"{verdict.NAME}.") in ("fgsm", "pgd")
        total += (attack.cost + 1) * judged * (1 if everyone else share)
    if own:  # PGD once more for the places that are looked at, and the passes there
        total += judged * (own[f"{verdict.NAME}.pgd"].cost + 3 * (verdict.PASSES + 2) + 1)
    return total


def _without_fractions(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_fractions(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_without_fractions(item) for item in value]
    return None if isinstance(value, float) else value
