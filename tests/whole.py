"""Whether every combination of choices is tried, as `make test-combinations` does, or each pair of them once."""

import os

PRODUCT = "ROBCOMP_COMBINATIONS" in os.environ
