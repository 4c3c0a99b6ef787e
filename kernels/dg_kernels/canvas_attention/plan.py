"""The launch of `canvas_attention`."""

from __future__ import annotations

from torch import Tensor

from dg_kernels.canvas_attention import Causal, VisibleRuns
from dg_kernels.canvas_attention.kernel import attend
from dg_kernels.configurations import Tile, tile_for
from dg_kernels.launching import Argument, Launch, blocks, device_name, launch

_PART = 256
"""The widest part of a value that one program makes."""


def plan(
    query: Tensor,
    keys: Tensor,
    values: Tensor,
    shown: VisibleRuns | Causal | None = None,
    *,
    tile: Tile | None = None,
    part: int = _PART,
) -> tuple[list[Launch], Tensor]:
    """One launch, and the [B, C, Hq * D] that it will fill.

    A tile is queries (of all heads that share keys) by keys; its depth is how much of the head's width is multiplied at
    once. Batch, heads and rows may have any strides; the width must be contiguous.
    """
    (batch, heads, canvas, width), (key_heads, key_count) = query.shape, keys.shape[1:3]
    tile = tile or tile_for(f"canvas_attention/{width}", device_name(query))
    query, keys, values = (one if one.stride(-1) == 1 else one.contiguous() for one in (query, keys, values))
    part = min(width, part)
    mixed = query.new_empty(batch, canvas, heads * width)
    arguments: dict[str, Argument] = {
        "query": query,
        "keys": keys,
        "values": values,
        "mixed": mixed,
        # Without runs something that is there and will not be read.
        "prefix": shown.prefix.contiguous() if isinstance(shown, VisibleRuns) else query,
        "canvas_slots": shown.canvas.contiguous() if isinstance(shown, VisibleRuns) else query,
        "key_heads": key_heads,
        "group": heads // key_heads,
        "canvas": canvas,
        "key_count": key_count,
        "places": shown.places if isinstance(shown, VisibleRuns) else key_count,
        "window": (shown.window if isinstance(shown, Causal) else None) or key_count,
    }
    for name, one in (("query", query), ("key", keys), ("value", values)):
        strides = zip(("batch", "head", "row"), one.stride()[:3], strict=True)
        arguments |= {f"{name}_{axis}": stride for axis, stride in strides}
    grid = (blocks(heads // key_heads * canvas, tile.rows), key_heads * (width // part), batch)
    return [
        launch(
            attend,
            grid,
            arguments,
            tile,
            rows=tile.rows,
            columns=tile.columns,
            depth=min(tile.depth, width),
            width=width,
            part=part,
            shown={VisibleRuns: "runs", Causal: "causal"}.get(type(shown), "all"),
        )
    ], mixed
