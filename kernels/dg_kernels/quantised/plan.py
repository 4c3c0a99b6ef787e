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


def stored_as(name: str, matrix: Tensor | PackedWeight, tile: Tile, *, native: bool = False) -> Stored:
    """A weight [..., N, K] under `name`, read in steps of the tile's depth or of a group, both powers of two.

    If `native`, its e4m3 numbers are multiplied with others of that type.
    """
    if isinstance(matrix, PackedWeight):
        values = matrix.values.contiguous().view(torch.uint8)
        arguments = {name: values, "scale": _scale(matrix, values), "factor": matrix.factor.contiguous()}
        kind, group = "native" if native else str(matrix.kind), matrix.group
    else:
        arguments = {name: matrix.contiguous(), "scale": matrix, "factor": matrix}
        kind, group = "plain", 0
    depth = max(tile.depth, group)
    return Stored(arguments, {"kind": kind, "group": group, "depth": depth, "whole": matrix.shape[-1] % depth == 0})


def _scale(matrix: PackedWeight, values: Tensor) -> Tensor:
    """The scales, those of eight bits as bytes; where there are none, something that is there and will not be read."""
    if matrix.scale is None:
        return values
    scale = matrix.scale.contiguous()
    return scale.view(torch.uint8) if scale.dtype is torch.float8_e4m3fn else scale
