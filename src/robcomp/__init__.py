"""robcomp: image classifiers that are adversarially robust and small, trained, packed, attacked and reported."""

__version__ = "0.1.0"
