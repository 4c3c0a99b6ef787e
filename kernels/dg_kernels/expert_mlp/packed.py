"""`expert_mlp` over weights of eight and four bits: they become bf16 in registers or, without a kernel, beforehand."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from dg_kernels.expert_mlp import expert_mlp
from dg_kernels.launching import run, served
from dg_kernels.quantised import dequantise_e2m1, dequantise_e4m3, dequantise_int4

__all__ = ["WEIGHT_BITS", "PackedExperts", "packed_expert_mlp", "random_experts"]

WEIGHT_BITS = {"fp8": 8.0, "nvfp4": 4.5, "int4": 4.5}
"""The published formats, with what a weight takes in each: its own bits and its share of the scale."""

_DEQUANTISE = {"e2m1": dequantise_e2m1, "e4m3": dequantise_e4m3, "int4": dequantise_int4}
_COLUMNS_EACH = {"e2m1": 2, "e4m3": 1, "int4": 8}


@dataclass(frozen=True)
class PackedExperts:
    """One matrix [N, K] for each of E experts: numbers, times the scale of their group, times the factor of their row.

    That covers the published formats: FP8 has factors only; NVFP4 has a scale for 16 columns and the checkpoint's
    global scale as factor (in compressed-tensors its inverse), which may differ between gate and up; INT4 has scales
    only.

    Raises:
        ValueError: shapes that do not belong together.
    """

    kind: Literal["e2m1", "e4m3", "int4"]
    values: Tensor
    """[E, N, K] float8_e4m3fn, [E, N, K / 2] uint8 or [E, N, K / 8] int32, as `dg_kernels.quantised` packs them."""
    scale: Tensor | None
    """[E, N, K / group] of any floating type, or None: no scale but the factor."""
    factor: Tensor
    """[E, N] fp32."""

    def __post_init__(self) -> None:
        experts, rows, columns = self.shape
        if self.factor.shape != (experts, rows):
            raise ValueError(f"factor must be {[experts, rows]}, not {list(self.factor.shape)}")
        if self.scale is not None and (self.scale.shape[:2] != (experts, rows) or columns % self.scale.shape[2]):
            raise ValueError(f"scale must be {[experts, rows]} by groups of {columns}, not {list(self.scale.shape)}")

    @property
    def shape(self) -> tuple[int, int, int]:
        """E, N, K."""
        experts, rows, length = self.values.shape
        return experts, rows, length * _COLUMNS_EACH[self.kind]

    @property
    def nbytes(self) -> int:
        """Of values, scales and factors."""
        return sum(one.nbytes for one in (self.values, self.scale, self.factor) if one is not None)

    @property
    def group(self) -> int:
        """Columns that share a scale; 0 where there is none."""
        return 0 if self.scale is None else self.shape[2] // self.scale.shape[2]

    def dequantised(self, dtype: torch.dtype) -> Tensor:
        """[E, N, K]: in `dtype`, scales and factors applied before the rounding."""
        scale = self.factor[..., None] if self.scale is None else self.scale.float() * self.factor[..., None]
        return _DEQUANTISE[self.kind](self.values, scale).to(dtype)

    def chosen(self, experts: Tensor) -> PackedExperts:
        """Those experts alone."""
        scale = None if self.scale is None else self.scale.view(torch.uint8)[experts].view(self.scale.dtype)
        values = self.values.view(torch.uint8)[experts].view(self.values.dtype)
        return replace(self, values=values, scale=scale, factor=self.factor[experts])


def packed_expert_mlp(x: Tensor, gate_up: PackedExperts, down: PackedExperts, index: Tensor, weight: Tensor) -> Tensor:
    """`expert_mlp` with packed weights: the same shapes, [N, H] to [N, H].

    On a GPU in bf16 a weight is multiplied by its scale in fp32 and rounded to bf16; sums are multiplied by the factor.
    Elsewhere, and where a group's width is no power of two, the experts that are chosen are dequantised first.

    Raises:
        ValueError: `index` and `weight` differ in shape, or `gate_up` does not belong to `down`.
    """
    experts, hidden, inner = down.shape
    if index.shape != weight.shape:
        raise ValueError(f"index is {list(index.shape)} but weight is {list(weight.shape)}")
    if gate_up.shape != (experts, 2 * inner, hidden):
        raise ValueError(f"gate_up must be {[experts, 2 * inner, hidden]}, not {list(gate_up.shape)}")
    if served(x) and gate_up.group.bit_count() < 2 and down.group.bit_count() < 2:
        from dg_kernels.expert_mlp.plan import plan

        launches, result = plan(x, gate_up, down, index, weight)
        run(launches)
        return result
    present = torch.zeros(experts, dtype=torch.bool, device=index.device).index_fill_(0, index.flatten(), value=True)
    number = present.cumsum(0) - 1
    some = present.nonzero()[:, 0]
    plain = [one.chosen(some).dequantised(x.dtype) for one in (gate_up, down)]
    return expert_mlp(x, plain[0], plain[1], number[index], weight)


def random_experts(
    format_: str, shape: tuple[int, int, int], deviation: float, generator: torch.Generator
) -> PackedExperts:
    """Matrices [E, N, K] of random bits in one of WEIGHT_BITS, on the generator's device, to measure with.

    Every expert has the scales that give its numbers about that standard deviation.
    """
    experts, rows, columns = shape
    device = generator.device

    def bits(width: int) -> Tensor:
        return torch.empty(experts, rows, width, dtype=torch.uint8, device=device).random_(0, 256, generator=generator)

    factor = torch.full((experts, rows), deviation / _RANDOM_RMS[format_], device=device)
    if format_ == "fp8":
        # Without the lowest bit of the exponent: a code of all ones is no number.
        return PackedExperts("e4m3", bits(columns).bitwise_and_(0xF7).view(torch.float8_e4m3fn), None, factor)
    ones = torch.ones(experts, rows, columns // _RANDOM_GROUPS[format_], device=device)
    if format_ == "nvfp4":
        return PackedExperts("e2m1", bits(columns // 2), ones.to(torch.float8_e4m3fn), factor)
    return PackedExperts("int4", bits(columns // 2).view(torch.int32), ones.bfloat16(), factor)


_RANDOM_RMS = {"fp8": 68.5, "nvfp4": 2.93, "int4": 4.64}
"""The root mean squares of what random bits mean."""
_RANDOM_GROUPS = {"nvfp4": 16, "int4": 32}
