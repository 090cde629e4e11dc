"""Networks, one architecture a file: logits = model(x), x in [0, 1]; all register here."""

from robcomp.models.base import MODELS
from robcomp.registry import import_modules

import_modules(__name__, __path__)

__all__ = ["MODELS"]
