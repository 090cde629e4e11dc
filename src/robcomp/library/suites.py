"""The suite that a user asks for: by name, or as attacks; with an eps, a norm, a verdict and a batch size for all."""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, replace
from typing import Any

from robcomp.attacks.base import ATTACKS, Attack
from robcomp.errors import UserError
from robcomp.evaluation.suite import SuiteConfig
from robcomp.settings.suites import named_suite
from robcomp.units import Fraction

Suite = str | Attack | Mapping[str, Attack | Mapping[str, Any]]


def chosen_suite(
    suite: Suite, eps: Fraction | None, norm: str | None, batch_size: int | None, verdict: int | None
) -> SuiteConfig:
    """The suite with all attacks built once, so that every setting is checked; UserError for what is amiss.

    `eps` and `norm` replace those of every attack of the worst case; an excluded one keeps its own.
    """
    for name, value in (("batch_size", batch_size), ("verdict", verdict)):
        if value is not None and (isinstance(value, bool) or not isinstance(value, int)):
            raise UserError(f"{name}={value!r} is not a whole number.")
    threat = {name: v for name, v in (("eps", eps), ("norm", norm)) if v is not None}
    with _in_the_librarys_words():
        found = named_suite(suite) if isinstance(suite, str) else SuiteConfig("own", attacks=_entries(suite, threat))
        found = replace(
            found,
            batch_size=found.batch_size if batch_size is None else batch_size,
            verdict=found.verdict if verdict is None else verdict,
        )
        counted = found.counted()
        if not counted:
            raise UserError("no attack of the suite counts in the worst case (excluded, or without a ball); add one.")
        if threat:
            attacks = {name: {**entry, **threat} if name in counted else entry for name, entry in found.attacks.items()}
            found = replace(found, attacks=attacks)
            found.build()
    return found


def check(suite: SuiteConfig, classes: int) -> None:
    """UserError where an attack of the suite cannot be meant for a network of that many classes."""
    with _in_the_librarys_words():
        suite.check(classes)


def _entries(suite: Any, threat: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Attacks and their settings as a suite's configuration has them."""
    if isinstance(suite, Attack):
        suite = {_kind(suite): suite}
    if not isinstance(suite, Mapping) or not suite:
        raise UserError(
            f"suite={suite!r} is no suite; give the name of one, an attack, or attacks by names of your choice: "
            "{'pgd': {'steps': 20}, 'strong': rc.attacks.PGD('8/255', steps=100)}."
        )
    return {str(name): _entry(str(name), entry, threat) for name, entry in suite.items()}


def _entry(name: str, entry: Any, threat: Mapping[str, Any]) -> dict[str, Any]:
    if isinstance(entry, Attack):
        if threat:
            raise UserError(
                f"{' and '.join(threat)} would replace what {type(entry).__name__} in the suite was made with; make it "
                f"with the {' and '.join(threat)} wanted, or give its settings as a dict."
            )
        return {"attack": _kind(entry), **asdict(entry)}
    if not isinstance(entry, Mapping):
        raise UserError(f"suite['{name}'] is {entry!r}; give an attack or a dict of its settings.")
    settings = dict(entry)
    cls = ATTACKS[settings.get("attack", name)]
    if cls.bounded and "eps" not in settings:
        if "eps" not in threat:
            raise UserError(f"suite['{name}'] has no eps; give it one, or eps= for all attacks.")
        settings["eps"] = threat["eps"]
    return settings


def _kind(attack: Attack) -> str:
    kind = vars(type(attack)).get("kind")
    if kind not in list(ATTACKS):
        raise UserError(
            f"{type(attack).__name__} is not registered; put @rc.attacks.ATTACKS.register('NAME') above the class."
        )
    return str(kind)


@contextmanager
def _in_the_librarys_words() -> Iterator[None]:
    """A suite's errors name keys of the command line: attack.attacks.pgd.steps is pgd.steps here."""
    try:
        yield
    except UserError as error:
        raise UserError(re.sub(r"\battack\.(attacks\.|(?=batch_size|verdict))", "", str(error))) from None
