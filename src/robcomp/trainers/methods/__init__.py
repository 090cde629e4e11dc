"""The methods, each a file; all register here."""

from robcomp.registry import import_modules
from robcomp.trainers.method import METHODS

import_modules(__name__, __path__)

__all__ = ["METHODS"]
