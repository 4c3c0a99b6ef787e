"""The launches of `packed_linear`."""

from __future__ import annotations

from torch import Tensor

from dg_kernels.configurations import Tile, tile_for
from dg_kernels.launching import Launch, blocks, device_name, launch
from dg_kernels.packed_linear.kernel import linear_product
from dg_kernels.quantised.packed import PackedWeight
from dg_kernels.quantised.plan import kind_of, read_as, stored_as
from dg_kernels.quantised.rows import Operand, RoundedRows


def plan(
    x: Operand, weight: PackedWeight, *, native: bool = False, tile: Tile | None = None
) -> tuple[list[Launch], Tensor]:
    """One launch, before it one that rounds the rows of `x` if products are `native` and they are not yet; the result.

    A tile is rows of `x` by features. Blocks of rows of the same features follow one another: their weight is in the
    cache then.
    """
    (*outer, length), width = x.shape, weight.shape[0]
    values, dtype = (x.values, x.dtype) if isinstance(x, RoundedRows) else (x, x.dtype)
    tile = tile or tile_for(f"packed_linear/{kind_of(weight, native=native)}", device_name(values))
    read = read_as("x", x if isinstance(x, RoundedRows) else x.reshape(-1, length), native=native)
    result, count = values.new_empty(*outer, width, dtype=dtype), values.numel() // length
    stored = stored_as("weight", weight, tile, native=native)
    sizes = {"count": count, "width": width, "length": length}
    arguments = {**read.arguments, "result": result, **sizes, **stored.arguments}
    grid = blocks(count, tile.rows), blocks(width, tile.columns)
    cut = {"rows": tile.rows, "columns": tile.columns, **stored.constants}
    return [*read.before, launch(linear_product, grid, arguments, tile, **cut)], result
