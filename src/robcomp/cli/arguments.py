"""The arguments of a command that are its own and not Hydra's: run=DIR, values=0,1/255, out=DIR."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from robcomp.errors import UserError, unknown
from robcomp.runs.beforehand import writable
from robcomp.units import fraction

if TYPE_CHECKING:
    from robcomp.sweeps.sweep import Means

EXAMPLE = "outputs/digits-lenet-atmc/HASH"
RUNS = ("DIR[,DIR]", "finished runs; may be repeated")
JOBS = ("N", "runs trained side by side, each with its part of the CPU's threads (default: 1)")
LAUNCHER = ("slurm|local", "runs as jobs of a cluster (docs/scaling.md), jobs=N of them at a time (default: all)")
LAUNCHER_SETTING = "launcher."  # what keys of the launcher begin with
OUT = ("DIR", "where the result goes (default: the first run's directory)")

# Of each command its own keys: the form of the value, and what --help says of it
KEYS: dict[str, dict[str, tuple[str, str]]] = {
    "train": {"jobs": JOBS, "launcher": LAUNCHER},
    "plan": {
        "table": ("NAME", "the runs of a table (robcomp list tables)"),
        "scale": ("SCALE", "of the table: smoke, cpu, gpu or paper (default: cpu)"),
        "jobs": ("N", "with so many runs side by side (default: 1)"),
    },
    "evaluate": {
        "run": ("DIR", "a finished run; or give model.weights=FILE for a network trained elsewhere"),
        "module": ("PACKAGE.MODULE:NAME", "an architecture of your own: a module of torch, or what returns one"),
        "out": ("DIR", "where the evaluation goes (default: the run's directory)"),
    },
    "curve": {
        "run": RUNS,
        "over": ("eps|steps", "what is varied (default: eps)"),
        "values": ("0,1/255", "its values (default: eps from 0 to the whole pixel range, steps from 1 to 100)"),
        "out": OUT,
    },
    "transfer": {
        "source": ("DIR[,DIR]", "runs on whose networks the images are computed; may be repeated"),
        "targets": ("DIR[,DIR]", "runs that classify them; may be repeated"),
        "values": ("1/255,0.1", "values of eps (default: that of the attack suite)"),
        "out": OUT,
    },
    "combine": {"run": ("DIR[,DIR]", "two finished runs or more; may be repeated"), "out": OUT},
    "sensitivity": {
        "run": RUNS,
        "values": (
            "0.5,0.95",
            "fractions of a layer's weights, smallest first, to set to zero (default: 0.5,0.8,0.95)",
        ),
        "out": OUT,
    },
    "histogram": {
        "run": ("DIR[,DIR]", "finished runs, of any data sets and models; may be repeated"),
        "bins": ("N", "bins of equal width (default: 100)"),
        "layers": ("PATTERN", "the layers whose names match, as in layers='conv*' (default: all)"),
        "normalised": ("true", "each run's weights divided by their largest magnitude"),
        "out": OUT,
    },
    "losses": {"run": ("DIR[,DIR]", "finished runs that were trained adversarially; may be repeated"), "out": OUT},
    "table": {
        "out": ("DIR", "where page, figure and data are written (default: results)"),
        "runs": ("DIR", "where the runs go (default: outputs)"),
        "jobs": JOBS,
        "launcher": LAUNCHER,
    },
}


def keys_help(command: str, *more: tuple[str, str]) -> str:
    """The command's own keys as --help shows them, a line each, and `more` lines of (KEY=FORM, what it says)."""
    lines = [(f"{key}={form}", said) for key, (form, said) in KEYS[command].items()]
    width = max(len(head) for head, _ in [*lines, *more])
    return "\n".join(["keys:", *(f"  {head:<{width}}  {said}" for head, said in [*lines, *more])])


