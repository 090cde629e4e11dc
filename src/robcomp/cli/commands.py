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
    from robcomp.settings.compose import compose_config
    from robcomp.settings.override_paths import absolute_paths
    from robcomp.sweeps import sweep

    mine, overrides = arguments.split("train", args.overrides)
    if mine["jobs"] and not args.multirun:
        raise UserError("jobs= is how many runs of a sweep are trained side by side; add -m, or leave it out.")
    means, overrides = arguments.means(mine, overrides)
    jobs = sweep.expand(overrides) if args.multirun else [overrides]
    jobs = [absolute_paths(job) for job in jobs]
    if args.cfg:
        return _show(args, jobs)
    if args.resolve or args.package:
        raise UserError("--resolve and --package say how --cfg shows the configuration; add --cfg job.")
    console = _console(args)
    _leave_busy_cores(console)
    if args.multirun or means.launcher:
        folders = sweep.run(jobs, console, len(jobs[0]), means)
        pages = [folder and folder / "report.json" for folder in folders]
        _answer(args, pages if args.multirun else pages[0])
        return int(None in folders)
    config = compose_config(jobs[0])
    from robcomp.runs import train as runs
    from robcomp.runs.effect import check_training
    from robcomp.runs.identity import run_directory

    check_training(jobs[0])
    sweep.announce(jobs, [config], [run_directory(config)], console)
    folder = runs.train(config, jobs[0], console)
    runs.show(folder, console)
    _answer(args, folder / "report.json")
    return 0


def plan(args: argparse.Namespace) -> int:
    from robcomp.settings.override_paths import absolute_paths
    from robcomp.sweeps import plan, sweep
    from robcomp.tables import spec

    mine, overrides = arguments.split("plan", args.overrides)
    table, scale = arguments.single("table", mine["table"]), arguments.single("scale", mine["scale"])
    if scale and not table:
        raise UserError(f"scale={scale} is of a table; add table=NAME, or leave it out.")
    if table:
        if args.multirun:
            raise UserError(f"table={table} says itself which runs there are; leave -m out.")
        jobs = [job.overrides for job in spec.jobs(spec.load(table), scale or "cpu", overrides)]
    else:
        jobs = sweep.expand(overrides) if args.multirun else [overrides]
    console = _console(args)
    _leave_busy_cores(console)
    found = sweep.planned([absolute_paths(job) for job in jobs], console, arguments.count("jobs", mine["jobs"]) or 1)
    plan.show(found, console)
    if args.json:
        print(found.to_json())
    return 0


def _show(args: argparse.Namespace, jobs: list[list[str]]) -> int:
    """Print the configuration of every job, each a YAML document."""
    from robcomp.settings.show import shown
    from robcomp.sweeps import sweep

    sweep.check(jobs)
    texts = [shown(job, args.cfg, args.resolve, args.package) for job in jobs]
    if args.multirun:
        heads = [f"# run {n} of {len(jobs)}: {' '.join(' '.join(job).split())}" for n, job in enumerate(jobs, 1)]
        texts = [f"---\n{head}\n{text}" for head, text in zip(heads, texts, strict=True)]
    print("".join(texts), end="")
    return 0


def evaluate(args: argparse.Namespace) -> int:
    mine, overrides = arguments.split("evaluate", args.overrides)
    weights = any(override.startswith("model.weights=") for override in overrides)
    if mine["run"] and (mine["module"] or weights):
        other = "module=" if mine["module"] else "model.weights="
        raise UserError(f"run= and {other} are both given; a finished run has its network. Give one of them.")
    if not mine["run"]:  # there out= is where all runs go, as in train
        others = [override for override in args.overrides if not override.startswith("module=")]
        return _evaluate_external(arguments.single("module", mine["module"]), others, args)
    folder = arguments.folder("run", mine["run"])
    out = arguments.output(mine["out"], folder)
    from robcomp.report.terminal import say
    from robcomp.runs.evaluate import evaluate_run, show
    from robcomp.settings.override_paths import absolute_paths

    console = _console(args)
    page = evaluate_run(folder, absolute_paths(overrides), out, console)
    show(page, console)
    say(console, f"evaluation: {page}")
    _answer(args, page)
    return 0


