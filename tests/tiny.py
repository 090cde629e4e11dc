"""Networks, data and runs so small that a whole training takes a fraction of a second."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from safetensors.torch import save_file
from torch import Tensor, nn

from robcomp.attacks.pgd import PGD
from robcomp.data import Dataset, DatasetConfig, Split
from robcomp.models.base import conv_bn
from robcomp.runs.train import train
from robcomp.settings.compose import compose_config
from robcomp.trainers.compressor import Compressor
from robcomp.trainers.loop import stage_loop as loop
from robcomp.trainers.loop.bars import TrainingProgress
from robcomp.trainers.loop.stage_store import StageResult, StageStore
from robcomp.trainers.objectives import Loss, Natural
from robcomp.trainers.stage import Stage
from robcomp.trainers.state import Environment, TrainState

SHAPE, CLASSES = (1, 16, 16), 3
CPU = Environment(torch.device("cpu"), "float32", channels_last=False, graphs=False)

# A run of any method on `tiny`: 4 steps an epoch, 2 epochs a stage.
RUN = [
    "dataset=digits",
    "dataset.name=tiny",
    "dataset.shape=[1,16,16]",
    "dataset.classes=3",
    "dataset.val=16",
    "model.width=0.1",
    "device=cpu",
    "training.precision=float32",
    "training.batch_size=16",
    "training.attack.steps=2",
    "attack.attacks.pgd.steps=2",
    "attack.verdict=0",
    *(f"~attack.attacks.{name}" for name in ("margin", "apgd_t", "square")),
    "dataset.test_subset=20",
    *(f"schedule.{stage}.epochs=2" for stage in ("dense", "sparse", "factored", "quantised")),
]


def typed(method: str, *overrides: str) -> list[str]:
    """`RUN` as it may be typed for that method: without the schedules of stages that it does not have."""
    used = {stage.schedule_name for stage in compose_config([f"method={method}"]).stages()}
    own = [override for override in RUN if not override.startswith("schedule.") or override.split(".")[1] in used]
    return [*own, f"method={method}", *overrides]


def images(count: int, seed: int) -> Split:
    """Noise with a bright band of rows whose place is the class."""
    random = rng(seed)
    labels = torch.arange(count) % CLASSES
    pixels = torch.randint(0, 90, (count, *SHAPE), generator=random)
    band = SHAPE[1] // CLASSES
    for pixel, label in zip(pixels, labels.tolist(), strict=True):
        pixel[:, label * band : (label + 1) * band] += 120
    return Split(pixels.to(torch.uint8), labels)


def write_data(folder: Path, train: int = 80, test: int = 30) -> Path:
    """`tiny.safetensors` in `folder`, as the data layer would have converted it; returns the folder."""
    first, second = images(train, 1), images(test, 2)
    tensors = {
        "train_images": first.images,
        "train_labels": first.labels,
        "test_images": second.images,
        "test_labels": second.labels,
    }
    metadata = {"classes": json.dumps([f"band {i}" for i in range(CLASSES)]), "source": "made up", "official": "true"}
    save_file(tensors, folder / "tiny.safetensors", metadata)
    return folder


def run(overrides: list[str]) -> Path:
    """`robcomp train` on `tiny`, in silence; the run directory."""
    arguments = [*RUN, *overrides]
    return train(compose_config(arguments), arguments, Console(quiet=True))


def dataset(train: int = 40, val: int = 0) -> Dataset:
    """The same kind of images, in memory."""
    names = tuple(f"band {i}" for i in range(CLASSES))
    parts = images(train, 1), images(val, 2), images(8, 3)
    return Dataset("tiny", names, *parts, checksum="0", official=True, source="made up")


def train_state(
    model: nn.Module,
    *,
    data: Dataset | None = None,
    batch: int = 8,
    epochs: int = 1,
    stage: str = "sparse",
    seed: int = 0,
    **augmentation: Any,
) -> TrainState:
    """A stage's TrainState in plain float32; augmentation: pad, flip."""
    data = data or dataset()
    cfg = DatasetConfig("tiny", list(data.train.images.shape[1:]), CLASSES, val=0, **augmentation)
    return TrainState(stage, model, data, cfg, CPU, seed, batch, epochs)


