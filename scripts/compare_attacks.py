#!/usr/bin/env python3
"""The attacks beside those of pyautoattack and torchattacks: robust accuracy, time and memory on the same network.

    OMP_NUM_THREADS=1 python scripts/compare_attacks.py RUN_DIR --images 500 --json results/attacks-mnist.json

For each attack and then the standard suite, the libraries take turns in one process: same network (read from the run's
model.rcz), same images, same batches, float32. Every adversarial image is judged here, by one rule: misclassified,
within eps (1e-6 for rounding), in [0, 1]. The libraries are no dependency of robcomp: `make test-oracle` installs them.
"""

import argparse
import ctypes
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from robcomp.data import Split, to_float
from robcomp.errors import UserError
from robcomp.evaluation.evaluator import Evaluator
from robcomp.evaluation.machine import machine
from robcomp.evaluation.suite import SuiteConfig
from robcomp.models.parameterisation import effective_weight, weight_layers
from robcomp.runs.load import LoadedRun, load

BATCH = 250
ATTACKS = ("apgd_ce", "apgd_t", "fab_t", "square")
LIBRARIES = ("robcomp", "pyautoattack", "torchattacks")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="directory of a finished run")
    parser.add_argument("--images", type=int, default=100, help="test images (default 100)")
    parser.add_argument("--libraries", default=",".join(LIBRARIES), help="default: all")
    parser.add_argument("--attacks", default=",".join((*ATTACKS, "standard")), help="default: all")
    parser.add_argument("--seeds", type=int, default=1, help="repetitions, of which means are shown (default 1)")
    parser.add_argument(
        "--memory", action="store_true", help="peak memory of our attacks instead, beside a training step"
    )
    parser.add_argument("--json", type=Path, help="where to write the figures, next to printing them")
    args = parser.parse_args()
    bench = Bench.of(args.run, args.images)
    print(bench.header, flush=True)
    if args.memory:
        rows = memory_table(bench)
    else:
        rows = table(bench, args.attacks.split(","), args.libraries.split(","), args.seeds)
    if args.json:
        args.json.write_text(json.dumps({"setting": bench.header, "rows": rows}, indent=2) + "\n")


class Bench:
    """The network, its images and eps."""

    def __init__(self, model: nn.Module, split: Split, eps: float, header: str) -> None:
        self.model, self.split, self.eps, self.header = model.eval(), split, eps, header
        self.x, self.y = to_float(split.images), split.labels
        with torch.no_grad():
            self.clean = torch.cat([model(part) for part in self.x.split(BATCH)]).argmax(1) == self.y

    @classmethod
    def of(cls, run: Path, images: int) -> "Bench":
        loaded = load(run, ["attack=autoattack", f"dataset.test_subset={images}", "device=cpu"])
        facts, eps, test = loaded.report.run, loaded.report.threat.eps, loaded.dataset.test
        where = machine(torch.device("cpu"), "float32")
        header = (
            f"{facts.dataset} {facts.model} {facts.method} {facts.id}: {len(test)} test images, "
            f"Linf eps {eps:.4g}, batches of {BATCH}; "
            f"{where.name}, {where.threads} thread(s), torch {where.torch}"
        )
        return cls(_plain(loaded), test, eps, header)

    def robust(self, x_adv: Tensor) -> float:
        """The share of images that are correct, also at x_adv; a point out of bounds counts as no attack."""
        with torch.no_grad():
            wrong = torch.cat([self.model(part) for part in x_adv.split(BATCH)]).argmax(1) != self.y
        inside = (x_adv - self.x).flatten(1).abs().amax(1) <= self.eps + 1e-6
        inside &= ((x_adv >= 0) & (x_adv <= 1)).flatten(1).all(1)
        return float((self.clean & ~(wrong & inside)).float().mean())


def _plain(run: LoadedRun) -> nn.Module:
    """The run's network as one would hand it to any library: dense layers, batch norm apart, weights that train."""
    plain, layers = run.spec.build(), weight_layers(run.model)
    held, own = run.model.state_dict(), plain.state_dict()
    effective = {f"{name}.weight": effective_weight(layer).detach() for name, layer in layers.items()}
    plain.load_state_dict({name: effective.get(name, held.get(name)) for name in own})
    return plain


def ours(bench: Bench, attack: str, seed: int) -> Tensor:
    """Adversarial images of all images, by robcomp."""
    names = ATTACKS if attack == "standard" else (attack,)
    suite = SuiteConfig(attacks={name: {"eps": bench.eps} for name in names}).build()
    x_adv, surviving = bench.x.clone(), bench.clean.numpy().copy()
    with Evaluator(bench.model, bench.split, seed, BATCH) as evaluator:
        for name, one in suite.items():
            for index, found, y, _ in evaluator.batches(name, one, surviving):
                fooled = (evaluator.logits(found).argmax(1) != y).numpy()
                x_adv[index[fooled]] = found[fooled]
                surviving[index[fooled]] = False
    return x_adv


def pyautoattack(bench: Bench, attack: str, seed: int) -> Tensor:
    from pyautoattack import AutoAttack

    if attack == "standard":
        adversary = AutoAttack(bench.model, norm="Linf", eps=bench.eps, version="standard", seed=seed, device="cpu")
    else:
        kinds = [attack.replace("_", "-")]
        adversary = AutoAttack(
            bench.model, attacks=kinds, norm="Linf", eps=bench.eps, version="custom", seed=seed, device="cpu"
        )
        adversary.apgd.n_restarts = adversary.fab.n_restarts = 1  # as in its standard version
    return adversary.run_standard_evaluation(bench.x, bench.y, batch_size=BATCH)[0]


