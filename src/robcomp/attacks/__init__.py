"""Adversarial attacks, one a file, all called as `x_adv = attack(model, x, y, generator)`."""

from robcomp.attacks.base import ATTACKS, Attack, ThreatModel, adversary_view
from robcomp.attacks.fgsm import FGSM
from robcomp.attacks.pgd import PGD
from robcomp.attacks.suite import SuiteConfig

__all__ = ["ATTACKS", "FGSM", "PGD", "Attack", "SuiteConfig", "ThreatModel", "adversary_view"]
