"""Overrides that mean the same wherever a later command starts."""

import os
from collections.abc import Sequence

from hydra.core.override_parser.types import Override, QuotedString

from robcomp.errors import UserError
from robcomp.settings import grammar, search_path

PATHS = ("dataset.path", "model.weights")


def absolute_paths(overrides: Sequence[str]) -> list[str]:
    """The overrides with the relative paths among them made absolute, where something lies there."""
    try:
        parsed = grammar.parse(overrides)
    except UserError:
        return list(overrides)  # composing says what is wrong
    return [_absolute(override) for override in parsed]


def with_config_dir(overrides: Sequence[str], folder: str | None) -> list[str]:
    """The overrides with `folder` (--config-dir) and all of hydra.searchpath in one override, in front.

    UserError where `folder` is none; what else cannot be read is left to composing.
    """
    if folder is None:
        return list(overrides)
    search_path.folder(folder)
    parsed = grammar.parse(overrides)
    typed = [override for override in parsed if override.get_key_element() == search_path.KEY]
    places = search_path.entries([[folder], *(override.value() for override in typed)])
    others = [grammar.line(override) for override in parsed if override not in typed]
    return [grammar.quoted_list(search_path.KEY, places), *others]


def where_found(override: str) -> list[str]:
    """The override as it is, but hydra.searchpath without the folders that are gone: nothing, where all are."""
    [parsed] = grammar.parse([override])
    value = parsed.value()
    if parsed.get_key_element() != search_path.KEY or not isinstance(value, list):
        return [override]
    there = [entry for entry in search_path.entries([value]) if search_path.is_there(entry)]
    return [grammar.quoted_list(search_path.KEY, there)] if there else []


def _absolute(override: Override) -> str:
    value = override.value()
    key = override.get_key_element()
    if key == search_path.KEY and isinstance(value, list):
        return grammar.quoted_list(key, search_path.entries([value]))
    text = value.text if isinstance(value, QuotedString) else value
    if override.key_or_group not in PATHS or not isinstance(text, str) or not text:
        return grammar.line(override)
    path = os.path.expanduser(text)
    if not os.path.exists(path):
        return grammar.line(override)
    return grammar.quoted(key, os.path.realpath(path))
