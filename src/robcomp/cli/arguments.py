"""The words of a protocol's command line that are its own and not Hydra's: run=DIR, values=0,1/255."""

from collections.abc import Sequence
from pathlib import Path

from robcomp.errors import UserError
from robcomp.units import fraction

EXAMPLE = "outputs/digits-lenet-atmc/HASH"


def split(words: Sequence[str], own: Sequence[str]) -> tuple[dict[str, list[str]], list[str]]:
    """(key -> the values given for it, for each key of `own`; all other words, in order)."""
    mine: dict[str, list[str]] = {key: [] for key in own}
    rest = []
    for word in words:
        key, equals, value = word.partition("=")
        (mine[key] if equals and key in mine else rest).append(value if equals and key in mine else word)
    return mine, rest


def folders(key: str, given: Sequence[str], least: int = 1) -> list[Path]:
    """The run directories of key=DIR, key=DIR,DIR and key=[DIR,DIR]; UserError for too few, no run, or one twice."""
    found = [Path(part) for value in given for part in _parts(value)]
    if len(found) < least:
        raise UserError(f"{len(found)} of at least {least} run directories given; write {key}={EXAMPLE}.")
    for folder in found:
        if not (folder / "report.json").is_file():
            raise UserError(
                f"{key}={folder} is no finished run (no report.json there); give a run directory: {EXAMPLE}."
            )
    if len({folder.resolve() for folder in found}) < len(found):
        raise UserError(f"{key}={','.join(map(str, found))} names a run twice; give each once.")
    return found


def folder(key: str, given: Sequence[str]) -> Path:
    """The one run directory of key=DIR; UserError for several."""
    found = folders(key, given)
    if len(found) > 1:
        raise UserError(f"{key}= takes one run directory, given {len(found)}; give one at a time.")
    return found[0]


def single(key: str, given: Sequence[str], default: str = "") -> str:
    """The value of a key that may be given once."""
    if len(given) > 1:
        raise UserError(f"{key}= is given {len(given)} times; give it once.")
    return given[0] if given else default


def numbers(key: str, given: str) -> list[float]:
    """The rising numbers of key=0,1/255,0.1, each once."""
    return sorted({fraction(part, key) for part in _parts(given)})


def _parts(value: str) -> list[str]:
    if value.startswith("[") and value.endswith("]"):
        value = value[1:-1]
    return [part.strip() for part in value.split(",") if part.strip()]
