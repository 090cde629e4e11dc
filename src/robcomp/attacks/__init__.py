"""Adversarial attacks, one a file, all called as `x_adv = attack(model, x, y, generator)`."""

from robcomp.attacks.apgd import APGDCE, APGDDLR, APGDT
from robcomp.attacks.base import ATTACKS, Attack, MinimumNorm, ThreatModel, adversary_view
from robcomp.attacks.cw import CW, CWMargin
from robcomp.attacks.fab import FAB, FABT
from robcomp.attacks.fgsm import FGSM
from robcomp.attacks.pgd import PGD
from robcomp.attacks.square import Square
from robcomp.attacks.suite import SuiteConfig
from robcomp.attacks.wrm import WRM

__all__ = [
    "APGDCE",
    "APGDDLR",
    "APGDT",
    "ATTACKS",
    "CW",
    "FAB",
    "FABT",
    "FGSM",
    "PGD",
    "WRM",
    "Attack",
    "CWMargin",
    "MinimumNorm",
    "Square",
    "SuiteConfig",
    "ThreatModel",
    "adversary_view",
]