def split(command: str, arguments: Sequence[str]) -> tuple[dict[str, list[str]], list[str]]:
    """(key -> the values entered for it, for each of the command's own keys; all other arguments, in order)."""
    mine: dict[str, list[str]] = {key: [] for key in KEYS[command]}
    rest: list[str] = []
    for argument in arguments:
        key, equals, value = argument.partition("=")
        (mine[key] if equals and key in mine else rest).append(value if equals and key in mine else argument)
    return mine, rest


def only(command: str, arguments: Sequence[str]) -> dict[str, list[str]]:
    """The values of the command's own keys; UserError for any other argument, where a command takes no overrides."""
    mine, others = split(command, arguments)
    if others:
        raise unknown("key", others[0].partition("=")[0], KEYS[command])
    return mine


def folders(key: str, values: Sequence[str], at_least: int = 1) -> list[Path]:
    """The run directories of key=DIR, key=DIR,DIR and key=[DIR,DIR]; UserError for too few, no run, or one twice."""
    chosen = [Path(part) for value in values for part in _parts(value)]
    if len(chosen) < at_least:
        raise UserError(f"{len(chosen)} run directories given, at least {at_least} needed; write {key}={EXAMPLE}.")
    for folder in chosen:
        if not (folder / "report.json").is_file():
            raise UserError(
                f"{key}={folder} is not a finished run (no report.json there); give a run directory: {EXAMPLE}."
            )
    if len({folder.resolve() for folder in chosen}) < len(chosen):
        raise UserError(f"{key}={','.join(map(str, chosen))} names a run twice; give each once.")
    return chosen


def folder(key: str, values: Sequence[str]) -> Path:
    """The one run directory of key=DIR; UserError for several."""
    chosen = folders(key, values)
    if len(chosen) > 1:
        raise UserError(f"{key}= takes one run directory, given {len(chosen)}; give one at a time.")
    return chosen[0]


def single(key: str, values: Sequence[str], default: str = "") -> str:
    """The value of a key that may be given once."""
    if len(values) > 1:
        raise UserError(f"{key}= is given {len(values)} times; give it once.")
    return values[0] if values else default


def output(values: Sequence[str], default: Path) -> Path | None:
    """The folder of out=DIR, None where there is none; UserError where that or the default cannot be written to."""
    chosen = single("out", values)
    if values and not chosen:
        raise UserError("out= is empty; give a folder, which is made if it is not there.")
    writable(Path(chosen) if chosen else default)
    return Path(chosen) if chosen else None


def count(key: str, values: Sequence[str]) -> int | None:
    """The whole number of key=N, None where it is not given."""
    chosen = single(key, values)
    if not values:
        return None
    if not chosen.isdecimal() or int(chosen) < 1:
        raise UserError(f"{key}={chosen} is not a number of runs; give a whole number of at least 1, as in {key}=2.")
    return int(chosen)


def means(mine: Mapping[str, list[str]], overrides: Sequence[str]) -> tuple["Means", list[str]]:
    """Where runs are trained, by jobs=, launcher= and launcher.SETTING=; and the other overrides."""
    from robcomp.sweeps.sweep import Means

    launcher = single("launcher", mine["launcher"])
    if mine["launcher"] and not launcher:
        raise UserError("launcher= is empty; give slurm or local, or leave it out.")
    own = [override for override in overrides if override.startswith(LAUNCHER_SETTING)]
    if own and not launcher:
        raise UserError(f"{own[0]} is a setting of a launcher; add launcher=slurm, or leave it out.")
    settings = dict(override.removeprefix(LAUNCHER_SETTING).split("=", 1) for override in own if "=" in override)
    return Means(count("jobs", mine["jobs"]), launcher, settings), [word for word in overrides if word not in own]


def numbers(key: str, values: Sequence[str]) -> list[float]:
    """The rising numbers of key=0,1/255,0.1, each once."""
    return sorted({fraction(part, key) for part in _parts(single(key, values))})


def _parts(value: str) -> list[str]:
    if value.startswith("[") and value.endswith("]"):
        value = value[1:-1]
    return [part.strip() for part in value.split(",") if part.strip()]
