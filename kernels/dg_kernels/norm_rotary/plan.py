"""The launch of `norm_rotary`."""

from __future__ import annotations

from torch import Tensor

from dg_kernels.launching import Argument, Launch, blocks, padded
from dg_kernels.norm_rotary import Heads
from dg_kernels.norm_rotary.kernel import norm_and_turn

_PAIRS_AT_ONCE = 1024
"""That a program holds: 8 a thread."""


def plan(
    raw: Heads,
    query_weight: Tensor,
    key_weight: Tensor,
    cosines: Tensor,
    sines: Tensor,
    eps: float,
    places: tuple[Tensor, Tensor] | None = None,
) -> tuple[list[Launch], Heads]:
    """One launch, and what it will fill. Projections and angles may be parts of wider rows."""
    batch, slots, heads, width = raw.query.shape
    key_heads = raw.key.shape[2]
    query = raw.query.new_empty(batch, slots, heads, width)
    key, value = places or raw.key.new_empty(2, batch, slots, key_heads, width).transpose(2, 3)
    arguments: dict[str, Argument] = {
        "query_weight": query_weight.contiguous(),
        "key_weight": key_weight.contiguous(),
        "turned_query": query,
        "turned_key": key,
        "normed_value": value,
        "position_count": batch * slots,
        "slots": slots,
        "heads": heads,
        "key_heads": key_heads,
        "eps": eps,
    }
    turns = [_side_by_side(one.reshape(-1, width)) for one in (cosines, sines)]
    if turns[0].stride() != turns[1].stride():
        turns = [one.contiguous() for one in turns]
    arguments |= {"cosines": turns[0], "sines": turns[1], "angle_count": len(turns[0]), "angle_row": turns[0].stride(0)}
    for name, one in raw._asdict().items():
        rows = _side_by_side(one.flatten(0, 1))
        arguments |= {name: rows, f"{name}_row": rows.stride(0)}
    for name, one in (("key", key), ("value", value)):
        strides = zip(("batch", "head", "slot"), one.stride()[:3], strict=True)
        arguments |= {f"{name}_{axis}": stride for axis, stride in strides}
    half = width // 2
    filled = padded(half, 16)
    at_once = max(1, _PAIRS_AT_ONCE // filled)
    constants: dict[str, int | float | str] = {"half": half, "padded": filled, "rows": at_once}
    grid = blocks(batch * slots, at_once), heads + 2 * key_heads
    launches = [Launch(norm_and_turn, grid, arguments, constants, warps=4, stages=1)]
    return launches, Heads(query.transpose(1, 2), key, value)


def _side_by_side(rows: Tensor) -> Tensor:
    """[R, D] or [R, heads, D] with the numbers of a row side by side; a copy only where they are not."""
    return rows if rows.stride()[1:] in ((1,), (rows.shape[-1], 1)) else rows.contiguous()
