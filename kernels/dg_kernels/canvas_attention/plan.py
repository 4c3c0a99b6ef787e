"""The launch of `canvas_attention`."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from dg_kernels.canvas_attention import Causal, CausalRuns, VisibleRuns
from dg_kernels.canvas_attention.kernel import attend, merge_splits
from dg_kernels.configurations import Tile, tile_for
from dg_kernels.launching import Argument, Launch, blocks, device_name, launch, processors

_PART = 256
"""The widest part of a value that one program makes."""
_LEAST_TILES, _MOST_SPLITS = 4, 8
_MERGE_WARPS = 4


Rule = VisibleRuns | Causal | CausalRuns
_NAMES = {VisibleRuns: "runs", Causal: "causal", CausalRuns: "causal runs"}


def plan(
    query: Tensor,
    keys: Tensor,
    values: Tensor,
    shown: Rule | None = None,
    *,
    tile: Tile | None = None,
    part: int = _PART,
    splits: int | None = None,
) -> tuple[list[Launch], Tensor]:
    """One launch, or two where several programs share the keys of a row, and the [B, C, Hq * D] that they will fill.

    A tile is queries (of all heads that share keys) by keys; its depth is how much of the head's width is multiplied at
    once. Batch, heads and rows may have any strides; the width must be contiguous. The number of `splits` is such that
    all processors have work, if nobody says otherwise.
    """
    (batch, heads, canvas, width), (key_heads, key_count) = query.shape, keys.shape[1:3]
    tile = tile or tile_for(f"canvas_attention/{width}", device_name(query))
    query, keys, values = (one if one.stride(-1) == 1 else one.contiguous() for one in (query, keys, values))
    part = min(width, part)
    mixed = query.new_empty(batch, canvas, heads * width)
    programs = blocks(heads // key_heads * canvas, tile.rows), key_heads * (width // part), batch
    if splits is None:
        splits = _splits(programs, blocks(key_count, tile.columns), processors(query))
    parts, sums = mixed, mixed
    if splits > 1:
        lines = batch * canvas * heads
        parts = query.new_empty(splits, lines, width, dtype=torch.float32)
        sums = query.new_empty(splits, 2, lines, dtype=torch.float32)
    arguments: dict[str, Argument] = {
        "query": query,
        "keys": keys,
        "values": values,
        "mixed": parts,
        "sums": sums,
        "key_heads": key_heads,
        "group": heads // key_heads,
        "canvas": canvas,
        "key_count": key_count,
        **_lengths(query, key_count, shown),
    }
    for name, one in (("query", query), ("key", keys), ("value", values)):
        strides = zip(("batch", "head", "row"), one.stride()[:3], strict=True)
        arguments |= {f"{name}_{axis}": stride for axis, stride in strides}
    launches = [
        launch(
            attend,
            (programs[0] * splits, *programs[1:]),
            arguments,
            tile,
            rows=tile.rows,
            columns=tile.columns,
            depth=min(tile.depth, width),
            width=width,
            part=part,
            shown="all" if shown is None else _NAMES[type(shown)],
            splits=splits,
        )
    ]
    if splits > 1:
        merge: dict[str, Argument] = {"parts": parts, "sums": sums, "mixed": mixed, "lines": lines}
        sizes: dict[str, int | str] = {"splits": splits, "width": width}
        launches.append(Launch(merge_splits, (lines,), merge, sizes, warps=_MERGE_WARPS, stages=1))
    return launches, mixed


def _lengths(query: Tensor, key_count: int, shown: Rule | None) -> dict[str, Argument]:
    """What a rule says; where it says nothing, something that is there and will not be read."""
    found: dict[str, Argument] = {"prefix": query, "canvas_slots": query, "places": key_count, "apart": 0}
    if isinstance(shown, VisibleRuns | CausalRuns):
        found |= {"prefix": shown.prefix.contiguous(), "places": shown.places, "apart": shown.apart}
    if isinstance(shown, VisibleRuns):
        found |= {"canvas_slots": shown.canvas.contiguous()}
    window = shown.window if isinstance(shown, Causal | CausalRuns) else None
    return {**found, "window": window or key_count}


def _splits(programs: tuple[int, int, int], tiles: int, processors: int) -> int:
    """A power of two: as many as fit beside one another, and none with fewer than a few tiles of keys."""
    most = min(processors // math.prod(programs), tiles // _LEAST_TILES, _MOST_SPLITS)
    return 1 << max(most, 1).bit_length() - 1
