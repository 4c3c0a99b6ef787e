"""The launches of `vocabulary_head`."""

from __future__ import annotations

import torch
from torch import Tensor

from dg_kernels.configurations import Tile, tile_for
from dg_kernels.launching import Argument, Launch, blocks, device_name, launch
from dg_kernels.vocabulary_head import VocabularyStatistics
from dg_kernels.vocabulary_head.kernel import merge_tiles, tile_statistics

_MERGED_AT_ONCE = 2048
"""Tiles that a program of the merging kernel holds: 16 numbers a thread."""
_MERGE_WARPS = 4


def plan(
    hidden: Tensor,
    weight: Tensor,
    cap: float,
    temperature: Tensor,
    uniform: Tensor,
    *,
    keep_logits: bool = False,
    tile: Tile | None = None,
) -> tuple[list[Launch], VocabularyStatistics]:
    """Two launches, and the tensors that they will fill; a tile is rows of `hidden` by tokens."""
    tile = tile or tile_for("vocabulary_head", device_name(hidden))
    (rows, width), vocabulary = hidden.shape, weight.shape[0]
    row_blocks, tiles = blocks(rows, tile.rows), blocks(vocabulary, tile.columns)
    temperature, uniform = temperature.float().contiguous(), uniform.float().contiguous()
    padded = max(16, 1 << (tiles - 1).bit_length())
    merged = max(1, _MERGED_AT_ONCE // padded)
    real = hidden.new_empty(3, rows, dtype=torch.float32)
    whole = hidden.new_empty(2, rows, dtype=torch.int64)
    logits = hidden.new_empty(rows, vocabulary) if keep_logits else None
    sums = hidden.new_empty(3, row_blocks * tile.rows, tiles, dtype=torch.float32)
    tokens = hidden.new_empty(2, row_blocks * tile.rows, tiles, dtype=torch.int32)
    head: dict[str, Argument] = {
        "hidden": hidden.contiguous(),
        "weight": weight.contiguous(),
        "logits": hidden if logits is None else logits,
        "temperature": temperature,
        "uniform": uniform,
        "sums": sums,
        "tokens": tokens,
        "row_count": rows,
        "vocabulary": vocabulary,
        "width": width,
        "cap": cap,
    }
    found = VocabularyStatistics(whole[0], real[0], real[1], whole[1], real[2], logits)
    merge: dict[str, Argument] = {
        "sums": sums,
        "tokens": tokens,
        "uniform": uniform,
        "argmax": found.argmax,
        "confidence": found.confidence,
        "entropy": found.entropy,
        "sample": found.sample,
        "normaliser": found.log_normaliser,
        "row_count": rows,
        "tiles": tiles,
        "plane": row_blocks * tile.rows * tiles,
    }
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
            keep=keep_logits,
        ),
        Launch(
            merge_tiles,
            (blocks(rows, merged),),
            merge,
            {"rows": merged, "padded": padded},
            warps=_MERGE_WARPS,
            stages=1,
        ),
    ], found
