"""The command line: `robcomp <verb>`. Help and lists answer without importing torch or Hydra."""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import robcomp
from robcomp import catalogue
from robcomp.errors import UserError, unknown

OVERRIDES_HELP = "KEY=VALUE in Hydra's grammar: group choices (method=al0) and fields (method.ratio=0.01)"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a verb; returns the exit code: 0 done, 1 a run failed, 2 bad input, 130 interrupted."""
    parser = _parser()
    args, rest = parser.parse_known_args(arguments)
    if unread := [word for word in rest if word.startswith("-") or not hasattr(args, "overrides")]:
        parser.error(f"unrecognized arguments: {' '.join(unread)}")
    if rest:  # overrides after an option, which argparse leaves over
        args.overrides += rest
    if args.verb is None:
        parser.print_help()
        return 0
    try:
        return args.run(args)
    except UserError as error:
        print(f"robcomp: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:  # the reader (head, less) has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        print(f"robcomp: {error.filename or 'a file'}: {error.strerror or error}; check the path.", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("robcomp: interrupted; the same command (without fresh=true) goes on from the last checkpoint.",
              file=sys.stderr)  # fmt: skip
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="robcomp",
        description="Train image classifiers that are adversarially robust and small; report how robust and how small.",
        epilog="robcomp VERB --help shows a verb's options and choices. Start with: robcomp train",
    )
    parser.add_argument("--version", action="version", version=f"robcomp {robcomp.__version__}")
    verbs = parser.add_subparsers(dest="verb", metavar="VERB")

    train = _verb(verbs, "train", "train, pack, attack and report; alone: ATMC with LeNet on digits", _train_help())
    train.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help=OVERRIDES_HELP)
    train.add_argument("-m", "--multirun", action="store_true", help="sweep: seed=0,1,2 or method=al0,atmc; resumable")
    train.add_argument("--cfg", choices=["job"], help="show the composed configuration and do nothing")
    train.set_defaults(run=_train)

    evaluate = _verb(verbs, "evaluate", "attack a finished run again, with another suite", _evaluate_help())
    evaluate.add_argument(
        "overrides", nargs="*", metavar="KEY=VALUE", help="run=DIR, and overrides such as attack=atmc"
    )
    evaluate.set_defaults(run=_evaluate)

    listing = _verb(verbs, "list", "what can be named on the command line, one line each", "")
    listing.add_argument("group", nargs="?", help="datasets, models, methods, attacks or tables; all by default")
    listing.set_defaults(run=_list)

    table = _verb(
        verbs, "table", "run what a published table or figure needs, and write it beside ours", _tables_help()
    )
    table.add_argument("name", help="the table, for example atmc-mnist")
    table.add_argument("--scale", default="cpu", help="a scale of the table: smoke, cpu, gpu or paper (default: cpu)")
    table.add_argument("--target", type=Path, default=Path("results"), help="where the page goes (default: results)")
    table.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="for every run of the table")
    table.set_defaults(run=_table)
    return parser


def _verb(verbs: argparse._SubParsersAction, name: str, summary: str, epilog: str) -> argparse.ArgumentParser:
    return verbs.add_parser(
        name, help=summary, description=summary[0].upper() + summary[1:] + ".", epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip


def _train(args: argparse.Namespace) -> int:
    from omegaconf import OmegaConf

    from robcomp import config, sweep
    from robcomp.overrides import rooted

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
    from robcomp import runner

    runner.train(composed, jobs[0], _console())
    return 0


def _evaluate(args: argparse.Namespace) -> int:
    runs = [o.removeprefix("run=") for o in args.overrides if o.startswith("run=")]
    if len(runs) != 1:
        raise UserError(
            f"evaluate takes one run=DIR, given {len(runs)}; for example run=outputs/digits-lenet-atmc/HASH."
        )
    from robcomp import config, measure
    from robcomp.report import schema

    folder = Path(runs[0])
    trained = schema.read(folder / "report.json")["run"]["overrides"]
    overrides = [o for o in args.overrides if not o.startswith("run=")]
    console = _console()
    page = measure.evaluate_run(folder, config.compose_config([*trained, *overrides]), overrides, console)
    console.print(f"evaluation: {page}")
    return 0


def _list(args: argparse.Namespace) -> int:
    kinds = {"datasets": "dataset", "models": "model", "methods": "method", "attacks": "attack", "tables": "table"}
    wanted = [args.group] if args.group else list(kinds)
    for name in wanted:
        if name not in kinds:
            raise unknown("group", name, kinds)
    for name in wanted:
        _section(f"{name} ({kinds[name]}=...)" if name != "tables" else "tables (robcomp table ...)",
                 catalogue.summaries(kinds[name]))  # fmt: skip
        if name == "attacks":
            _section("attacks of a suite (+attack.attacks.ANY_NAME={attack: ..., eps: ...})", catalogue.attacks())
    return 0


def _section(title: str, lines: dict[str, str]) -> None:
    print(title)
    for name, summary in lines.items():
        print(f"  {name:<14} {summary}")
    print()


def _table(args: argparse.Namespace) -> int:
    if args.name not in catalogue.choices("table"):
        raise unknown("table", args.name, catalogue.choices("table"))
    from robcomp import sweep
    from robcomp.overrides import rooted
    from robcomp.report import tables

    console = _console()
    page = tables.build(
        args.name, args.scale, rooted(args.overrides), lambda jobs: sweep.run(jobs, console), args.target
    )
    console.print(f"table: {page}")
    return 0


def _console():
    from rich.console import Console

    return Console()


def _choices() -> str:
    return "\n".join(f"  {group:<8} {', '.join(catalogue.choices(group))}" for group in catalogue.GROUPS)


def _train_help() -> str:
    return f"""choices (robcomp list says what each is):
{_choices()}

examples:
  robcomp train method=atmc dataset=cifar10
  robcomp train dataset=mnist method.ratio=0.006 method.bits=4 threat.eps=8/255
  robcomp train method.epochs_scale=0.1               every stage and milestone at a tenth
  robcomp train -m method=al0,atmc method.ratio=0.001,0.005
  robcomp train method=al0 quantize.bits=8            a codebook after training
  robcomp train dataset=folder dataset.path=photos    your own images, one folder a class
  robcomp train model.weights=FILE schedule.dense.epochs=0   compress a network that is trained already
  robcomp train --cfg job dataset=mnist               every key there is, with its value

Runs go to out=DIR (default outputs). A finished run is skipped, a stopped one goes on; fresh=true starts over."""


def _evaluate_help() -> str:
    return f"""suites for attack=:
  {", ".join(catalogue.choices("attack"))}

example:
  robcomp evaluate run=outputs/digits-lenet-atmc/HASH attack=quick threat.eps=0.15"""


def _tables_help() -> str:
    tables = "\n".join(f"  {name:<14} {text}" for name, text in catalogue.summaries("table").items())
    return f"tables:\n{tables}"
