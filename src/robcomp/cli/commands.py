"""What each command does. Torch and Hydra are imported by the commands that need them, when they run."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from robcomp.cli import arguments
from robcomp.errors import UserError, unknown
from robcomp.runs.beforehand import writable
from robcomp.settings import choices

if TYPE_CHECKING:
    from rich.console import Console


def train(args: argparse.Namespace) -> int:
    from omegaconf import OmegaConf

    from robcomp.runs import sweep
    from robcomp.settings.compose import compose_config, compose_node
    from robcomp.settings.override_paths import absolute_paths

    jobs = sweep.expand(args.overrides) if args.multirun else [args.overrides]
    jobs = [absolute_paths(job) for job in jobs]
    if args.cfg:
        for job in jobs:
            compose_config(job)
            print(OmegaConf.to_yaml(compose_node(job)), end="")
        return 0
    if args.multirun:
        return int(None in sweep.run(jobs, _console(), typed=len(jobs[0])))
    config = compose_config(jobs[0])
    from robcomp.runs.effect import check_training
    from robcomp.runs.train import train as train_run

    check_training(jobs[0])

    train_run(config, jobs[0], _console())
    return 0


def evaluate(args: argparse.Namespace) -> int:
    mine, overrides = arguments.split("evaluate", args.overrides)
    if not mine["run"]:
        return _evaluate_external(args.overrides)  # there out= is where all runs go, as in train
    folder = arguments.folder("run", mine["run"])
    out = arguments.output(mine["out"], folder)
    from robcomp.runs.evaluate import evaluate_run
    from robcomp.settings.override_paths import absolute_paths

    console = _console()
    page = evaluate_run(folder, absolute_paths(overrides), out, console)
    console.print(f"evaluation: {page}")
    return 0


def _evaluate_external(overrides: list[str]) -> int:
    from robcomp.runs.effect import EXTERNAL, Job, check
    from robcomp.runs.external import evaluate_external
    from robcomp.settings.compose import compose_config
    from robcomp.settings.override_paths import absolute_paths

    overrides = absolute_paths(overrides)
    config = compose_config(overrides)
    check([Job(overrides)], EXTERNAL)
    evaluate_external(config, overrides, _console())
    return 0


def curve(args: argparse.Namespace) -> int:
    mine, overrides = arguments.split("curve", args.overrides)
    runs = arguments.folders("run", mine["run"])
    out = arguments.output(mine["out"], runs[0])
    over, values = arguments.single("over", mine["over"], "eps"), arguments.numbers("values", mine["values"])
    from robcomp.analyses.curve import curve
    from robcomp.settings.override_paths import absolute_paths

    curve(runs, absolute_paths(overrides), over, values, out, _console())
    return 0


def transfer(args: argparse.Namespace) -> int:
    mine, overrides = arguments.split("transfer", args.overrides)
    sources, targets = (arguments.folders(key, mine[key]) for key in ("source", "targets"))
    values, out = arguments.numbers("values", mine["values"]), arguments.output(mine["out"], sources[0])
    from robcomp.analyses.transfer import transfer
    from robcomp.settings.override_paths import absolute_paths

    transfer(sources, targets, absolute_paths(overrides), values, out, _console())
    return 0


def combine(args: argparse.Namespace) -> int:
    mine, overrides = arguments.split("combine", args.overrides)
    runs = arguments.folders("run", mine["run"], at_least=2)
    out = arguments.output(mine["out"], runs[0])
    from robcomp.analyses.combine import combine
    from robcomp.settings.override_paths import absolute_paths

    combine(runs, absolute_paths(overrides), out, _console())
    return 0


def sensitivity(args: argparse.Namespace) -> int:
    mine, overrides = arguments.split("sensitivity", args.overrides)
    runs = arguments.folders("run", mine["run"])
    out = arguments.output(mine["out"], runs[0])
    values = arguments.numbers("values", mine["values"])
    from robcomp.analyses.sensitivity import sensitivity
    from robcomp.settings.override_paths import absolute_paths

    sensitivity(runs, absolute_paths(overrides), values, out, _console())
    return 0


def histogram(args: argparse.Namespace) -> int:
    mine = arguments.only("histogram", args.overrides)
    runs = arguments.folders("run", mine["run"])
    out = arguments.output(mine["out"], runs[0])
    bins, layers = (arguments.single(key, mine[key]) for key in ("bins", "layers"))
    normalised = arguments.single("normalised", mine["normalised"], "false")
    if normalised not in ("true", "false"):
        raise UserError(f"normalised={normalised} is neither true nor false; give one of them.")
    from robcomp.analyses.histogram import histogram, number_of_bins

    histogram(runs, number_of_bins(bins), layers, normalised == "true", out, _console())
    return 0


def losses(args: argparse.Namespace) -> int:
    mine = arguments.only("losses", args.overrides)
    runs = arguments.folders("run", mine["run"])
    out = arguments.output(mine["out"], runs[0])
    from robcomp.analyses.losses import losses

    losses(runs, out, _console())
    return 0


def compare(args: argparse.Namespace) -> int:
    from robcomp.analyses.compare import compare, show

    show(compare(args.a, args.b), _console(), args.json)
    return 0


def listing(args: argparse.Namespace) -> int:
    kinds = {f"{group}s": group for group in (*choices.GROUPS, "table")}
    wanted = [args.group] if args.group else list(kinds)
    for name in wanted:
        if name not in kinds:
            raise unknown("group", name, kinds)
    for name in wanted:
        title = {"attacks": "attack suites (attack=...)", "tables": "tables (robcomp table ...)"}
        _section(title.get(name, f"{name} ({kinds[name]}=...)"), choices.summaries(kinds[name]))
    if "attacks" in wanted:  # last, as it waits for torch
        from robcomp.attacks import ATTACKS

        said = {name: " ".join((cls.__doc__ or "").split("\n\n")[0].split()) for name, cls in ATTACKS.items()}
        _section("attacks of a suite (+attack.attacks.ANY_NAME={attack: ..., eps: ...})", said)
    return 0


def table(args: argparse.Namespace) -> int:
    if args.name not in choices.choices("table"):
        raise unknown("table", args.name, choices.choices("table"))
    mine, overrides = arguments.split("table", args.overrides)
    out = Path(arguments.single("out", mine["out"]) or "results")
    runs = arguments.single("runs", mine["runs"])
    if runs:
        writable(Path(runs), "runs")
    from robcomp.runs import sweep
    from robcomp.settings.override_paths import absolute_paths, quoted
    from robcomp.tables.build import build

    console, folders = _console(), []

    def run_all(jobs: list[list[str]]) -> list[Path | None]:
        there = [quoted("out", runs)] if runs else []
        folders.extend(sweep.run([[*job, *there] for job in jobs], console, typed=len(overrides) + len(there)))
        return folders

    page = build(args.name, args.scale, absolute_paths(overrides), run_all, out)
    console.print(f"table: {page}")
    return int(None in folders)


def _section(title: str, lines: dict[str, str]) -> None:
    print(title)
    width = max(14, *map(len, lines))
    for name, summary in lines.items():
        print(f"  {name:<{width}} {summary}")
    print()


def _console() -> "Console":
    from rich.console import Console

    return Console()
