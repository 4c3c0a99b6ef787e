"""What the options of several commands share."""

from __future__ import annotations

import math
from typing import Any

import click

THREADS = click.IntRange(1, 1024)
"""Torch ends the process where it is told of a hundred thousand."""


class Number(click.FloatRange):
    """A number within a range; `nan`, which lies in each of click's, lies in none."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Read the number; refuse what is none."""
        number = float(super().convert(value, param, ctx))
        if math.isnan(number):
            self.fail(f"{value!r} is no number.", param, ctx)
        return number


dtype_option = click.option(
    "--dtype",
    type=click.Choice(["bfloat16", "float32", "int8"]),
    help="Of the model's products. Default: what multiplies fastest here.",
)