def train_stage(stage: Stage, state: TrainState, folder: Path, selection: str = "last") -> StageResult:
    """`run_stage` with a stage store in `folder`."""
    settings, store = loop.LoopSettings(PGD(0.1, steps=1), selection), stage_store(folder, stage)
    return loop.run_stage(stage, state, settings, store, lambda record: None, TrainingProgress(Console(quiet=True)))


def stage_store(folder: Path, stage: Stage) -> StageStore:
    """The files of `stage` in `folder`, by its name."""
    return StageStore(folder, {"stage": stage.name})


def two_layers(seed: int = 0, inputs: int = 256, hidden: int = 12) -> nn.Sequential:
    """linear, ReLU, linear on flattened `tiny` images."""
    torch.manual_seed(seed)
    return nn.Sequential(nn.Flatten(), nn.Linear(inputs, hidden), nn.ReLU(), nn.Linear(hidden, CLASSES))


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def clones(tensors: list[Tensor]) -> list[Tensor]:
    return [t.detach().clone() for t in tensors]


def randomise_batch_norm(model: nn.Module, seed: int = 0) -> None:
    """Scales, shifts and running statistics as after some training, so that folding them is no identity."""
    random = rng(seed)
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            for tensor, low, high in (
                (module.weight.data, 0.5, 1.5),
                (module.bias.data, -0.5, 0.5),
                (module.running_mean, -0.3, 0.3),
                (module.running_var, 0.3, 2.0),
            ):
                tensor.copy_(torch.rand(tensor.shape, generator=random) * (high - low) + low)


class Recording(Natural):
    """The natural objective, keeping the batches that it saw."""

    def __init__(self) -> None:
        self.batches: list[tuple[Tensor, Tensor]] = []

    def loss(self, state: TrainState, x: Tensor, y: Tensor) -> Loss:
        self.batches.append((x.clone(), y.clone()))
        return super().loss(state, x, y)


class Killed(BaseException):
    """Stands for SIGKILL: nothing in robcomp may catch it."""


def convolutional() -> nn.Module:
    """A plain convolution, one with a batch norm, and a linear layer."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(1, 3, 3, 2),
        nn.ReLU(),
        conv_bn(3, 8, 3),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        nn.Linear(32, 3),
    )
    with torch.no_grad():
        model[2].bn.weight.uniform_(-1, 1, generator=rng(2))
    return model


def kill_at(monkeypatch: pytest.MonkeyPatch, stage: str, step: int) -> None:
    """The process 'dies' when that stage asks for the batch of that step."""
    original = TrainState.batch

    def batch(state: TrainState) -> tuple[Tensor, Tensor]:
        if (state.stage, state.step) == (stage, step):
            raise Killed
        return original(state)

    monkeypatch.setattr(TrainState, "batch", batch)


@dataclass(frozen=True)
class Watched(Compressor):
    """`inner` as it is, and a look at the state after its start and after each of its steps."""

    inner: Compressor
    look: Callable[[TrainState], object]

    @property
    def refreshes_statistics(self) -> bool:
        return self.inner.refreshes_statistics

    def start(self, state: TrainState) -> Any:
        state.compression = self.inner.start(state)
        self.look(state)
        return state.compression

    def regularise(self, state: TrainState) -> None:
        self.inner.regularise(state)

    def after_step(self, state: TrainState) -> None:
        self.inner.after_step(state)
        self.look(state)

    def after_epoch(self, state: TrainState) -> None:
        self.inner.after_epoch(state)

    def compressed(self, state: TrainState) -> dict[str, Tensor]:
        return self.inner.compressed(state)
