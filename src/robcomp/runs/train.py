"""One run: the stages of a method, the packed file, and the report on what was read back from it."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import torch
from omegaconf import OmegaConf
from rich.console import Console
from torch import nn

from robcomp import artifact, data, storage
from robcomp.artifact import NetworkSpec
from robcomp.errors import UserError
from robcomp.figures.training import training_curves
from robcomp.hardware import choose_device, choose_precision, exact_float32
from robcomp.models.parameterisation import parameterise, prunable_parameters, restore
from robcomp.report import log
from robcomp.report.schema import Report, StageFacts
from robcomp.report.terminal import say
from robcomp.runs import beforehand, evaluate, identity, weights
from robcomp.settings.schema import Config
from robcomp.trainers.loop import stage_store
from robcomp.trainers.loop.bars import TrainingProgress
from robcomp.trainers.loop.forecast import passes
from robcomp.trainers.loop.stage_loop import LoopSettings, run_stage
from robcomp.trainers.loop.stage_store import StageResult, StageStore
from robcomp.trainers.stage import Stage
from robcomp.trainers.state import Environment, TrainState

_looked_at: set[Path] = set()  # caches in which this process has looked for stages of an earlier version


def train(config: Config, overrides: Sequence[str], console: Console, discarded: set[Path] | None = None) -> Path:
    """Train, pack, read back, attack and report; returns the run directory. A finished run is not run again.

    How far it is appears on `console`; `show` prints the report. `discarded`: the stages that fresh=true has discarded
    already, which the runs of a sweep share.
    """
    folder = identity.run_directory(config)
    beforehand.writable(Path(config.out))
    run = None if finished(config, folder) else Run(config, overrides, folder, console, discarded)  # no data, no folder
    with storage.locked(folder / "lock", f"training {folder}") as doing:
        if run is None or finished(config, folder):  # meanwhile, by another process
            _check_data(config, folder)
            say(console, f"already finished: {folder} (fresh=true runs it again)")
        else:
            with exact_float32():
                run.execute(doing)
            (folder / "failure.txt").unlink(missing_ok=True)
    return folder


def show(folder: Path, console: Console) -> None:
    """Print the report of a finished run, and where it lies."""
    evaluate.show(folder / "report.json", console)
    say(console, f"run directory: {folder}")


def finished(config: Config, folder: Path) -> bool:
    """Whether the run in `folder` would not be run again."""
    return not config.fresh and Report.present(folder / "report.json")


def work(config: Config) -> float:
    """What the stages of a run take: the passes of a training image through the network, to weigh runs by."""
    return sum(passes(stage, stage.schedule.epochs) for stage in config.stages())


def stage_stores(config: Config, checksum: str) -> list[StageStore]:
    """The places in the cache of a run's stages, in order, on the images of that checksum."""
    stages, origin, cache = config.stages(), identity.origin(config), Path(config.out) / "stages"
    precision = identity.precision(config)
    return [
        StageStore(cache, identity.stage(config, origin, stages[: place + 1], checksum, precision))
        for place in range(len(stages))
    ]


def _check_data(config: Config, folder: Path) -> None:
    """UserError when the data set at hand is not the one that the finished run was trained on."""
    present = data.checksum(config.dataset, Path(config.data_dir))
    trained = Report.read(folder / "report.json").data.checksum
    if present not in (None, trained):
        raise UserError(
            f"{folder} is finished, but with other {config.dataset.name} images than those in {config.data_dir}; "
            "set fresh=true to run it again, or out= to keep both."
        )


