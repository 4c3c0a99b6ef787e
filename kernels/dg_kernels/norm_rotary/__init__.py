"""What attention does to queries, keys and values before they meet: a norm of each head, and the rotary embedding."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from dg_kernels.launching import run, served
from dg_kernels.rms_norm import rms_norm
from dg_kernels.rotary import rotary

__all__ = ["Heads", "norm_rotary"]


class Heads(NamedTuple):
    """What attention reads."""

    query: Tensor
    """[B, heads, T, D]."""
    key: Tensor
    """[B, key heads, T, D]."""
    value: Tensor
    """[B, key heads, T, D]."""


def norm_rotary(
    raw: Heads,
    query_weight: Tensor,
    key_weight: Tensor,
    cosines: Tensor,
    sines: Tensor,
    eps: float,
    places: tuple[Tensor, Tensor] | None = None,
) -> Heads:
    """`rotary` of `rms_norm` of queries and keys, and `rms_norm` of values; on a GPU in one pass, rounded once.

    Args:
        raw: as they were projected, [B, T, heads, D] each; the value may be the key.
        query_weight: [D].
        key_weight: [D].
        cosines: [T, D] or [B, T, D], from `rotary_angles`, in the type of `raw`.
        sines: likewise.
        eps: added to the mean square.
        places: where keys and values are written to, [B, key heads, T, D] each; None makes room for them.

    Returns:
        In the type of `raw`; keys and values are those places.

    Raises:
        ValueError: the weights or the angles are not D wide, or the places are of another shape.
    """
    width = raw.query.shape[-1]
    for one in (query_weight, key_weight, cosines, sines):
        if one.shape[-1] != width:
            raise ValueError(f"weights and angles must be {width} wide, not {one.shape[-1]}")
    batch, count, heads, _ = raw.key.shape
    for place in places or ():
        if place.shape != (batch, heads, count, width):
            raise ValueError(f"places must be {[batch, heads, count, width]}, not {list(place.shape)}")
    if served(*raw, query_weight, key_weight, cosines, sines):
        from dg_kernels.norm_rotary.plan import plan

        launches, found = plan(raw, query_weight, key_weight, cosines, sines, eps, places)
        run(launches)
        return found
    query = rotary(rms_norm(raw.query, query_weight, eps), cosines, sines)
    key = rotary(rms_norm(raw.key, key_weight, eps), cosines, sines)
    found = Heads(*(one.transpose(1, 2) for one in (query, key, rms_norm(raw.value, None, eps))))
    return found if places is None else Heads(found.query, places[0].copy_(found.key), places[1].copy_(found.value))
