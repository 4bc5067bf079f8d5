"""Numbers on the command line: within bounds, and numbers."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from click import Context, Parameter


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
        return number
