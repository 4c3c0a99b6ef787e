"""How a kernel is given weights and rows, whatever they are stored in."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, NamedTuple, overload

import torch
from torch import Tensor

from dg_kernels.configurations import Tile
from dg_kernels.launching import Argument, Launch, padded
from dg_kernels.quantised.kernel import round_rows
from dg_kernels.quantised.packed import PackedWeight
from dg_kernels.quantised.rows import LEAST_SCALE, Operand, RoundedRows


class Stored(NamedTuple):
    """What `stored_numbers` takes."""

    arguments: Mapping[str, Argument]
    constants: Mapping[str, int | str]


class Read(NamedTuple):
    """Rows that a product reads."""

    arguments: Mapping[str, Argument]
    before: list[Launch]
    """What makes them."""


def read_as(name: str, rows: Operand, *, native: bool) -> Read:
    """[R, K] under `name`, in e4m3 if products are `native`: then the scales are `row_scale`, else it is not read."""
    if not native:
        assert isinstance(rows, Tensor)  # noqa: S101  (rounded rows are for native products)
        rows = rows.contiguous()
        return Read({name: rows, "row_scale": rows}, [])
    before = []
    if isinstance(rows, Tensor):
        launch, rows = rounding(rows.contiguous())
        before.append(launch)
    return Read({name: rows.values, "row_scale": rows.scale}, before)


def rounding(x: Tensor) -> tuple[Launch, RoundedRows]:
    """`quantise_rows` of [R, K], in memory without gaps, as a launch, and what it will fill."""
    rows, length = x.shape
    found = blank_rows(x, rounds=True)
    constants = {"padded": padded(length, 16), "least": LEAST_SCALE}
    arguments = {"x": x, "length": length, **stored_in("values", found, "scale")}
    return Launch(round_rows, (rows,), arguments, constants, warps=4, stages=1), found


@overload
def blank_rows(like: Tensor, *, rounds: Literal[True]) -> RoundedRows: ...
@overload
def blank_rows(like: Tensor, *, rounds: bool) -> Operand: ...
def blank_rows(like: Tensor, *, rounds: bool) -> Operand:
    """To be filled: as many rows as `like` [R, K] has, as wide, in the same type or, if it `rounds`, in e4m3."""
    if not rounds:
        return like.new_empty(like.shape)
    values = like.new_empty(like.shape, dtype=torch.uint8).view(torch.float8_e4m3fn)
    return RoundedRows(values, like.new_empty(len(like), dtype=torch.float32), like.dtype)


@overload
def shaped(rows: RoundedRows, shape: torch.Size) -> RoundedRows: ...
@overload
def shaped(rows: Operand, shape: torch.Size) -> Operand: ...
def shaped(rows: Operand, shape: torch.Size) -> Operand:
    """[R, K] as [..., K]."""
    if isinstance(rows, RoundedRows):
        return rows._replace(values=rows.values.view(shape), scale=rows.scale.view(shape[:-1]))
    return rows.view(shape)


def stored_in(values: str, rows: Operand, scale: str) -> dict[str, Argument]:
    """What `store_row` takes, under two names; of rows that are not rounded the scale is never written."""
    if isinstance(rows, RoundedRows):
        return {values: rows.values.view(torch.uint8), scale: rows.scale}
    return {values: rows, scale: rows}


def kind_of(matrix: Tensor | PackedWeight, *, native: bool = False) -> str:
    """How a kernel reads a weight: `plain`, one of `PackedWeight.kind`, or `native`; what its tile depends on."""
    if isinstance(matrix, PackedWeight):
        return "native" if native else str(matrix.kind)
    return "plain"


def stored_as(name: str, matrix: Tensor | PackedWeight, tile: Tile, *, native: bool = False) -> Stored:
    """A weight [..., N, K] under `name`, read in steps of the tile's depth or of a group, both powers of two.

    If `native`, its e4m3 numbers are multiplied with others of that type.
    """
    group, kind = 0, kind_of(matrix, native=native)
    if isinstance(matrix, PackedWeight):
        values, group = matrix.values.contiguous().view(torch.uint8), matrix.group
        arguments = {name: values, "scale": _scale(matrix, values), "factor": matrix.factor.contiguous()}
    else:
        arguments = {name: matrix.contiguous(), "scale": matrix, "factor": matrix}
    depth = max(tile.depth, group)
    return Stored(arguments, {"kind": kind, "group": group, "depth": depth, "whole": matrix.shape[-1] % depth == 0})


def _scale(matrix: PackedWeight, values: Tensor) -> Tensor:
    """The scales, those of eight bits as bytes; where there are none, something that is there and will not be read."""
    if matrix.scale is None:
        return values
    scale = matrix.scale.contiguous()
    return scale.view(torch.uint8) if scale.dtype is torch.float8_e4m3fn else scale
