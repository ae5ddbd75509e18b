"""Times that a command line gives."""

from __future__ import annotations

from math import isfinite, nan
from typing import Any

import click


class Seconds(click.FloatRange):
    """A finite number of seconds above 0, or from `least` to `most`; anything else is refused with what to give.

    Args:
        least: The shortest time, in seconds; None takes any above 0.
        most: The longest, in seconds; None takes any that is finite.
    """

    def __init__(self, least: float | None = None, most: float | None = None) -> None:
        super().__init__(min=least or 0, max=most, min_open=least is None)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """The number.

        Raises:
            click.BadParameter: It is none, is not finite, or is out of the range.
        """
        try:
            seconds = float(value)
        except ValueError:
            seconds = nan
        bottom, top = self.min or 0, self.max
        above = seconds > bottom or (seconds == bottom and not self.min_open)
        if isfinite(seconds) and above and (top is None or seconds <= top):
            return seconds
        wanted = f"above {bottom:g}" if top is None else f"from {bottom:g} to {top:g}"
        remedy = f"Give a number of seconds {wanted}, such as {10.0 if top is None else min(10.0, top):g}"
        if param is not None and not isinstance(param.default, float):
            remedy += f", or leave {param.opts[0]} out"
        return self.fail(f"{str(value)!r} is no such time. {remedy}.", param, ctx)