class Run:
    """A run in progress: its folder, data and environment."""

    def __init__(
        self,
        config: Config,
        overrides: Sequence[str],
        folder: Path,
        console: Console,
        discarded: set[Path] | None = None,
    ) -> None:
        self.config, self.overrides, self.folder, self.console = config, list(overrides), folder, console
        self.discarded = set() if discarded is None else discarded
        self.log = folder / "log.jsonl"
        device = choose_device(config.device)
        precision = choose_precision(config.training.precision, device)
        self.env = Environment(device, precision, config.training.channels_last, config.training.graphs)
        self.data = data.load(config.dataset, Path(config.data_dir), device)
        for sentence in beforehand.fits(config, overrides, self.data):
            say(console, sentence)
        channels, height, width = config.dataset.shape
        self.spec = NetworkSpec(config.model, (channels, height, width), len(self.data.classes), self.data.classes)
        with torch.device("meta"):
            config.method.check(self.spec.build())

    def execute(self, doing: Callable[[str], None]) -> None:
        """The whole job; report.json is written last, so its presence says that the run is finished.

        `doing` is told what is being done, for who waits for the run.
        """
        storage.write_text(self.folder / "config.yaml", OmegaConf.to_yaml(OmegaConf.structured(self.config)))
        storage.write_text(self.log, "")
        for old in (self.folder / "report.json", *self.folder.glob("evaluation-*")):
            old.unlink(missing_ok=True)
        result, stages = self._train(doing)
        artifact.save(self._restore(result), self.spec, self.config.weight_bits, self.folder / "model.rcz")
        weighed = evaluate.packed(self.folder / "model.rcz")
        doing(f"evaluating {self.folder}")
        report = evaluate.report(
            weighed, self.config, self.overrides, self.folder, self.data, self.env, stages, self.console
        )
        for name, entry in report.accuracy.entries().items():
            log.append(self.log, {"event": "evaluation", "attack": name, "accuracy": entry.value})
        try:
            training_curves(self.log, self.folder / "curves.png")
        except UserError as error:  # no matplotlib: the run is no worse for it
            say(self.console, f"curves.png is not drawn: {error}")
        evaluate.finish(self.folder, report)

    def _train(self, doing: Callable[[str], None]) -> tuple[StageResult, list[StageFacts]]:
        """Every stage in turn, or from the cache where a run has been there; the last result, and the stages' story."""
        stages, cache = self.config.stages(), Path(self.config.out) / "stages"
        if cache not in _looked_at and (orphaned := stage_store.orphaned(cache)):
            say(
                self.console,
                f"{cache} contains stages written by an earlier version of robcomp ({orphaned}), which are no longer "
                "used and may be deleted.",
            )
        _looked_at.add(cache)
        stores = stage_stores(self.config, self.data.checksum)
        self._announce(stages, stores)
        progress = TrainingProgress(self.console, [stage for stage in stages if stage.schedule.epochs])
        results: dict[str, StageResult | None] = {"init": None, "previous": None}
        story = []
        for stage, store in zip(stages, stores, strict=True):
            what = f"training stage {stage.name} of {self.folder}"
            doing(what)
            with store.lock(what):
                if self._starts_over(store):
                    store.discard()
                    self.discarded.add(store.folder)
                done = store.result()
                cached = done is not None
                log.append(self.log, {"event": "stage", "stage": stage.name, "key": store.key, "cached": cached})
                if done is None:
                    result = self._run_stage(stage, results, store, progress)
                else:
                    result = done
                    progress.cached(stage, result)
                    for record in result.records:
                        log.append(self.log, record)
            results["previous"] = results[stage.name] = result
            story.append(_story(stage, store, result, cached))
        return result, story

    def _starts_over(self, store: StageStore) -> bool:
        return self.config.fresh and store.folder not in self.discarded

    def _announce(self, stages: list[Stage], stores: list[StageStore]) -> None:
        """What begins here: method, data, network; where and how; the stages with their epochs; the run directory."""
        config, env, images = self.config, self.env, f"{len(self.data.train):,} training images"
        what = f"{config.dataset.name} / {config.model.name} / {config.method.name}, seed {config.seed}"
        say(self.console, f"{what}: {images}, on {env.device.type} in {env.precision}", fold=True)
        there = [store.finished and not self._starts_over(store) for store in stores]
        said = [_said(stage, cached) for stage, cached in zip(stages, there, strict=True)]
        say(self.console, f"stages: {', '.join(said)}", fold=True)
        say(self.console, f"run directory: {self.folder}")

    def _run_stage(
        self, stage: Stage, results: dict[str, StageResult | None], store: StageStore, progress: TrainingProgress
    ) -> StageResult:
        state = self.begin(stage, self._restore(results[stage.start]))
        if stage.support and (supporting := results[stage.support]) is not None:
            state.support = _support(state.model, supporting)
        return run_stage(stage, state, self.settings, store, partial(log.append, self.log), progress)

    def begin(self, stage: Stage, model: nn.Module) -> TrainState:
        """The stage at its first step, from the network `model`, which moves to the device."""
        parameterise(model, stage.parameterisation)
        model.to(self.env.device).to(memory_format=self.env.memory_format)
        config = self.config
        return TrainState(
            stage.name,
            model,
            self.data,
            config.dataset,
            self.env,
            config.seed,
            config.training.batch_size,
            stage.schedule.epochs,
        )

    @property
    def settings(self) -> LoopSettings:
        """How the stages are run."""
        config = self.config
        return LoopSettings(config.inner_attack(), config.selection, config.training.weight_average)

    def _restore(self, result: StageResult | None) -> nn.Module:
        """The network of a finished stage, or as initialised, on the CPU."""
        torch.manual_seed(self.config.seed)
        model = self.spec.build()
        if result is not None:
            restore(model, result.form, result.tensors)
        elif self.config.model.weights:
            story = weights.start_from(model, self.config.model, Path(self.config.model.weights))
            say(self.console, f"initial weights: {story}")
        return model


def _said(stage: Stage, cached: bool) -> str:
    """'dense, 40 epochs (from the cache)'."""
    epochs = stage.schedule.epochs
    length = f"{epochs} epoch{'' if epochs == 1 else 's'}" if epochs else "0 epochs"
    return f"{stage.name} {length}{' (from the cache)' if cached else ''}"


def _support(model: nn.Module, result: StageResult) -> dict[str, torch.Tensor]:
    """The non-zeros of a finished stage: a mask for each weight and batch-norm scale of `model`, on its device."""
    return {name: result.tensors[name].to(held.device) != 0 for name, held in prunable_parameters(model).items()}


def _story(stage: Stage, store: StageStore, result: StageResult, cached: bool) -> StageFacts:
    speeds = sorted(record["images_per_second"] for record in result.records)
    return StageFacts(
        name=stage.name,
        key=store.key,
        epochs=len(result.records),
        seconds=round(result.seconds, 2),
        cached=cached,
        images_per_second=speeds[len(speeds) // 2] if speeds else None,
    )
