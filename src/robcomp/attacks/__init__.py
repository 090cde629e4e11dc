"""Adversarial attacks, one a file, all called as `x_adv = attack(model, x, y, seed=0)`; all register here."""

from robcomp.attacks.apgd import APGDCE, APGDDLR, APGDT
from robcomp.attacks.base import ATTACKS, Attack, MinimumNorm
from robcomp.attacks.cw import CW, CWMargin
from robcomp.attacks.fab import FAB, FABT
from robcomp.attacks.fgsm import FGSM
from robcomp.attacks.pgd import PGD
from robcomp.attacks.square import Square
from robcomp.attacks.wrm import WRM
from robcomp.registry import import_modules

import_modules(__name__, __path__)  # also those that have no name here

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
]
