"""The arguments of a command that are its own and not Hydra's: run=DIR, values=0,1/255, out=DIR."""

from collections.abc import Sequence
from pathlib import Path

from robcomp.errors import UserError, unknown
from robcomp.units import fraction

EXAMPLE = "outputs/digits-lenet-atmc/HASH"


def split(arguments: Sequence[str], own: Sequence[str]) -> tuple[dict[str, list[str]], list[str]]:
    """(key -> the values entered for it, for each key of `own`; all other arguments, in order)."""
    mine: dict[str, list[str]] = {key: [] for key in own}
    rest = []
    for argument in arguments:
        key, equals, value = argument.partition("=")
        (mine[key] if equals and key in mine else rest).append(value if equals and key in mine else argument)
    return mine, rest


def only(arguments: Sequence[str], own: Sequence[str]) -> dict[str, list[str]]:
    """The values of the keys `own`; UserError for any other argument, where a command takes no overrides."""
    mine, others = split(arguments, own)
    if others:
        raise unknown("key", others[0].partition("=")[0], own)
    return mine


def folders(key: str, values: Sequence[str], at_least: int = 1) -> list[Path]:
    """The run directories of key=DIR, key=DIR,DIR and key=[DIR,DIR]; UserError for too few, no run, or one twice."""
    chosen = [Path(part) for value in values for part in _parts(value)]
    if len(chosen) < at_least:
        raise UserError(f"{len(chosen)} of at least {at_least} run directories given; write {key}={EXAMPLE}.")
    for folder in chosen:
        if not (folder / "report.json").is_file():
            raise UserError(
                f"{key}={folder} is no finished run (no report.json there); give a run directory: {EXAMPLE}."
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


def output(values: Sequence[str]) -> Path | None:
    """The folder of out=DIR, None where there is none."""
    chosen = single("out", values)
    return Path(chosen) if chosen else None


def numbers(key: str, values: Sequence[str]) -> list[float]:
    """The rising numbers of key=0,1/255,0.1, each once."""
    return sorted({fraction(part, key) for part in _parts(single(key, values))})


def _parts(value: str) -> list[str]:
    if value.startswith("[") and value.endswith("]"):
        value = value[1:-1]
    return [part.strip() for part in value.split(",") if part.strip()]
