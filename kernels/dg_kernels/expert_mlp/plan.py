"""The launches of `expert_mlp`."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from dg_kernels.configurations import Tile, tile_for
from dg_kernels.expert_mlp.kernel import down_product, gate_up_product, place_blocks, sort_pairs, sum_pairs
from dg_kernels.launching import Argument, Launch, blocks, device_name, launch, padded
from dg_kernels.quantised.packed import PackedWeight
from dg_kernels.quantised.plan import kind_of, rounded, stored_as

_SORTED_AT_ONCE, _COMPARED_AT_ONCE = 32, 128
_SUMMED_AT_ONCE = 1024


def plan(
    x: Tensor,
    gate_up: Tensor | PackedWeight,
    down: Tensor | PackedWeight,
    index: Tensor,
    weight: Tensor,
    *,
    native: bool = False,
    tiles: Mapping[str, Tile] | None = None,
) -> tuple[list[Launch], Tensor]:
    """Five launches, and the [N, H] that they will fill; two more round rows to e4m3 if products are `native`.

    A tile is pairs of row and expert by features, both products' blocks of the same number of pairs. The grid has room
    for the worst routing, so that nothing is read back from the device; programs without a block return at once. The
    sort compares every pair with every other: right for canvases and chunks of a prefix, not for 100,000 rows.
    """
    if tiles is None:
        family = f"expert_mlp/{kind_of(gate_up, native=native)}"
        tiles = {name: tile_for(f"{family}/{name}", device_name(x)) for name in ("gate_up", "down")}
    gate_up_tile, down_tile = tiles["gate_up"], tiles["down"]
    if gate_up_tile.rows != down_tile.rows:
        raise ValueError(f"both tiles of expert_mlp must have as many rows, not {gate_up_tile.rows}, {down_tile.rows}")
    (rows, hidden), (experts, _, width), chosen = x.shape, down.shape, index.shape[1]
    pairs, index, x = rows * chosen, index.contiguous(), x.contiguous()
    places = padded(experts + 1, 16)
    most = min(pairs, experts) + pairs // gate_up_tile.rows
    order = index.new_empty(pairs, dtype=torch.int32)
    first_pair, first_block = index.new_empty(2, experts + 1, dtype=torch.int32)
    inner, outputs, result = x.new_empty(pairs, width), x.new_empty(pairs, hidden), torch.empty_like(x)
    shared: dict[str, Argument] = {
        "order": order,
        "first_pair": first_pair,
        "first_block": first_block,
        "experts": experts,
        "hidden": hidden,
        "width": width,
    }
    read, kept = _operand("x", x, native=native), _operand("inner", inner, native=native)
    gate_up_arguments = shared | read.arguments | {"inner": inner, "chosen": chosen}
    product = functools.partial(_product, places=places, native=native)
    down_arguments = shared | kept.arguments | {"weight": weight.contiguous(), "outputs": outputs}
    return [
        Launch(
            sort_pairs,
            (blocks(pairs, _SORTED_AT_ONCE),),
            {"index": index, "order": order, "pair_count": pairs},
            {"size": _SORTED_AT_ONCE, "chunk": _COMPARED_AT_ONCE},
            warps=4,
            stages=1,
        ),
        Launch(
            place_blocks,
            (1,),
            {
                "index": index,
                "first_pair": first_pair,
                "first_block": first_block,
                "pair_count": pairs,
                "experts": experts,
            },
            {"rows": gate_up_tile.rows, "padded": places, "chunk": 64},
            warps=8,
            stages=1,
        ),
        *read.before,
        product(gate_up_product, "gate_up", gate_up, gate_up_arguments, gate_up_tile, (most, width)),
        *kept.before,
        product(down_product, "down", down, down_arguments, down_tile, (most, hidden)),
        Launch(
            sum_pairs,
            (rows, blocks(hidden, _SUMMED_AT_ONCE)),
            {"outputs": outputs, "result": result, "chosen": chosen, "hidden": hidden},
            {"columns": _SUMMED_AT_ONCE},
            warps=4,
            stages=1,
        ),
    ], result


class _Operand(NamedTuple):
    """The rows that a product reads."""

    arguments: dict[str, Argument]
    before: list[Launch]
    """What makes them."""


def _operand(name: str, rows: Tensor, *, native: bool) -> _Operand:
    """Rows as they are, the scale being something that is there and will not be read, or rounded to e4m3."""
    if not native:
        return _Operand({name: rows, "row_scale": rows}, [])
    found = rounded(rows)
    return _Operand({name: found.values, "row_scale": found.scale}, [found.launch])


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
