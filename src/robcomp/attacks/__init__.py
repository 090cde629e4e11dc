"""Adversarial attacks, one a file, all called as `x_adv = attack(model, x, y, generator)`; all register here."""

from robcomp.attacks.base import ATTACKS
from robcomp.registry import import_modules

import_modules(__name__, __path__)

__all__ = ["ATTACKS"]