def _evaluate_external(module: str, overrides: list[str], args: argparse.Namespace) -> int:
    from robcomp.runs.effect import EXTERNAL, Job, check
    from robcomp.runs.train import show
    from robcomp.settings.compose import compose_config
    from robcomp.settings.override_paths import absolute_paths

    console, overrides = _console(args), absolute_paths(overrides)
    config = compose_config(overrides)
    if module:  # which checks its overrides itself
        from robcomp.runs.own_module import evaluate_module

        folder = evaluate_module(module, config, overrides, console)
    else:
        from robcomp.runs.external import evaluate_external

        if config.model.weights:  # without them what is missing is said first
            check([Job(overrides)], EXTERNAL)
        folder = evaluate_external(config, overrides, console)
    show(folder, console)
    _answer(args, folder / "report.json")
    return 0


def curve(args: argparse.Namespace) -> int:
    mine, overrides = arguments.split("curve", args.overrides)
    runs = arguments.folders("run", mine["run"])
    out = arguments.output(mine["out"], runs[0])
    over, values = arguments.single("over", mine["over"], "eps"), arguments.numbers("values", mine["values"])
    from robcomp.analyses.curve import curve
    from robcomp.settings.override_paths import absolute_paths

    _answer(args, curve(runs, absolute_paths(overrides), over, values, out, _console(args)))
    return 0


def transfer(args: argparse.Namespace) -> int:
    mine, overrides = arguments.split("transfer", args.overrides)
    sources, targets = (arguments.folders(key, mine[key]) for key in ("source", "targets"))
    values, out = arguments.numbers("values", mine["values"]), arguments.output(mine["out"], sources[0])
    from robcomp.analyses.transfer import transfer
    from robcomp.settings.override_paths import absolute_paths

    _answer(args, transfer(sources, targets, absolute_paths(overrides), values, out, _console(args)))
    return 0


def combine(args: argparse.Namespace) -> int:
    mine, overrides = arguments.split("combine", args.overrides)
    runs = arguments.folders("run", mine["run"], at_least=2)
    out = arguments.output(mine["out"], runs[0])
    from robcomp.analyses.combine import combine
    from robcomp.settings.override_paths import absolute_paths

    _answer(args, combine(runs, absolute_paths(overrides), out, _console(args)))
    return 0


def sensitivity(args: argparse.Namespace) -> int:
    mine, overrides = arguments.split("sensitivity", args.overrides)
    runs = arguments.folders("run", mine["run"])
    out = arguments.output(mine["out"], runs[0])
    values = arguments.numbers("values", mine["values"])
    from robcomp.analyses.sensitivity import sensitivity
    from robcomp.settings.override_paths import absolute_paths

    _answer(args, sensitivity(runs, absolute_paths(overrides), values, out, _console(args)))
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

    _answer(args, histogram(runs, number_of_bins(bins), layers, normalised == "true", out, _console(args)))
    return 0


def losses(args: argparse.Namespace) -> int:
    mine = arguments.only("losses", args.overrides)
    runs = arguments.folders("run", mine["run"])
    out = arguments.output(mine["out"], runs[0])
    from robcomp.analyses.losses import losses

    _answer(args, losses(runs, out, _console(args)))
    return 0


def compare(args: argparse.Namespace) -> int:
    from robcomp.analyses.compare import compare, show

    show(compare(args.a, args.b), _console(args), args.json)
    return 0


