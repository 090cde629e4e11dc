"""The command line: `robcomp COMMAND`. Help answers without importing torch or Hydra."""

import argparse
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import robcomp
from robcomp.cli import commands, hydra_options
from robcomp.cli.arguments import keys_help
from robcomp.cli.completion import INSTALL
from robcomp.errors import UserError
from robcomp.settings.choices import GROUPS, choices, summaries

OVERRIDES_HELP = "choose a part (method=al0, dataset=mnist) or set a value (method.ratio=0.01), in Hydra's grammar"
CONFIG_DIR = "a folder of your own, laid out like conf/: DIR/method/mine.yaml is method=mine"
FRESH = ("fresh=true", "evaluate again, even if a finished result is there")
OTHERS = """Any other KEY=VALUE changes a setting of the runs for this analysis, as in dataset.test_subset=500.
Writes JSON, CSV and, with matplotlib, a figure. A finished analysis is shown again, an interrupted one continues."""
FILES = "Writes JSON, CSV and, with matplotlib, a figure. Needs neither the data set nor an attack."
LIST_HELP = """printed, and nothing is written; without a group all of them

examples:
  robcomp list
  robcomp list methods
  robcomp list attacks --config-dir DIR       yours among them, from DIR/attack/"""
EXAMPLES = {
    "curve": "run=outputs/digits-lenet-atmc/HASH values=0,0.05,0.1,0.2 attack.attacks.pgd.steps=20",
    "transfer": "source=outputs/digits-lenet-nat/HASH targets=outputs/digits-lenet-atmc/HASH",
    "combine": "run=outputs/digits-lenet-atmc/HASH run=outputs/digits-lenet-al0/HASH attack=quick",
    "sensitivity": "run=outputs/digits-lenet-da/HASH values=0.8,0.95 dataset.test_subset=200",
    "histogram": "run=outputs/digits-lenet-nat/HASH,outputs/digits-lenet-da/HASH normalised=true",
    "losses": "run=outputs/digits-lenet-da/HASH,outputs/digits-lenet-atmc/HASH",
}
WITH_FILES = ("train", "evaluate", "table", *EXAMPLES)  # commands whose results are files
WITH_JSON = (*WITH_FILES, "compare", "plan")
COMPARE_HELP = """printed, and nothing is written; for clean images, the worst case and each attack that was run on
both with the same settings:
  both accuracies, their difference on the same images with its 95 % interval, McNemar's exact p, a conclusion

example:
  robcomp compare outputs/digits-lenet-atmc/HASH outputs/digits-lenet-al0/HASH"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit code: 0 done, 1 a run failed, 2 bad input, 130 interrupted."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    parser, commands_of = _parser()
    try:
        if words[:1] == ["__complete"]:
            return _complete(" ".join(words[1:]), {"": parser, **commands_of})
        hydra_options.refuse(words)
        args, rest = parser.parse_known_args(words)
        if unread := [word for word in rest if word.startswith("-") or not hasattr(args, "overrides")]:
            hydra_options.refuse_dashes(unread[0], words)
            parser.error(f"unrecognized arguments: {' '.join(unread)}")
        if rest:  # overrides after an option, which argparse leaves over
            args.overrides += rest
        if args.command is None:
            parser.print_help()
            return 0
        _take_config_dir(args)
        return int(args.run(args))
    except UserError as error:
        print(f"robcomp: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:  # the reader (head, less) has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        where = f"{error.filename}: " if error.filename else "the output cannot be written: "
        print(f"robcomp: {where}{error.strerror or error}; check path, rights and room.", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"robcomp: interrupted{_way_on(args)}.", file=sys.stderr)
        return 130


def _complete(line: str, parsers: Mapping[str, argparse.ArgumentParser]) -> int:
    """Print what the last word of a line may become, for the shell's tab completion."""
    from robcomp.cli.completion import complete

    for candidate in complete(line, {name: parser.format_help() for name, parser in parsers.items()}):
        print(candidate)
    return 0


def _take_config_dir(args: argparse.Namespace) -> None:
    """The folder of --config-dir as an override, which a run keeps; `list` takes it as a folder."""
    folder = getattr(args, "config_dir", None)
    if hasattr(args, "overrides") and folder:
        from robcomp.settings.override_paths import with_config_dir

        args.overrides = with_config_dir(args.overrides, folder)
    elif hasattr(args, "config_dir"):
        from robcomp.settings import search_path

        args.folders = search_path.folders([folder] if folder else [])


def _way_on(args: argparse.Namespace) -> str:
    """What to do after an interruption, for commands that keep what they have found."""
    if args.command not in WITH_FILES:
        return ""
    said = "; the same command continues from its last checkpoint"
    return f"{said}, without fresh=true" if "fresh=true" in args.overrides else said


