"""How a kernel is given a weight, whatever it is stored in."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from dg_kernels.configurations import Tile
from dg_kernels.launching import Argument
from dg_kernels.quantised.packed import PackedWeight


class Stored(NamedTuple):
    """What `stored_numbers` takes."""

    arguments: Mapping[str, Argument]
    constants: Mapping[str, int | str]


def stored_as(name: str, matrix: Tensor | PackedWeight, tile: Tile) -> Stored:
    """A weight [..., N, K] under `name`, read in steps of the tile's depth or of a group, both powers of two."""
    if isinstance(matrix, PackedWeight):
        values = matrix.values.contiguous().view(torch.uint8)
        arguments = {name: values, "scale": _scale(matrix, values), "factor": matrix.factor.contiguous()}
        kind, group = str(matrix.kind), matrix.group
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
