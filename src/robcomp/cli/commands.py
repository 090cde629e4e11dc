"""What each verb of the command line does. Torch and Hydra are imported by the verbs that need them, when they run."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from robcomp.cli import arguments as words
from robcomp.errors import UserError, unknown
from robcomp.settings import choices as catalogue


def train(args: argparse.Namespace) -> int:
    from omegaconf import OmegaConf

    from robcomp.runs import sweep
    from robcomp.settings import compose as config
    from robcomp.settings.overrides import rooted

    jobs = sweep.expand(args.overrides) if args.multirun else [args.overrides]
    jobs = [rooted(job) for job in jobs]
    if args.cfg:
        for job in jobs:
            config.compose_config(job)
            print(OmegaConf.to_yaml(config.compose_node(job)), end="")
        return 0
    if args.multirun:
        return int(None in sweep.run(jobs, _console()))
    composed = config.compose_config(jobs[0])
    from robcomp.runs import train as runner

    runner.train(composed, jobs[0], _console())
    return 0


def evaluate(args: argparse.Namespace) -> int:
    mine, overrides = words.split(args.overrides, ("run",))
    from robcomp.settings.overrides import rooted

    overrides, console = rooted(overrides), _console()
    if not mine["run"]:
        from robcomp.runs import external as given
        from robcomp.settings import compose as config

        given.evaluate(config.compose_config(overrides), overrides, console)
        return 0
    folder = words.folder("run", mine["run"])
    from robcomp.runs import evaluate as measure

    page = measure.evaluate_run(folder, overrides, console)
    console.print(f"evaluation: {page}")
    return 0


def curve(args: argparse.Namespace) -> int:
    mine, overrides = words.split(args.overrides, ("run", "over", "values", "target"))
    runs = words.folders("run", mine["run"])
    over, values, target = words.single("over", mine["over"], "eps"), *_values_and_target(mine)
    from robcomp.analyses.curve import curve
    from robcomp.settings.overrides import rooted

    curve(runs, rooted(overrides), over, values, target, _console())
    return 0


def transfer(args: argparse.Namespace) -> int:
    mine, overrides = words.split(args.overrides, ("source", "targets", "values", "target"))
    sources, targets = words.folders("source", mine["source"]), words.folders("targets", mine["targets"])
    values, target = _values_and_target(mine)
    from robcomp.analyses.transfer import transfer
    from robcomp.settings.overrides import rooted

    transfer(sources, targets, rooted(overrides), values, target, _console())
    return 0


def combine(args: argparse.Namespace) -> int:
    mine, overrides = words.split(args.overrides, ("run", "target"))
    runs, target = words.folders("run", mine["run"], least=2), words.single("target", mine["target"])
    from robcomp.analyses.combine import combine
    from robcomp.settings.overrides import rooted

    combine(runs, rooted(overrides), Path(target) if target else None, _console())
    return 0


def sensitivity(args: argparse.Namespace) -> int:
    mine, overrides = words.split(args.overrides, ("run", "values", "target"))
    runs = words.folders("run", mine["run"])
    values, target = _values_and_target(mine)
    from robcomp.analyses.sensitivity import sensitivity
    from robcomp.settings.overrides import rooted

    sensitivity(runs, rooted(overrides), values, target, _console())
    return 0


def histogram(args: argparse.Namespace) -> int:
    mine = _only(args.overrides, ("run", "bins", "layers", "normalised", "target"))
    runs, target = words.folders("run", mine["run"]), words.single("target", mine["target"])
    bins, layers = (words.single(key, mine[key]) for key in ("bins", "layers"))
    normalised = words.single("normalised", mine["normalised"], "false")
    if normalised not in ("true", "false"):
        raise UserError(f"normalised={normalised} is neither true nor false; give one of them.")
    from robcomp.analyses.histogram import histogram, number_of_bins

    histogram(runs, number_of_bins(bins), layers, normalised == "true", Path(target) if target else None, _console())
    return 0


def losses(args: argparse.Namespace) -> int:
    mine = _only(args.overrides, ("run", "target"))
    runs, target = words.folders("run", mine["run"]), words.single("target", mine["target"])
    from robcomp.analyses.losses import losses

    losses(runs, Path(target) if target else None, _console())
    return 0


def compare(args: argparse.Namespace) -> int:
    from robcomp.analyses.compare import compare, show

    show(compare(args.a, args.b), _console(), args.json)
    return 0


def listing(args: argparse.Namespace) -> int:
    kinds = {f"{group}s": group for group in (*catalogue.GROUPS, "table")}
    wanted = [args.group] if args.group else list(kinds)
    for name in wanted:
        if name not in kinds:
            raise unknown("group", name, kinds)
    for name in wanted:
        _section(
            f"{name} ({kinds[name]}=...)" if name != "tables" else "tables (robcomp table ...)",
            catalogue.summaries(kinds[name]),
        )
        if name == "attacks":
            _section("attacks of a suite (+attack.attacks.ANY_NAME={attack: ..., eps: ...})", catalogue.attacks())
    return 0


def table(args: argparse.Namespace) -> int:
    if args.name not in catalogue.choices("table"):
        raise unknown("table", args.name, catalogue.choices("table"))
    from robcomp.runs import sweep
    from robcomp.settings.overrides import rooted
    from robcomp.tables import build as tables

    console = _console()
    page = tables.build(
        args.name, args.scale, rooted(args.overrides), lambda jobs: sweep.run(jobs, console), args.target
    )
    console.print(f"table: {page}")
    return 0


def _values_and_target(mine: dict[str, list[str]]) -> tuple[list[float], Path | None]:
    values, target = words.single("values", mine["values"]), words.single("target", mine["target"])
    return words.numbers("values", values), Path(target) if target else None


def _only(given: Sequence[str], own: Sequence[str]) -> dict[str, list[str]]:
    """The values of the keys `own`; UserError for any other word, as nothing here takes overrides."""
    mine, others = words.split(given, own)
    if others:
        raise unknown("key", others[0].partition("=")[0], own)
    return mine


def _section(title: str, lines: dict[str, str]) -> None:
    print(title)
    width = max(14, *map(len, lines))
    for name, summary in lines.items():
        print(f"  {name:<{width}} {summary}")
    print()


def _console():
    from rich.console import Console

    return Console()
