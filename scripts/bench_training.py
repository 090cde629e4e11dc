#!/usr/bin/env python3
"""Time adversarial training steps of robcomp beside a textbook loop, and against the machine's bf16 matrix rate.

Every variant trains the same network on the same random images with the same PGD; variants alternate, and the median of
the rounds is printed. The textbook loop is what a PyTorch tutorial gives: the model itself attacked in eval mode with
autograd.grad on the input, float32 or autocast. Model operations: 2 * multiply-adds; a step of s attack steps and a
clean and an adversarial pass costs (2 s + 6) forward passes' worth, which divided by the time is the rate compared with
the matrix product's.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable

import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from robcomp.data import Dataset, Split
from robcomp.evaluation.machine import machine
from robcomp.hardware import choose_device, choose_precision
from robcomp.models.parameterisation import effective_weights, parameterise
from robcomp.report.records import to_json
from robcomp.settings.compose import compose_config
from robcomp.settings.schema import Config
from robcomp.trainers.loop.stage_loop import LoopSettings, StageLoop
from robcomp.trainers.state import Environment, TrainState


def matrix_rate(device: torch.device, size: int) -> float:
    """FLOP/s of a square bf16 matrix product on random data (best of 10 after warm-up)."""
    a, b = (torch.randn(size, size, device=device, dtype=torch.bfloat16) for _ in range(2))
    times = []
    for _ in range(13):
        times.append(clock(device, lambda: a @ b))
    return 2 * size**3 / min(times[3:])


def clock(device: torch.device, work: Callable[[], object]) -> float:
    """Seconds that `work` takes, the device waited for."""
    if device.type == "cuda":
        torch.cuda.synchronize()
    started = time.perf_counter()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - started


def random_data(config: Config, images: int, device: torch.device) -> Dataset:
    shape = config.dataset.shape
    split = Split(
        torch.randint(0, 256, (images, *shape), dtype=torch.uint8, device=device),
        torch.randint(0, config.dataset.classes, (images,), device=device),
    )
    classes = tuple(map(str, range(config.dataset.classes)))
    return Dataset("random", classes, split, split, split, "random", False, "random")


class Ours:
    """robcomp's own loop on the last stage of the configured method."""

    def __init__(self, config: Config, data: Dataset, env: Environment) -> None:
        torch.manual_seed(0)
        model = config.model.build(tuple(config.dataset.shape), config.dataset.classes)
        stage = config.method.stages(config.recipe_context())[-1]
        parameterise(model, stage.parameterisation)
        model.to(env.device, memory_format=env.memory_format)
        state = TrainState(stage.name, model, data, config.dataset, env, 0, config.training.batch_size, epochs=10_000)
        self.loop = StageLoop(stage, state, LoopSettings(config.inner_attack()))
        state.step = state.total_steps - 10_000  # near its end, where warm-ups and curricula are past

    def steps(self, count: int) -> None:
        for _ in range(count):
            self.loop.step()


class Textbook:
    """A plain adversarial training loop: no snapshot, no graph, attack on the model itself."""

    def __init__(self, config: Config, data: Dataset, device: torch.device, autocast: bool) -> None:
        torch.manual_seed(0)
        self.model = config.model.build(tuple(config.dataset.shape), config.dataset.classes).to(device)
        self.optimizer = torch.optim.SGD(self.model.parameters(), 0.01, momentum=0.9, weight_decay=1e-4)
        self.data, self.attack, self.batch = data, config.inner_attack(), config.training.batch_size
        self.autocast = torch.autocast(device.type, torch.bfloat16, enabled=autocast)

    def steps(self, count: int) -> None:
        for number in range(count):
            start = number * self.batch % (len(self.data.train) - self.batch + 1)
            x = self.data.train.images[start : start + self.batch].float() / 255
            y = self.data.train.labels[start : start + self.batch]
            attack = self.attack
            self.model.eval()
            x_adv = (x + torch.empty_like(x).uniform_(-attack.eps, attack.eps)).clamp(0, 1)
            for _ in range(attack.steps):
                x_adv.requires_grad_()
                with self.autocast:
                    loss = F.cross_entropy(self.model(x_adv), y, reduction="sum")
                (gradient,) = torch.autograd.grad(loss, x_adv)
                x_adv = x_adv.detach() + attack.step_size * gradient.sign()
                x_adv = torch.min(torch.max(x_adv, x - attack.eps), x + attack.eps).clamp(0, 1)
            self.model.train()
            with self.autocast:
                loss = 0.5 * F.cross_entropy(self.model(x), y) + 0.5 * F.cross_entropy(self.model(x_adv), y)
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()


def forward_flops(model: nn.Module, shape: tuple[int, ...]) -> int:
    """Floating-point operations of one image's forward pass."""
    device = next(model.parameters()).device
    with FlopCounterMode(display=False) as counter, torch.no_grad(), effective_weights(model):
        model.eval()(torch.zeros(2, *shape, device=device))
    return counter.get_total_flops() // 2


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("overrides", nargs="*", help="configuration, e.g. dataset=cifar10 model=resnet18 method=da")
    parser.add_argument("--steps", type=int, default=20, help="steps a round (default 20)")
    parser.add_argument("--rounds", type=int, default=5, help="rounds of each variant (default 5)")
    parser.add_argument("--matrix", type=int, default=8192, help="side of the matrix product (default 8192)")
    args = parser.parse_args()
    config = compose_config(args.overrides)
    device = choose_device(config.device)
    precision = choose_precision(config.training.precision, device)
    batch = config.training.batch_size
    data = random_data(config, 20 * batch, device)
    variants = {
        "textbook float32": Textbook(config, data, device, False),
        "textbook bf16 autocast": Textbook(config, data, device, True),
        f"robcomp {precision}": Ours(config, data, Environment(device, precision, config.training.channels_last, True)),
    }
    if device.type == "cuda":
        variants[f"robcomp {precision} without graphs"] = Ours(
            config, data, Environment(device, precision, True, False)
        )
    times: dict[str, list[float]] = {name: [] for name in variants}
    for variant in variants.values():
        variant.steps(3)
    for _ in range(args.rounds):
        for name, variant in variants.items():
            times[name].append(clock(device, lambda v=variant: v.steps(args.steps)))
    rate = matrix_rate(device, args.matrix)
    passes = 2 * config.training.attack.steps + 6
    flops = forward_flops(variants["textbook float32"].model, tuple(config.dataset.shape)) * passes
    base = statistics.median(times["textbook float32"])
    print(json.dumps(to_json(machine(device, precision))), f"bf16 matrix product {rate / 1e12:.1f} TFLOP/s")
    print(
        f"{' '.join(args.overrides)}: batch {batch}, PGD-{config.training.attack.steps}, "
        f"{flops / 1e9:.3f} GFLOP an image"
    )
    print(f"{'variant':<32}{'images/s':>12}{'of peak':>10}{'x textbook':>12}")
    for name, seconds in times.items():
        median = statistics.median(seconds)
        speed = args.steps * batch / median
        print(f"{name:<32}{speed:>12,.0f}{speed * flops / rate:>10.1%}{base / median:>12.2f}")


if __name__ == "__main__":
    main()
