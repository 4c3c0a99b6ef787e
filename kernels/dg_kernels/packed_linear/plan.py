"""The launch of `packed_linear`."""

from __future__ import annotations

from torch import Tensor

from dg_kernels.configurations import Tile, tile_for
from dg_kernels.launching import Launch, blocks, device_name, launch
from dg_kernels.packed_linear.kernel import linear_product
from dg_kernels.quantised.packed import PackedWeight
from dg_kernels.quantised.plan import stored_as


def plan(x: Tensor, weight: PackedWeight, *, tile: Tile | None = None) -> tuple[list[Launch], Tensor]:
    """One launch, and the [..., N] that it will fill.

    A tile is rows of `x` by features. Blocks of rows of the same features follow one another: their weight is in the
    cache then.
    """
    tile = tile or tile_for("packed_linear", device_name(x))
    width, length = weight.shape
    result = x.new_empty(*x.shape[:-1], width)
    flat = x.contiguous().view(-1, length)
    stored = stored_as("weight", weight, tile)
    sizes = {"count": len(flat), "width": width, "length": length}
    grid = blocks(len(flat), tile.rows), blocks(width, tile.columns)
    arguments = {"x": flat, "result": result, **sizes, **stored.arguments}
    return [
        launch(linear_product, grid, arguments, tile, rows=tile.rows, columns=tile.columns, **stored.constants)
    ], result
