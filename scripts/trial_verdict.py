#!/usr/bin/env python3
"""Does the verdict tell masked gradients from honest ones? Each finished run named, as it is and masked in five ways.

    python scripts/trial_verdict.py RUN_DIR [RUN_DIR ...] > results/verdict.txt

Prints a line a network: the suite's worst case, and the flags that were raised. The masks stand in front of, inside or
behind the run's own network, whose weights they leave alone.
"""

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from robcomp.errors import UserError
from robcomp.evaluation.accuracy import evaluate_suite
from robcomp.evaluation.evaluator import Evaluator
from robcomp.evaluation.verdict import examine
from robcomp.runs.load import load


class Wrapped(nn.Module):
    """before, network, after."""

    def __init__(self, net: nn.Module, before: Callable[[Tensor], Tensor], after: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.net, self.before, self.after = net, before, after

    def forward(self, x: Tensor) -> Tensor:
        return self.after(self.net(self.before(x)))


def same(x: Tensor) -> Tensor:
    return x


MASKS = {
    "as it is": lambda net: net,
    "saturating input": lambda net: Wrapped(net, lambda x: torch.sigmoid(200 * (x - 0.5)), same),
    "logits x 1000": lambda net: Wrapped(net, same, lambda z: 1000 * z),
    "rounded input": lambda net: Wrapped(net, lambda x: (x * 8).round() / 8, same),
    "random noise": lambda net: Wrapped(net, lambda x: x + 0.05 * torch.randn_like(x), same),
    "softmax output": lambda net: Wrapped(net, same, lambda z: z.softmax(1)),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path, help="directories of finished runs")
    parser.add_argument("--images", type=int, default=100, help="test images (default 100)")
    parser.add_argument("--honest", action="store_true", help="the networks as they are only")
    args = parser.parse_args()
    print(f"{'network':<46} {'mask':<18} clean  worst  seconds  flags")
    for run in args.runs:
        for mask in list(MASKS)[: 1 if args.honest else None]:
            print(line(run, mask, args.images), flush=True)


def line(run: Path, mask: str, images: int) -> str:
    loaded = load(run, ["attack=quick", f"dataset.test_subset={images}", "device=cpu"])
    facts, suite = loaded.report.run, loaded.config.attack
    torch.manual_seed(0)
    started = time.monotonic()
    with Evaluator(MASKS[mask](loaded.model), loaded.dataset.test, 0) as evaluator:
        accuracy, outcomes = evaluate_suite(evaluator, suite)
        attacked = time.monotonic()
        verdict = examine(evaluator, suite.counted(), outcomes["worst_case"], images)
    flags = [f"{check.name} ({check.evidence})" for check in verdict.flags] if verdict else []
    name = f"{facts.dataset} {facts.model} {facts.method} seed {facts.seed}"
    return (
        f"{name:<46} {mask:<18} {accuracy.clean.value:5.0%}  {accuracy.worst_case.value:5.0%}  "
        f"{attacked - started:3.0f}+{time.monotonic() - attacked:3.0f}  {' '.join(flags) or '-'}"
    )


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        print(error, file=sys.stderr)
        sys.exit(2)