def _parser() -> tuple[argparse.ArgumentParser, dict[str, argparse.ArgumentParser]]:
    """The parser, and that of each command."""
    parser = argparse.ArgumentParser(
        prog="robcomp",
        description="Train image classifiers that are small and robust to attacks; report how small and how robust.",
        epilog="robcomp COMMAND --help shows a command's options and choices. Start with: robcomp train",
    )
    parser.add_argument("--version", action="version", version=f"robcomp {robcomp.__version__}")
    subparsers = parser.add_subparsers(dest="command", metavar="COMMAND")

    train = _command(
        subparsers,
        "train",
        "train, compress, attack and report; without arguments: ATMC with LeNet on digits",
        _train_help(),
    )
    train.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help=OVERRIDES_HELP)
    train.add_argument(
        "-m", "--multirun", action="store_true", help="run every combination of values, as in seed=0,1 method=al0,atmc"
    )
    train.add_argument(
        "-c",
        "--cfg",
        choices=["job", "hydra", "all"],
        help="print the configuration and stop: the run's own (job), Hydra's node, or both",
    )
    train.add_argument("--resolve", action="store_true", help="with --cfg: replace every ${...} by its value")
    train.add_argument("-p", "--package", metavar="PKG", help="with --cfg: this node alone, as in schedule.dense")
    train.set_defaults(run=commands.train)

    plan = _command(subparsers, "plan", "what runs will cost on this machine, before they are started", _plan_help())
    plan.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="those of train, and the keys below")
    plan.add_argument("-m", "--multirun", action="store_true", help="of every combination of values, as in train")
    plan.set_defaults(run=commands.plan)

    evaluate = _command(
        subparsers,
        "evaluate",
        "attack a finished run again with another attack suite, or a network trained elsewhere",
        _evaluate_help(),
    )
    evaluate.add_argument(
        "overrides",
        nargs="*",
        metavar="KEY=VALUE",
        help="run=DIR or model.weights=FILE, and settings such as attack=autoattack",
    )
    evaluate.set_defaults(run=commands.evaluate)

    analyses = []
    for name, summary, run in (
        ("curve", "accuracy of finished runs as eps or the number of attack steps grows", commands.curve),
        ("transfer", "adversarial images computed on one run's network, classified by others", commands.transfer),
        ("combine", "the average of runs' networks, attacked through each member and as a whole", commands.combine),
        ("sensitivity", "accuracy of finished runs when a single layer is pruned", commands.sensitivity),
    ):
        suite = "pgd20, PGD with 20 steps" if name == "sensitivity" else "pgd100, PGD with 100 steps"
        attack = ("attack=SUITE", f"the attack suite (default: {suite}), its settings as in train")
        analysis = _command(subparsers, name, summary, _analysis_help(name, keys_help(name, attack, FRESH), OTHERS))
        analysis.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="the keys below, and other settings")
        analysis.set_defaults(run=run)
        analyses.append(analysis)

    for name, summary, run in (
        ("histogram", "histograms of the weights of finished runs, overlaid", commands.histogram),
        ("losses", "adversarial training loss of finished runs, epoch by epoch", commands.losses),
    ):
        analysis = _command(subparsers, name, summary, _analysis_help(name, keys_help(name), FILES))
        analysis.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="the keys below")
        analysis.set_defaults(run=run)

    compare = _command(subparsers, "compare", "two finished runs, image by image on the same test images", COMPARE_HELP)
    for side in ("a", "b"):
        compare.add_argument(
            side, type=Path, metavar=side.upper(), help="a run directory, or an evaluation-*.json of one"
        )
    compare.set_defaults(run=commands.compare)

    kinds = [f"{group}s" for group in (*GROUPS, "table")]
    listing = _command(
        subparsers, "list", "list data sets, models, methods, attacks and so on, one line each", LIST_HELP
    )
    listing.add_argument("group", nargs="?", metavar="GROUP", help=f"{', '.join(kinds)} (default: all)")
    listing.set_defaults(run=commands.listing)

    completion = _command(subparsers, "completion", "tab completion: print the script for your shell", INSTALL)
    completion.add_argument("shell", metavar="SHELL", help="bash, zsh or fish")
    completion.set_defaults(run=commands.completion)

    table = _command(
        subparsers,
        "table",
        "rebuild a published table or figure, with the published figures beside the measured ones",
        _tables_help(),
    )
    table.add_argument("name", help="the table, for example atmc-mnist")
    table.add_argument(
        "--scale",
        default="cpu",
        help="how much of the published training: smoke (a check), cpu, gpu or paper (default: cpu)",
    )
    table.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="the keys below, and settings for every run")
    table.set_defaults(run=commands.table)
    train.add_argument("-cd", "--config-dir", metavar="DIR", help=CONFIG_DIR)
    for command in (plan, evaluate, *analyses, listing, table):  # where -c would be taken for a short -cd
        command.add_argument("--config-dir", metavar="DIR", help=CONFIG_DIR)
    return parser, subparsers.choices


