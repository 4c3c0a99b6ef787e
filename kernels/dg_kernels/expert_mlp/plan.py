"""The launches of `expert_mlp`."""

from __future__ import annotations

import functools
from collections.abc import Mapping

import torch
from torch import Tensor

from dg_kernels.configurations import Tile, tile_for
from dg_kernels.expert_mlp.kernel import down_product, gate_up_product, sort_pairs
from dg_kernels.launching import Argument, Launch, blocks, device_name, launch, padded
from dg_kernels.quantised.packed import PackedWeight
from dg_kernels.quantised.plan import kind_of, read_as, stored_as
from dg_kernels.quantised.rows import Operand, RoundedRows

_SORTED_AT_ONCE, _COMPARED_AT_ONCE = 16, 256


def plan(
    x: Operand,
    gate_up: Tensor | PackedWeight,
    down: Tensor | PackedWeight,
    index: Tensor,
    weight: Tensor,
    *,
    native: bool = False,
    tiles: Mapping[str, Tile] | None = None,
) -> tuple[list[Launch], Tensor]:
    """Three launches, and the [N, K, H] that they will fill; what `native` products read is rounded before.

    A tile is pairs of row and expert by features, both products' blocks of the same number of pairs. The grid has room
    for the worst routing, so that nothing is read back from the device; programs without a block return at once. The
    sort compares every pair with every other: right for canvases and chunks of a prefix, not for 100,000 rows.
    """
    values = x.values if isinstance(x, RoundedRows) else x
    if tiles is None:
        family = f"expert_mlp/{kind_of(gate_up, native=native)}"
        tiles = {name: tile_for(f"{family}/{name}", device_name(values)) for name in ("gate_up", "down")}
    gate_up_tile, down_tile = tiles["gate_up"], tiles["down"]
    if gate_up_tile.rows != down_tile.rows:
        raise ValueError(f"both tiles of expert_mlp must have as many rows, not {gate_up_tile.rows}, {down_tile.rows}")
    (rows, hidden), (experts, _, width), chosen = x.shape, down.shape, index.shape[1]
    pairs, index = rows * chosen, index.contiguous()
    places = padded(experts + 1, 16)
    most = min(pairs, experts) + pairs // gate_up_tile.rows
    order = index.new_empty(pairs, dtype=torch.int32)
    first_pair, first_block = index.new_empty(2, experts + 1, dtype=torch.int32)
    inner, outputs = (values.new_empty(pairs, length, dtype=x.dtype) for length in (width, hidden))
    shared: dict[str, Argument] = {
        "order": order,
        "first_pair": first_pair,
        "first_block": first_block,
        "experts": experts,
    }
    sizes: dict[str, Argument] = {"hidden": hidden, "width": width}
    read, kept = read_as("x", x, native=native), read_as("inner", inner, native=native)
    gate_up_arguments = {**shared, **sizes, **read.arguments, "inner": inner, "chosen": chosen}
    product = functools.partial(_product, places=places, native=native)
    down_arguments = {**shared, **sizes, **kept.arguments, "weight": weight.contiguous(), "outputs": outputs}
    sort = Launch(
        sort_pairs,
        (blocks(pairs, _SORTED_AT_ONCE) + 1,),
        {**shared, "index": index, "pair_count": pairs},
        {"size": _SORTED_AT_ONCE, "chunk": _COMPARED_AT_ONCE, "rows": gate_up_tile.rows, "padded": places},
        warps=4,
        stages=1,
    )
    return [
        sort,
        *read.before,
        product(gate_up_product, "gate_up", gate_up, gate_up_arguments, gate_up_tile, (most, width)),
        *kept.before,
        product(down_product, "down", down, down_arguments, down_tile, (most, hidden)),
    ], outputs.view(rows, chosen, hidden)


def _product(
    kernel: object,
    name: str,
    matrix: Tensor | PackedWeight,
    arguments: Mapping[str, Argument],
    tile: Tile,
    results: tuple[int, int],
    *,
    places: int,
    native: bool,
) -> Launch:
    """A product's launch with its weight under `name`: blocks by features."""
    stored = stored_as(name, matrix, tile, native=native)
    return launch(
        kernel,
        (results[0], blocks(results[1], tile.columns)),
        {**arguments, **stored.arguments},
        tile,
        rows=tile.rows,
        columns=tile.columns,
        padded=places,
        **stored.constants,
    )
