"""The final weights: averaged where that is asked for, inside the constraint, with batch statistics of their own."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from robcomp.models.parameterisation import effective_weights
from robcomp.trainers.compressor import Compressor
from robcomp.trainers.objectives import Objective
from robcomp.trainers.state import TrainState

STATISTICS_IMAGES = 1280  # training images whose mean and variance replace those that batch norm gathered in training


class WeightAverage:
    """The exponential moving average of all parameters over the steps of a stage: mean := tau mean + (1 - tau) w.

    In the first steps tau is (1 + n) / (10 + n) where that is less, so that the weights at the start are soon forgotten
    in a short stage too. Source: Polyak and Juditsky, 1992; the ramp is that of TensorFlow's ExponentialMovingAverage.
    """

    def __init__(self, tau: float, model: nn.Module) -> None:
        self.tau, self.steps = tau, 0
        self.means = [parameter.detach().clone() for parameter in model.parameters()]

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """After an optimiser step and its projection."""
        self.steps += 1
        weight = 1 - min(self.tau, (1 + self.steps) / (10 + self.steps))
        torch._foreach_lerp_(self.means, [parameter.detach() for parameter in model.parameters()], weight)

    @torch.no_grad()
    def write(self, model: nn.Module) -> None:
        """Put the averages into the model."""
        torch._foreach_copy_([parameter.detach() for parameter in model.parameters()], self.means)

    def state(self) -> dict[str, Any]:
        return {"means": self.means, "steps": self.steps}

    def load(self, saved: dict[str, Any]) -> None:
        self.means, self.steps = saved["means"], saved["steps"]


def finalise(
    state: TrainState,
    objective: Objective,
    compressor: Compressor,
    average: WeightAverage | None,
    images: int = STATISTICS_IMAGES,
) -> None:
    """Turn the model in training, in place, into what the stage would hand on if it ended now.

    With an average, or where the constraint moved the weights (`Compressor.refreshes_statistics`), batch norm's running
    statistics belong to other weights and are estimated anew, on at most `images` images.
    """
    if average is not None:
        average.write(state.model)
    compressor.finalise(state)
    if average is not None or compressor.refreshes_statistics:
        refresh_statistics(state, objective, min(images, STATISTICS_IMAGES))


@contextmanager
def finalised(
    state: TrainState,
    objective: Objective,
    compressor: Compressor,
    average: WeightAverage | None,
    images: int = STATISTICS_IMAGES,
) -> Iterator[None]:
    """Inside, the model is finalised (see `finalise`); afterwards it is the one in training, to the bit."""
    tensors = [*state.model.parameters(), *state.model.buffers()]
    kept = [tensor.detach().clone() for tensor in tensors]
    try:
        finalise(state, objective, compressor, average, images)
        yield
    finally:
        with torch.no_grad():
            for tensor, value in zip(tensors, kept, strict=True):
                tensor.copy_(value)


def refresh_statistics(state: TrainState, objective: Objective, images: int = STATISTICS_IMAGES) -> None:
    """Batch norm's running mean and variance from `images` training images, seen as the objective sees them.

    A robust objective passes clean and adversarial images through the network, and its statistics are those of both.
    Its attack runs on a network with running statistics, so a first batch brings the stale ones near before any count.
    Nothing else changes: neither weights nor the random numbers of training.
    """
    norms = [
        m for m in state.model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm) and m.track_running_stats
    ]
    if not norms:
        return
    momenta, training, random = [norm.momentum for norm in norms], state.model.training, state.random
    state.set_random(torch.Generator(state.env.device))  # the step's own may belong to a CUDA graph
    state.model.train()
    try:
        for count in (1, images):
            for norm in norms:
                norm.momentum = None  # the plain mean over all batches since the count was 0
                if norm.num_batches_tracked is not None:
                    norm.num_batches_tracked.zero_()
            for x, y in state.samples(count):
                with effective_weights(state.model), torch.no_grad():
                    objective.at(state).loss(state, x, y)
    finally:
        state.model.train(training)
        state.set_random(random)
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
