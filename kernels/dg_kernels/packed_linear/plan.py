"""The launch of `packed_linear`."""

from __future__ import annotations

from torch import Tensor

from dg_kernels.configurations import Tile, tile_for
from dg_kernels.launching import Launch, blocks, device_name, launch
from dg_kernels.packed_linear.kernel import linear_product
from dg_kernels.quantised.packed import PackedWeight
from dg_kernels.quantised.plan import rounded, stored_as


def plan(
    x: Tensor, weight: PackedWeight, *, native: bool = False, tile: Tile | None = None
) -> tuple[list[Launch], Tensor]:
    """A launch, before it one that rounds the rows of `x` if products are `native`, and the [..., N] to be filled.

    A tile is rows of `x` by features. Blocks of rows of the same features follow one another: their weight is in the
    cache then.
    """
    tile = tile or tile_for("packed_linear/native" if native else "packed_linear", device_name(x))
    width, length = weight.shape
    result = x.new_empty(*x.shape[:-1], width)
    flat = x.contiguous().view(-1, length)
    stored = stored_as("weight", weight, tile, native=native)
    sizes = {"count": len(flat), "width": width, "length": length}
    grid = blocks(len(flat), tile.rows), blocks(width, tile.columns)
    rows = rounded(flat) if native else None
    read = {"x": flat, "row_scale": flat} if rows is None else {"x": rows.values, "row_scale": rows.scale}
    arguments = {**read, "result": result, **sizes, **stored.arguments}
    product = launch(linear_product, grid, arguments, tile, rows=tile.rows, columns=tile.columns, **stored.constants)
    return [product] if rows is None else [rows.launch, product], result
