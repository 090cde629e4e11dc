"""The one error that is shown to a user as a sentence."""

from collections.abc import Iterable
from difflib import get_close_matches


class UserError(ValueError):
    """Bad input: the message says what was given, what is allowed, what to do. The CLI prints it and exits with 2."""


def unknown(kind: str, name: object, allowed: Iterable[str]) -> UserError:
    """The error for a name outside a closed list, the nearest names suggested first."""
    choices = sorted(allowed)
    near = get_close_matches(str(name), choices, n=3, cutoff=0.6)
    hint = f" Did you mean {' or '.join(near)}?" if near else ""
    return UserError(f"unknown {kind} '{name}'; choose from {', '.join(choices)}.{hint}")