def _command(
    subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]", name: str, summary: str, epilog: str
) -> argparse.ArgumentParser:
    command = subparsers.add_parser(
        name,
        help=summary,
        description=summary[0].upper() + summary[1:] + ".",
        epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    if name in WITH_JSON:
        many = ", with -m a list" if name == "train" else ""
        command.add_argument("--json", action="store_true", help=f"print the result as JSON{many}; all else on stderr")
    if name in WITH_FILES:
        command.add_argument("-q", "--quiet", action="store_true", help="print nothing but where the result lies")
    return command


def _analysis_help(name: str, keys: str, more: str) -> str:
    return f"{keys}\n{more}\n\nexample:\n  robcomp {name} {EXAMPLES[name]}"


def _choices() -> str:
    lines = [f"  {group:<9} {', '.join(choices(group))}" for group in GROUPS]
    lines.append("attack= chooses a suite of attacks, recipe= a paper's whole setting")
    return "\n".join(lines)


def _train_help() -> str:
    return f"""{keys_help("train")}

choices (robcomp list says what each is):
{_choices()}

examples:
  robcomp train method=atmc dataset=cifar10
  robcomp train dataset=mnist method.ratio=0.006 method.bits=4 threat.eps=8/255
  robcomp train method.epochs_scale=0.1               a tenth of the epochs of every stage
  robcomp train -m method=al0,atmc method.ratio=0.001,0.005
  robcomp train -m seed=0,1,2,3 jobs=2                two runs side by side
  robcomp train method=al0 quantise.bits=8            quantise after training
  robcomp train dataset=folder dataset.path=photos    your own images, one folder a class
  robcomp train model.weights=FILE schedule.dense.epochs=0   start from trained weights
  robcomp train method=admm schedule.retrain.epochs=20      a stage of a method by its name
  robcomp train attack.attacks.pgd.restarts=3         any setting of an attack of the suite
  robcomp train --cfg job --resolve dataset=mnist     print every setting with its value
  robcomp train -c job --package schedule.dense --resolve
  robcomp train --config-dir conf-of-mine method=mine       conf-of-mine/method/mine.yaml, laid out like conf/
  robcomp train --config-dir conf-of-mine +experiment=foo   conf-of-mine/experiment/foo.yaml, for example:

      # @package _global_
      # A-l0 on MNIST with twice the images a step
      defaults:
        - override /method: al0
        - override /dataset: mnist
      training: {{batch_size: 256}}

Without any of these: method=atmc, model=lenet, dataset=digits, attack=quick, seed=0. hydra.searchpath=[DIR,DIR] names
several such folders; of Hydra's other settings robcomp uses none. Runs go to out=DIR (default outputs), each into
DATASET-MODEL-METHOD/HASH. A finished run is not repeated, an interrupted one continues; fresh=true starts over."""


def _plan_help() -> str:
    return f"""{keys_help("plan")}
Any other KEY=VALUE is one of train's. Some steps of each kind of stage are timed, for a second or two each. The plan is
printed, and nothing is written but a data set that is not there yet. Finished runs, stages in the cache and the epochs
that a stopped run has trained count as done.

examples:
  robcomp plan method=atmc dataset=cifar10
  robcomp plan -m method=al0,atmc method.ratio=0.001,0.005 jobs=2
  robcomp plan table=atmc-mnist scale=cpu"""


def _evaluate_help() -> str:
    return f"""{keys_help("evaluate", ("attack=SUITE", "the attack suite (default: the run's own)"))}
Any other KEY=VALUE changes a setting. Suites (robcomp list attacks says what each is): {", ".join(choices("attack"))}

examples:
  robcomp evaluate run=outputs/digits-lenet-atmc/HASH attack=autoattack dataset.test_subset=500
  robcomp evaluate run=outputs/digits-lenet-atmc/HASH attack=quick threat.eps=0.15 attack.attacks.pgd.steps=100
  robcomp evaluate dataset=cifar10 model=resnet18 model.weights=net.pt attack=autoattack   a network trained elsewhere
  robcomp evaluate dataset=cifar10 module=nets:small model.weights=net.pt   an architecture of your own, from nets.py

Writes evaluation-HASH.json and .npz into the run's directory, or into out=DIR; for a network trained
elsewhere into a directory below out=DIR. A finished evaluation is shown again, an interrupted one continues; fresh=true
starts over. HASH stands for the name of the run's directory, which train prints last."""


def _tables_help() -> str:
    tables = "\n".join(f"  {name:<14} {text}" for name, text in summaries("table").items())
    return f"""{keys_help("table")}
Any other KEY=VALUE is a setting for every run, as in seed=1.

tables:
{tables}

examples:
  robcomp table atmc-mnist --scale smoke
  robcomp table rivals-mnist --scale gpu runs=/data/outputs seed=1

Writes NAME-SCALE.md, its figure and its records into out=DIR; finished runs are skipped, a stopped one goes on."""
