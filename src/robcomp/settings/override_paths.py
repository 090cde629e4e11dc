"""Overrides that mean the same wherever a later command starts."""

import os
from collections.abc import Sequence

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, Quote, QuotedString
from hydra.errors import HydraException

PATHS = ("dataset.path", "model.weights")


def absolute_paths(overrides: Sequence[str]) -> list[str]:
    """The overrides with the relative paths among them made absolute, where something lies there."""
    try:
        parsed = OverridesParser.create().parse_overrides(list(overrides))
    except HydraException:
        return list(overrides)  # composing says what is wrong
    return [_absolute(override) for override in parsed]


def _absolute(override: Override) -> str:
    value = override.value()
    text = value.text if isinstance(value, QuotedString) else value
    if override.key_or_group not in PATHS or not isinstance(text, str) or not text:
        return override.input_line
    path = os.path.expanduser(text)
    if not os.path.exists(path):
        return override.input_line
    return quoted(override.get_key_element(), os.path.realpath(path))


def quoted(key: str, text: str) -> str:
    """The override key=text, whatever characters the text has."""
    return f"{key}={QuotedString(text, Quote.single).with_quotes()}"
