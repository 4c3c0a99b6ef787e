"""The launches of `soft_embedding` that leaves something out."""

from __future__ import annotations

import torch
from torch import Tensor

from dg_kernels.configurations import Tile, tile_for
from dg_kernels.launching import Argument, Launch, blocks, device_name, launch, padded, processors
from dg_kernels.soft_embedding import MOST_KEPT
from dg_kernels.soft_embedding.kernel import add_parts, find_kept, list_unsure, sum_kept, unsure_product

_SCANNED_AT_ONCE = 2048
"""Probabilities that a program holds: 16 a thread."""
_GATHERED_AT_ONCE = 16
"""Embeddings that a program holds a part of."""
_WARPS = 4
"""Of all but the product."""


def plan(
    probabilities: Tensor, weight: Tensor, dropped: float, *, tile: Tile | None = None
) -> tuple[list[Launch], Tensor]:
    """Five launches, and the [R, H] that they will fill; a tile is rows that are not sure by columns of the weight."""
    tile = tile or tile_for("soft_embedding", device_name(weight))
    (rows, vocabulary), width = probabilities.shape, weight.shape[1]
    row_blocks, column_blocks = blocks(rows, tile.rows), blocks(width, tile.columns)
    wanted = max(1, processors(weight) // max(1, row_blocks * column_blocks))
    share = blocks(blocks(vocabulary, wanted), tile.depth) * tile.depth
    shares = blocks(vocabulary, share)
    result = weight.new_empty(rows, width)
    kept, order, count = (weight.new_empty(size, dtype=torch.int32) for size in (rows, rows, 1))
    tokens = weight.new_empty(rows, MOST_KEPT, dtype=torch.int32)
    parts = weight.new_empty(shares, rows, width, dtype=torch.float32)
    read: dict[str, Argument] = {
        "probabilities": probabilities.contiguous(),
        "weight": weight.contiguous(),
        "vocabulary": vocabulary,
        "width": width,
    }
    found: dict[str, Argument] = {"tokens": tokens, "kept": kept}
    listed: dict[str, Argument] = {"order": order, "count": count}
    summed: dict[str, Argument] = {"parts": parts, "row_count": rows, "width": width}
    scan: dict[str, Argument] = {"least": dropped / MOST_KEPT, "dropped": dropped}
    scan |= found | {name: read[name] for name in ("probabilities", "vocabulary")}
    gathered: dict[str, int | str] = {"most": MOST_KEPT, "columns": tile.columns, "depth": _GATHERED_AT_ONCE}
    return [
        _small(find_kept, (rows,), scan, {"most": MOST_KEPT, "columns": _SCANNED_AT_ONCE}),
        _small(sum_kept, (rows, column_blocks), read | found | {"result": result}, gathered),
        _small(list_unsure, (1,), listed | {"kept": kept, "row_count": rows}, {"padded": padded(rows, 16)}),
        launch(
            unsure_product,
            (row_blocks, column_blocks, shares),
            read | listed | summed | {"share": share},
            tile,
            rows=tile.rows,
            columns=tile.columns,
            depth=tile.depth,
        ),
        _small(
            add_parts,
            (rows, column_blocks),
            listed | summed | {"result": result, "shares": shares},
            {"columns": tile.columns},
        ),
    ], result


def _small(kernel: object, grid: tuple[int, ...], arguments: dict[str, Argument], cut: dict[str, int | str]) -> Launch:
    return Launch(kernel, grid, arguments, cut, warps=_WARPS, stages=1)