def listing(args: argparse.Namespace) -> int:
    own = [choices.EXPERIMENT] if args.folders else []
    kinds = {f"{group}s": group for group in (*choices.GROUPS, *own, "table")}
    wanted = [args.group] if args.group else list(kinds)
    if args.group == f"{choices.EXPERIMENT}s" and not own:
        raise UserError("experiments are files of your own; add --config-dir DIR, which has experiment/NAME.yaml.")
    for name in wanted:
        if name not in kinds:
            raise unknown("group", name, kinds)
    for name in wanted:
        title = {
            "attacks": "attack suites (attack=...)",
            "tables": "tables (robcomp table ...)",
            "experiments": "experiments (+experiment=...)",
        }
        folders = args.folders if kinds[name] != "table" else []
        _section(title.get(name, f"{name} ({kinds[name]}=...)"), choices.summaries(kinds[name], folders))
    if "attacks" in wanted:
        from robcomp.settings import registered

        found = sorted(registered.registered("attack").items())
        said = {name: " ".join(attack.doc.split("\n\n")[0].split()) for name, attack in found}
        _section("attacks (one more in a suite: '+attack.attacks.NAME={attack: pgd, eps: 8/255}')", said)
    return 0


def completion(args: argparse.Namespace) -> int:
    from robcomp.cli.completion import script

    print(script(args.shell), end="")
    return 0


def table(args: argparse.Namespace) -> int:
    if args.name not in choices.choices("table"):
        raise unknown("table", args.name, choices.choices("table"))
    mine, overrides = arguments.split("table", args.overrides)
    out = Path(arguments.single("out", mine["out"]) or "results")
    means, overrides = arguments.means(mine, overrides)
    runs = arguments.single("runs", mine["runs"])
    if runs:
        writable(Path(runs), "runs")
    from robcomp.report.terminal import say
    from robcomp.settings.grammar import quoted
    from robcomp.settings.override_paths import absolute_paths
    from robcomp.sweeps import sweep
    from robcomp.tables.build import build

    console = _console(args)
    _leave_busy_cores(console)
    folders: list[Path | None] = []

    def run_all(jobs: list[list[str]]) -> list[Path | None]:
        there = [quoted("out", runs)] if runs else []
        todo, typed = [[*job, *there] for job in jobs], len(overrides) + len(there)
        folders.extend(sweep.run(todo, console, typed, means))
        return folders

    page = build(args.name, args.scale, absolute_paths(overrides), run_all, out)
    say(console, f"table: {page}")
    _answer(args, page.with_suffix(".json"), page)
    return int(None in folders)


def _section(title: str, lines: dict[str, str]) -> None:
    print(title)
    width = max(14, *map(len, lines))
    for name, summary in lines.items():
        print(f"  {name:<{width}} {summary}")
    print()


def _console(args: argparse.Namespace) -> "Console":
    """Where what a person reads is printed: with --json beside the answer, with --quiet nowhere."""
    import logging

    from robcomp.report.terminal import console

    quiet = getattr(args, "quiet", False)
    logging.getLogger("robcomp").setLevel(logging.ERROR if quiet else logging.NOTSET)
    return console(stderr=args.json, quiet=quiet)


def _leave_busy_cores(console: "Console") -> None:
    """Take no more threads than there are cores that nobody else keeps busy, and say so."""
    from robcomp.hardware import leave_busy_cores
    from robcomp.report.terminal import say

    if told := leave_busy_cores():
        say(console, told, fold=True)


def _answer(args: argparse.Namespace, page: Path | list[Path | None] | None, shown: Path | None = None) -> None:
    """What goes to stdout beside all that: with --json what the JSON files hold, with --quiet alone where they lie.

    A list, with null for a run that failed, where many ran. `shown` is named in the place of the JSON file.
    """
    pages = page if isinstance(page, list) else [page]
    if args.json:
        texts = [page.read_text(encoding="utf-8").strip() if page else "null" for page in pages]
        print("[\n" + ",\n".join(texts) + "\n]" if isinstance(page, list) else texts[0])
    elif args.quiet:
        for each in filter(None, pages):
            print(shown or (each.parent if each.name == "report.json" else each))
