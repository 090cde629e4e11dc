"""What the loop hands to objectives and compressors."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from robcomp.attacks.base import Attack
from robcomp.data import Dataset, augment, to_float
from robcomp.data.config import DatasetConfig
from robcomp.models.base import Dropout
from robcomp.models.parameterisation import weights
from robcomp.seeding import generator, seed_of
from robcomp.trainers.adversary import Adversary


@dataclass(frozen=True)
class Environment:
    """Where and how numbers are computed; `precision` (float32 or bf16) changes results beyond rounding."""

    device: torch.device
    precision: str
    channels_last: bool = True
    graphs: bool = True

    @property
    def dtype(self) -> torch.dtype:
        return torch.bfloat16 if self.precision == "bf16" else torch.float32

    @property
    def memory_format(self) -> torch.memory_format:
        return torch.channels_last if self.channels_last else torch.contiguous_format


class TrainState:
    """A stage in training: model, optimiser, data, and where it stands.

    `step` counts optimiser steps from 0 over the stage; `epoch` and `step_in_epoch` follow from it. `names` and
    `weights` are the tensors that compression may touch, in the order of the network. `support` holds the non-zeros of
    the stage that `Stage.support` names: boolean masks of the weights and the batch-norm scales, by name. `compression`
    is the run state of the stage's compressor, as its `start` returned it.
    """

    def __init__(
        self,
        stage: str,
        model: nn.Module,
        data: Dataset,
        dataset: DatasetConfig,
        env: Environment,
        seed: int,
        batch_size: int,
        epochs: int,
    ) -> None:
        self.stage, self.model, self.data, self.dataset, self.env, self.seed = stage, model, data, dataset, env, seed
        self._optimizer: torch.optim.Optimizer | None = None
        self.names = list(weights(model))
        self.weights = list(weights(model).values())
        self.batch_size = min(batch_size, len(data.train))
        self.steps_per_epoch = len(data.train) // self.batch_size  # the incomplete batch waits for the next shuffle
        self.epochs = epochs
        self.total_steps = self.end = epochs * self.steps_per_epoch  # `end` moves where a stage goes on
        self.step = 0
        self.support: dict[str, Tensor] | None = None
        self.compression: Any = None
        self.adversary = Adversary(model, env.dtype, env.memory_format)
        self.set_random(torch.Generator(env.device))
        self._order: tuple[int, Tensor] | None = None

    @property
    def optimizer(self) -> torch.optim.Optimizer:
        """What the loop steps with; RuntimeError where no loop has set it."""
        if self._optimizer is None:
            raise RuntimeError("this state has no optimiser; the training loop sets it")
        return self._optimizer

    @optimizer.setter
    def optimizer(self, optimizer: torch.optim.Optimizer) -> None:
        self._optimizer = optimizer

    @property
    def epoch(self) -> int:
        return self.step // self.steps_per_epoch

    @property
    def step_in_epoch(self) -> int:
        return self.step % self.steps_per_epoch

    def set_random(self, random: torch.Generator) -> None:
        """Let the inner attack and the network's dropout draw from `random`, which `batch` seeds at each step."""
        self.random = random
        for module in self.model.modules():
            if isinstance(module, Dropout):
                module.random = random

    def generator(self, purpose: str) -> torch.Generator:
        """Random numbers for one purpose at this very step, the same after a stop and resume."""
        return generator(self.env.device, self.seed, self.stage, self.step, purpose)

    def batch(self) -> tuple[Tensor, Tensor]:
        """The images (augmented, float32 in [0, 1]) and labels of the present step; seeds the step's `random`."""
        self.random.manual_seed(seed_of(self.seed, self.stage, self.step, "attack"))
        if self._order is None or self._order[0] != self.epoch:
            random = generator(self.env.device, self.seed, self.stage, self.epoch, "order")
            order = torch.randperm(len(self.data.train), generator=random, device=self.env.device)
            self._order = (self.epoch, order)
        start = self.step_in_epoch * self.batch_size
        return self._images(self._order[1][start : start + self.batch_size], self.generator("augment"))

    def samples(self, count: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Batches of `count` training images (at least one batch), drawn for this step and augmented as in training.

        Beside the batches of training: they leave no trace in what those will be. Seeds `random` as `batch` does.
        """
        order = torch.randperm(len(self.data.train), generator=self.generator("sample"), device=self.env.device)
        augmenting = self.generator("augment sample")
        for number in range(max(1, min(count, len(order)) // self.batch_size)):
            self.random.manual_seed(seed_of(self.seed, self.stage, self.step, "attack sample", number))
            yield self._images(order[number * self.batch_size : (number + 1) * self.batch_size], augmenting)

    def _images(self, index: Tensor, augmenting: torch.Generator) -> tuple[Tensor, Tensor]:
        how = self.dataset
        images = augment(self.data.train.images[index], augmenting, how.pad, how.flip, how.pad_mode, how.rotate)
        return to_float(images).contiguous(memory_format=self.env.memory_format), self.data.train.labels[index]

    def momentum(self) -> list[Tensor]:
        """The smoothed gradient of each weight: SGD's momentum, Adam's first moment, or the present gradient."""
        found = []
        for weight in self.weights:
            kept = self.optimizer.state.get(weight, {})
            smooth = kept.get("momentum_buffer", kept.get("exp_avg"))
            found.append(gradients([weight])[0] if smooth is None else smooth)
        return found

    def forward(self, x: Tensor) -> Tensor:
        """float32 logits of the model as it trains, in the environment's precision."""
        with torch.autocast(self.env.device.type, torch.bfloat16, enabled=self.env.precision == "bf16"):
            return self.model(x).float()

    def attacked(self, attack: Attack, x: Tensor, y: Tensor) -> Tensor:
        """x_adv of the inner attack against the weights as they are now."""
        return self.adversary(attack, x, y, self.random)


def gradients(tensors: Sequence[Tensor]) -> list[Tensor]:
    """What backward left in `.grad` of each; RuntimeError where it left nothing."""
    found = [tensor.grad for tensor in tensors if tensor.grad is not None]
    if len(found) < len(tensors):
        raise RuntimeError(f"{len(tensors) - len(found)} of {len(tensors)} tensors have no gradient")
    return found
