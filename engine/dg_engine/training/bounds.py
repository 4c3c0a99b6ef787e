"""What a number of a plan may be."""

from __future__ import annotations

from math import inf


def bounded(
    name: str, value: float, *, least: float = -inf, most: float = inf, above: float = -inf, below: float = inf
) -> None:
    """Refuse a number that is not finite, or not within its bounds.

    Raises:
        ValueError: names the number and its bounds.
    """
    if least <= value <= most and above < value < below:
        return
    bounds = {"at least": least, "more than": above, "at most": most, "less than": below}
    wanted = " and ".join(f"{word} {bound:g}" for word, bound in bounds.items() if abs(bound) < inf)
    raise ValueError(f"{name}: expected {wanted or 'a finite number'}, found {value:g}")
