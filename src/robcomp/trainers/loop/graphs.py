"""The gradients of a step: computed eagerly, or recorded once as a CUDA graph and replayed.

A step of adversarial training is thousands of small kernels; on a fast GPU launching them takes longer than running
them. Batches have one shape and nothing in a step waits for the host, so the whole of it (snapshot, attack, losses,
backward) can be recorded. Random numbers stay those of the eager step: the generator is seeded anew before each replay.
"""

import warnings
from collections.abc import Callable

import torch
from torch import Tensor

from robcomp.models.parameterisation import effective_weights
from robcomp.trainers.objectives import Loss, Objective
from robcomp.trainers.state import TrainState

WARM_UP = 2  # eager passes before recording: libraries choose algorithms and take workspaces

Gradients = Callable[[Tensor, Tensor], Loss]


def make_gradients(objective: Objective, state: TrainState) -> Gradients:
    """A function of a batch (x, y) that fills each parameter's .grad and returns the loss."""

    def eager(x: Tensor, y: Tensor) -> Loss:
        state.model.zero_grad(set_to_none=True)
        with effective_weights(state.model):
            loss = objective.loss(state, x, y)
            loss.value.backward()
        return loss

    return _Replayed(eager, state) if state.env.graphs and state.env.device.type == "cuda" else eager


class ObjectiveGradients:
    """The gradients of an objective as it stands at each step, made anew (a CUDA graph recorded) when it changes."""

    def __init__(self, objective: Objective, state: TrainState) -> None:
        self.objective, self.state = objective, state
        self.now: Objective | None = None

    def __call__(self, x: Tensor, y: Tensor) -> Loss:
        now = self.objective.at(self.state)
        if self.now is None or now != self.now:
            self.now, self.fill = now, make_gradients(now, self.state)
        return self.fill(x, y)


class _Replayed:
    """`eager` as a CUDA graph, recorded at the first call; eager for good, with a warning, if recording fails."""

    def __init__(self, eager: Gradients, state: TrainState) -> None:
        self.eager, self.state = eager, state
        self.graph: torch.cuda.CUDAGraph | None = None
        self.failed = False

    def __call__(self, x: Tensor, y: Tensor) -> Loss:
        if self.graph is None and not self.failed:
            self._record(x, y)
        if self.graph is None:
            return self.eager(x, y)
        self.x.copy_(x)
        self.y.copy_(y)
        self.graph.replay()
        return self.loss

    def _record(self, x: Tensor, y: Tensor) -> None:
        model, random = self.state.model, self.state.random
        buffers = [(buffer, buffer.clone()) for buffer in model.buffers()]
        seed = random.initial_seed()
        self.x, self.y = x.clone(), y.clone()
        try:
            side = torch.cuda.Stream()
            side.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(side):
                for _ in range(WARM_UP):
                    self.eager(self.x, self.y)
                model.zero_grad(set_to_none=True)
            torch.cuda.current_stream().wait_stream(side)
            graph = torch.cuda.CUDAGraph()
            graph.register_generator_state(random)
            with torch.cuda.graph(graph):
                self.loss = self.eager(self.x, self.y)
            self.graph = graph
        except RuntimeError as error:
            self.failed = True
            random = torch.Generator(self.state.env.device)  # the old one may still count as captured
            self.state.set_random(random)
            warnings.warn(f"no CUDA graph, training goes on without: {error}", RuntimeWarning, stacklevel=2)
        random.manual_seed(seed)
        with torch.no_grad():
            for buffer, kept in buffers:
                buffer.copy_(kept)
