"""What the options of several commands share."""

from __future__ import annotations

import math
from typing import Any

import click

THREADS = click.IntRange(1, 1024)
"""Torch ends the process where it is told of a hundred thousand."""
SEED = click.IntRange(0, 2**63 - 1)
"""What torch and numpy both take."""


class Number(click.FloatRange):
    """A finite number within a range; `nan` lies in each of click's, and `inf` in those without an upper end."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Read the number; refuse what is none."""
        number = float(super().convert(value, param, ctx))
        if not math.isfinite(number):
            self.fail(f"{value!r} is no {'finite ' if math.isinf(number) else ''}number.", param, ctx)
        return number


dtype_option = click.option(
    "--dtype",
    type=click.Choice(["bfloat16", "float32", "int8"]),
    help="Of the model's products. Default: what multiplies fastest here.",
)
