"""How a kernel is given a weight, whatever it is stored in."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from dg_kernels.configurations import Tile
from dg_kernels.launching import Argument, Launch, padded
from dg_kernels.quantised.kernel import round_rows
from dg_kernels.quantised.packed import PackedWeight
from dg_kernels.quantised.rows import LEAST_SCALE


class Stored(NamedTuple):
    """What `stored_numbers` takes."""

    arguments: Mapping[str, Argument]
    constants: Mapping[str, int | str]


class Rounded(NamedTuple):
    """Rows that will be in eight bits."""

    launch: Launch
    values: Tensor
    """[R, K] float8_e4m3fn."""
    scale: Tensor
    """[R] fp32."""


def rounded(x: Tensor) -> Rounded:
    """`quantise_rows` of [R, K], in memory without gaps, as a launch."""
    rows, length = x.shape
    values, scale = x.new_empty(rows, length, dtype=torch.uint8), x.new_empty(rows, dtype=torch.float32)
    arguments: dict[str, Argument] = {"x": x, "values": values, "scale": scale, "length": length}
    constants = {"padded": padded(length, 16), "least": LEAST_SCALE}
    launch = Launch(round_rows, (rows,), arguments, constants, warps=4, stages=1)
    return Rounded(launch, values.view(torch.float8_e4m3fn), scale)


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
