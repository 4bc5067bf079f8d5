"""Numbers on the command line: within bounds, and numbers."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Final

import click

if TYPE_CHECKING:
    from click import Context, Parameter


MOST: Final = 1e12
"""Where an option states no bound: no figure comes near, and products of larger ones end in infinity."""


class FloatRange(click.FloatRange):
    """Click's, which takes ``nan`` within any bounds and ``inf`` below none."""

    def convert(self, value: Any, param: Parameter | None, ctx: Context | None) -> float:
        """The number.

        Raises:
            BadParameter: not a finite number within the bounds; names the option.
        """
        number = float(super().convert(value, param, ctx))
        if not math.isfinite(number):
            self.fail(f"{value!r} is no finite number.", param, ctx)
        if self.max is None and abs(number) > MOST:
            self.fail(f"{value!r} is beyond {MOST:g}.", param, ctx)
        return number
