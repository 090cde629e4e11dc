"""Whether all combinations of choices are tried, as `make test-combinations` does, or some of them."""

import os

PRODUCT = "ROBCOMP_COMBINATIONS" in os.environ
