"""The launches of `vocabulary_head`."""

from __future__ import annotations

import torch
from torch import Tensor

from dg_kernels.configurations import Tile, tile_for
from dg_kernels.launching import Argument, Launch, blocks, device_name, launch, padded
from dg_kernels.sampling import SamplingStatistics
from dg_kernels.vocabulary_head import BANNED, AllowedTokens, LogitBias
from dg_kernels.vocabulary_head.kernel import merge_tiles, scale_tiles, tile_statistics

_MERGED_AT_ONCE = 2048
"""Tiles that a program of the merging kernel holds: 16 numbers a thread."""
_SCALED_AT_ONCE = 32
"""Rows of a tile that a program of the scaling kernel holds."""
_WARPS = 4
"""Of both."""


def plan(
    hidden: Tensor,
    weight: Tensor,
    cap: float,
    temperature: Tensor,
    uniform: Tensor,
    bias: LogitBias | None = None,
    allowed: AllowedTokens | None = None,
    *,
    tile: Tile | None = None,
) -> tuple[list[Launch], SamplingStatistics]:
    """Three launches, and the tensors that they will fill; a tile is rows of `hidden` by tokens."""
    tile = tile or tile_for("vocabulary_head", device_name(hidden))
    (rows, width), vocabulary = hidden.shape, weight.shape[0]
    row_blocks, tiles = blocks(rows, tile.rows), blocks(vocabulary, tile.columns)
    temperature, uniform = temperature.float().contiguous(), uniform.float().contiguous()
    places = padded(tiles, 16)
    merged = max(1, _MERGED_AT_ONCE // places)
    confidence, entropy, normaliser = hidden.new_empty(3, rows, dtype=torch.float32)
    argmax, sample = hidden.new_empty(2, rows, dtype=torch.int64)
    masses = hidden.new_empty(rows, vocabulary)
    sums = hidden.new_empty(3, row_blocks * tile.rows, tiles, dtype=torch.float32)
    tokens = hidden.new_empty(2, row_blocks * tile.rows, tiles, dtype=torch.int32)
    counts: dict[str, Argument] = {"row_count": rows, "vocabulary": vocabulary}
    head: dict[str, Argument] = (
        counts
        | _rules(bias, allowed, hidden)
        | {
            "hidden": hidden.contiguous(),
            "weight": weight.contiguous(),
            "masses": masses,
            "temperature": temperature,
            "uniform": uniform,
            "sums": sums,
            "tokens": tokens,
            "width": width,
            "cap": cap,
        }
    )
    merge: dict[str, Argument] = {
        "sums": sums,
        "tokens": tokens,
        "uniform": uniform,
        "argmax": argmax,
        "confidence": confidence,
        "entropy": entropy,
        "sample": sample,
        "normaliser": normaliser,
        "row_count": rows,
        "tiles": tiles,
        "plane": row_blocks * tile.rows * tiles,
    }
    scale: dict[str, Argument] = counts | {"masses": masses, "sums": sums, "normaliser": normaliser, "tiles": tiles}
    merging: dict[str, int | str] = {"rows": merged, "padded": places}
    scaling: dict[str, int | str] = {"rows": _SCALED_AT_ONCE, "columns": tile.columns}
    return [
        launch(
            tile_statistics,
            (row_blocks, tiles),
            head,
            tile,
            rows=tile.rows,
            columns=tile.columns,
            depth=tile.depth,
            whole=width % tile.depth == 0,
            banned=int(BANNED),
        ),
        Launch(merge_tiles, (blocks(rows, merged),), merge, merging, warps=_WARPS, stages=1),
        Launch(scale_tiles, (blocks(rows, _SCALED_AT_ONCE), tiles), scale, scaling, warps=_WARPS, stages=1),
    ], SamplingStatistics(argmax, confidence, entropy, sample, masses)


def _rules(bias: LogitBias | None, allowed: AllowedTokens | None, hidden: Tensor) -> dict[str, Argument]:
    """What rows are told; a bias of nothing, and the number of no mask, where they are told nothing."""
    rows = hidden.shape[0]
    if bias is None:
        bias = LogitBias(hidden.new_zeros(rows, dtype=torch.int64), hidden.new_zeros(rows, dtype=torch.float32))
    if allowed is None:
        number = torch.full((rows,), -1, device=hidden.device)
        allowed = AllowedTokens(hidden.new_zeros(1, 1, dtype=torch.bool), number)
    return {
        "favoured": bias.token.contiguous(),
        "nats": bias.nats.float().contiguous(),
        "masks": allowed.masks.contiguous().view(torch.uint8),
        "number": allowed.number.contiguous(),
    }
