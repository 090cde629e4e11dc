"""The attack suites of conf/attack outside of a run: for any network, without a data set."""

from dataclasses import replace

from robcomp.errors import UserError, unknown
from robcomp.evaluation.suite import SuiteConfig
from robcomp.settings.choices import choices, conf_dir
from robcomp.settings.compose import compose_config

EPS, NORM = "8/255", "Linf"  # where a suite leaves them to the threat model, and nobody says otherwise


def named_suite(name: str) -> SuiteConfig:
    """The suite conf/attack/`name`.yaml, under the threat model Linf with eps 8/255 where it has none of its own.

    UserError for an unknown name, and for a suite that is made for the runs of a data set (`published_steps`).
    """
    if name not in choices("attack"):
        raise unknown("suite", name, choices("attack"))
    if "published_steps" in (conf_dir() / "attack" / f"{name}.yaml").read_text(encoding="utf-8"):
        raise UserError(
            f"suite {name} takes as many steps as were published for its data set, so it is for robcomp evaluate; give "
            "its attacks with their steps: {'pgd': {'steps': 7, 'relative_step': 1.25, 'random_start': False}}."
        )
    config = compose_config([f"attack={name}", f"threat.eps={EPS}", f"threat.norm={NORM}"])
    return replace(config.attack, published_steps=None)
