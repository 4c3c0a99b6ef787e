"""The launches of `packed_linears`."""

from __future__ import annotations

from torch import Tensor

from dg_kernels.configurations import Tile, tile_for
from dg_kernels.launching import Launch, blocks, device_name, launch
from dg_kernels.packed_linear.kernel import linear_product
from dg_kernels.quantised.packed import PackedWeight
from dg_kernels.quantised.plan import kind_of, rounded, stored_as


def plan(
    x: Tensor, *weights: PackedWeight, native: bool = False, tile: Tile | None = None
) -> tuple[list[Launch], list[Tensor]]:
    """A launch for each weight, before them one that rounds the rows of `x` if products are `native`, and the results.

    A tile is rows of `x` by features. Blocks of rows of the same features follow one another: their weight is in the
    cache then.
    """
    flat = x.contiguous().view(-1, x.shape[-1])
    rows = rounded(flat) if native else None
    read = {"x": flat, "row_scale": flat} if rows is None else {"x": rows.values, "row_scale": rows.scale}
    launches, results = [] if rows is None else [rows.launch], []
    for weight in weights:
        width, length = weight.shape
        results.append(x.new_empty(*x.shape[:-1], width))
        own = tile or tile_for(f"packed_linear/{kind_of(weight, native=native)}", device_name(x))
        stored = stored_as("weight", weight, own, native=native)
        sizes = {"count": len(flat), "width": width, "length": length}
        arguments = {**read, "result": results[-1], **sizes, **stored.arguments}
        grid = blocks(len(flat), own.rows), blocks(width, own.columns)
        cut = {"rows": own.rows, "columns": own.columns, **stored.constants}
        launches.append(launch(linear_product, grid, arguments, own, **cut))
    return launches, results