def torchattacks(bench: Bench, attack: str, seed: int) -> Tensor:
    """With the standard version's 100 steps: this library's own AutoAttack takes 10."""
    import torchattacks as library
    from torchattacks.wrappers.multiattack import MultiAttack

    how, classes = {"eps": bench.eps, "norm": "Linf", "seed": seed, "n_restarts": 1}, 10
    build = {
        "apgd_ce": lambda: library.APGD(bench.model, steps=100, loss="ce", **how),
        "apgd_t": lambda: library.APGDT(bench.model, steps=100, n_classes=classes, **how),
        "fab_t": lambda: library.FAB(bench.model, steps=100, multi_targeted=True, n_classes=classes, **how),
        "square": lambda: library.Square(bench.model, n_queries=5000, **how),
    }
    adversary = build[attack]() if attack in build else MultiAttack([make() for make in build.values()])
    x_adv = bench.x.clone()
    for part in torch.arange(len(bench.x))[bench.clean].split(BATCH):
        x_adv[part] = adversary(bench.x[part], bench.y[part]).detach()
    return x_adv


BY: dict[str, Callable[[Bench, str, int], Tensor]] = {
    "robcomp": ours,
    "pyautoattack": pyautoattack,
    "torchattacks": torchattacks,
}


def table(bench: Bench, attacks: list[str], libraries: list[str], seeds: int) -> list[dict[str, Any]]:
    """Robust accuracy and seconds of each attack by each library, means over the seeds, printed as they come."""
    print(f"clean {bench.clean.float().mean():.1%}; means over {seeds} seed(s), lowest and highest in brackets")
    print(f"{'attack':<10}" + "".join(f"{name:>34}" for name in libraries) + "   times faster than pyautoattack")
    rows = []
    for attack in attacks:
        found: dict[str, list[tuple[float, float]]] = {name: [] for name in libraries}
        for seed in range(seeds):
            for library in libraries:
                started = time.monotonic()
                x_adv = BY[library](bench, attack, seed)
                found[library].append((bench.robust(x_adv), time.monotonic() - started))
        row: dict[str, Any] = {"attack": attack}
        for name, runs in found.items():
            robust, seconds = zip(*runs, strict=True)
            row[name] = {"robust": sum(robust) / seeds, "each": robust, "seconds": sum(seconds) / seeds}
        rows.append(row)
        cells = "".join(_cell(row[name]) for name in libraries)
        times = row["pyautoattack"]["seconds"] / row["robcomp"]["seconds"] if {*LIBRARIES[:2]} <= {*libraries} else None
        print(f"{attack:<10}{cells}" + (f"{times:>10.2f}" if times else ""), flush=True)
    return rows


def _cell(entry: dict[str, Any]) -> str:
    each = f"[{min(entry['each']):.1%}, {max(entry['each']):.1%}]"
    return f"{entry['robust']:>9.1%} {each:>15} {entry['seconds']:>6.1f} s"


SHORT = {
    "pgd": {"steps": 3},
    "apgd_ce": {"steps": 3},
    "apgd_t": {"steps": 3, "targets": 2},
    "fab": {"steps": 2},
    "fab_t": {"steps": 2, "targets": 2},
    "square": {"queries": 10},
    "cw_margin": {"steps": 3},
}


def memory_table(bench: Bench) -> list[dict[str, Any]]:
    """Peak resident memory over that before, in MB, of a few steps of our attacks and of one training step (Linux)."""
    ctypes.CDLL("libc.so.6").mallopt(-3, 65536)  # M_MMAP_THRESHOLD: freed tensors go back to the system at once
    with torch.no_grad():  # what the network says is taken for the label, so that every image is attacked
        split = Split(bench.split.images[:BATCH], bench.model(bench.x[:BATCH]).argmax(1))
    few = Bench(bench.model, split, bench.eps, bench.header)
    few.model.train()
    _training_step(few)  # once before: what the first step sets up stays
    step = max(_peak(lambda: _training_step(few)) for _ in range(3))
    few.model.eval()
    print(f"one training step on {len(split)} images: {step:.0f} MB")
    rows: list[dict[str, Any]] = [{"attack": "training step", "megabytes": step}]
    for name, settings in SHORT.items():
        attack = SuiteConfig(attacks={name: {"eps": bench.eps, **settings}}).build()[name]
        with Evaluator(few.model, split, 0, BATCH) as evaluator:
            attacked = [_peak(lambda: evaluator.under(name, attack, evaluator.clean | True)) for _ in range(3)]  # noqa: B023
        rows.append({"attack": name, "megabytes": max(attacked)})
        times = f"{max(attacked) / step:>6.2f} x" if step else ""  # a network so small needs no page more
        print(f"{name:<10}{max(attacked):>8.0f} MB {times}", flush=True)
    return rows


def _training_step(bench: Bench) -> None:
    optimizer = torch.optim.SGD(bench.model.parameters(), lr=0.0, momentum=0.9)
    torch.nn.functional.cross_entropy(bench.model(bench.x), bench.y).backward()
    optimizer.step()
    optimizer.zero_grad()


def _peak(work: Callable[[], object]) -> float:
    """MB by which resident memory peaked over its level before `work` (Linux)."""
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts again from here
    before = _status("VmRSS")
    work()
    return (_status("VmHWM") - before) / 1000


def _status(key: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(key)).split()[1])


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        print(error, file=sys.stderr)
        sys.exit(2)
