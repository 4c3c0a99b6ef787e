"""Matrices that stay in the bits in which they are stored: eight or four a number, and the scales."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from dg_kernels.quantised import dequantise_e2m1, dequantise_e4m3, dequantise_int4

__all__ = ["WEIGHT_BITS", "PackedWeight", "joined_weight", "random_weight"]

WEIGHT_BITS = {"fp8": 8.0, "nvfp4": 4.5, "int4": 4.5}
"""The published formats, with what a weight takes in each: its own bits and its share of the scale."""

_DEQUANTISE = {"e2m1": dequantise_e2m1, "e4m3": dequantise_e4m3, "int4": dequantise_int4}
_COLUMNS_EACH = {"e2m1": 2, "e4m3": 1, "int4": 8}


@dataclass(frozen=True)
class PackedWeight:
    """A matrix [N, K], or one for each of E experts: numbers, times the scale of their group, times their row's factor.

    That covers the published formats: FP8 has factors only; NVFP4 has a scale for 16 columns and the checkpoint's
    global scale as factor (in compressed-tensors its inverse), which may differ between gate and up; INT4 has scales
    only.

    Raises:
        ValueError: shapes that do not belong together.
    """

    kind: Literal["e2m1", "e4m3", "int4"]
    values: Tensor
    """[..., N, K] float8_e4m3fn, [..., N, K / 2] uint8 or [..., N, K / 8] int32, as `dg_kernels.quantised` packs."""
    scale: Tensor | None
    """[..., N, K / group] of any floating type, or None: no scale but the factor."""
    factor: Tensor
    """[..., N] fp32."""
    quantises_rows: bool = False
    """Whether what it is multiplied with may be rounded to e4m3 too (`quantise_rows`), as FP8-dynamic checkpoints are
    made for."""

    def __post_init__(self) -> None:
        *rows, columns = self.shape
        if list(self.factor.shape) != rows:
            raise ValueError(f"factor must be {rows}, not {list(self.factor.shape)}")
        if self.scale is not None and (list(self.scale.shape[:-1]) != rows or columns % self.scale.shape[-1]):
            raise ValueError(f"scale must be {rows} by groups of {columns}, not {list(self.scale.shape)}")
        if self.quantises_rows and (self.kind != "e4m3" or self.scale is not None):
            raise ValueError("quantises_rows: only e4m3 numbers without scales are multiplied in their own type")

    @property
    def shape(self) -> torch.Size:
        """[..., N, K]."""
        *rows, length = self.values.shape
        return torch.Size((*rows, length * _COLUMNS_EACH[self.kind]))

    @property
    def nbytes(self) -> int:
        """Of values, scales and factors."""
        return sum(one.nbytes for one in (self.values, self.scale, self.factor) if one is not None)

    @property
    def group(self) -> int:
        """Columns that share a scale; 0 where there is none."""
        return 0 if self.scale is None else self.shape[-1] // self.scale.shape[-1]

    @property
    def has_kernel(self) -> bool:
        """Whether a step of a kernel's sum can take whole groups."""
        return self.group.bit_count() < 2

    def dequantised(self, dtype: torch.dtype) -> Tensor:
        """[..., N, K]: in `dtype`, scales and factors applied before the rounding."""
        scale = self.factor[..., None] if self.scale is None else self.scale.float() * self.factor[..., None]
        return _DEQUANTISE[self.kind](self.values, scale).to(dtype)

    def chosen(self, experts: Tensor) -> PackedWeight:
        """Those experts alone."""
        scale = None if self.scale is None else self.scale.view(torch.uint8)[experts].view(self.scale.dtype)
        values = self.values.view(torch.uint8)[experts].view(self.values.dtype)
        return replace(self, values=values, scale=scale, factor=self.factor[experts])

    def is_stored_like(self, other: PackedWeight) -> bool:
        """Whether rows of both can be those of one matrix."""
        ours, theirs = ((one.kind, one.shape[-1], one.group, one.quantises_rows) for one in (self, other))
        scales = [None if one.scale is None else one.scale.dtype for one in (self, other)]
        return ours == theirs and scales[0] == scales[1]

    def split(self, counts: Sequence[int]) -> Iterator[PackedWeight]:
        """So many rows of a matrix [N, K] each, as views."""
        first = 0
        for count in counts:
            rows = slice(first, first + count)
            scale = None if self.scale is None else self.scale[rows]
            yield replace(self, values=self.values[rows], scale=scale, factor=self.factor[rows])
            first += count


def joined_weight(weights: Sequence[PackedWeight]) -> PackedWeight:
    """Matrices [N, K] that are stored alike as one: the rows of each behind those of the one before."""
    scales = [one.scale for one in weights if one.scale is not None]
    values, scale = _behind([one.values for one in weights]), _behind(scales) if scales else None
    return replace(weights[0], values=values, scale=scale, factor=torch.cat([one.factor for one in weights]))


def _behind(parts: Sequence[Tensor]) -> Tensor:
    """As bytes: not every operation knows every type."""
    return torch.cat([one.view(torch.uint8) for one in parts]).view(parts[0].dtype)


def random_weight(format_: str, shape: tuple[int, ...], deviation: float, generator: torch.Generator) -> PackedWeight:
    """Matrices [..., N, K] of random bits in one of WEIGHT_BITS, on the generator's device, to measure with.

    Every one has the scales that give its numbers about that standard deviation.
    """
    *rows, columns = shape
    device = generator.device

    def bits(width: int) -> Tensor:
        return torch.empty(*rows, width, dtype=torch.uint8, device=device).random_(0, 256, generator=generator)

    factor = torch.full(rows, deviation / _RANDOM_RMS[format_], device=device)
    if format_ == "fp8":
        # Without the lowest bit of the exponent: a code of all ones is no number.
        return PackedWeight("e4m3", bits(columns).bitwise_and_(0xF7).view(torch.float8_e4m3fn), None, factor)
    ones = torch.ones(*rows, columns // _RANDOM_GROUPS[format_], device=device)
    if format_ == "nvfp4":
        return PackedWeight("e2m1", bits(columns // 2), ones.to(torch.float8_e4m3fn), factor)
    return PackedWeight("int4", bits(columns // 2).view(torch.int32), ones.bfloat16(), factor)


_RANDOM_RMS = {"fp8": 68.5, "nvfp4": 2.93, "int4": 4.64}
"""The root mean squares of what random bits mean."""
_RANDOM_GROUPS = {"nvfp4": 16, "int4": 32}
