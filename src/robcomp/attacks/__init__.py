"""Adversarial attacks, one a file, all called as `x_adv = attack(model, x, y, generator)`."""

from robcomp.attacks.base import ATTACKS, Attack, MinimumNorm, ThreatModel, adversary_view
from robcomp.attacks.fgsm import FGSM
from robcomp.attacks.pgd import PGD
from robcomp.attacks.suite import SuiteConfig
from robcomp.attacks.wrm import WRM

__all__ = ["ATTACKS", "FGSM", "PGD", "WRM", "Attack", "MinimumNorm", "SuiteConfig", "ThreatModel", "adversary_view"]
