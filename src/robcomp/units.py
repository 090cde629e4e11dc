"""The one place where eps and other fractions of the [0, 1] range are read."""

import math
from fractions import Fraction as Ratio

from robcomp.errors import UserError

Fraction = int | float | str  # what a configuration may hold: 0.031, "8/255"


def fraction(value: Fraction, name: str, *, low: float = 0.0, high: float = math.inf, open_low: bool = False) -> float:
    """`value` ("8/255", "0.1" or a number) as a float within [low, high]; `open_low` excludes `low` itself.

    Raises UserError naming the field, what was given and what is allowed.
    """
    try:
        if isinstance(value, bool):
            raise TypeError
        number = float(Ratio(value.replace(" ", ""))) if isinstance(value, str) else float(value)
    except (ValueError, ZeroDivisionError, OverflowError, TypeError, AttributeError):
        raise UserError(f"{name}={value!r} is not a number; write a decimal or a fraction such as 8/255.") from None
    if not math.isfinite(number) or number < low or number > high or (open_low and number == low):
        left = "(" if open_low else "["
        right = f"{high:g}]" if math.isfinite(high) else "inf)"
        raise UserError(f"{name}={value} is out of range; allowed is {left}{low:g}, {right}.")
    return number
