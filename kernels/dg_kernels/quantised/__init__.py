"""Matrices of four and eight bits, each group of columns times a scale: e2m1, int4 and e4m3, both ways.

e2m1 is the four-bit type of the OCP Microscaling Formats specification 1.0, section 5.3.3, and of NVFP4; e4m3 is that
of arXiv 2209.05433. Two nibbles share a byte, the even column in the low one. A scale is [..., N or 1, G] for a matrix
[..., N, K]: G groups of K / G columns each.
"""

import torch
from torch import Tensor

__all__ = [
    "E2M1_MAX",
    "E4M3_MAX",
    "INT4_MAX",
    "dequantise_e2m1",
    "dequantise_e4m3",
    "dequantise_int4",
    "quantise_e2m1",
    "quantise_e4m3",
    "quantise_int4",
]

E2M1_MAX = 6.0
"""The largest e2m1 number."""
E4M3_MAX = 448.0
"""The largest e4m3 number."""
INT4_MAX = 7.0
"""The largest four-bit integer; the smallest is one further from zero, and a symmetric scale does not aim at it."""

_E2M1 = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)
_OFFSET = 8


def dequantise_e2m1(packed: Tensor, scale: Tensor) -> Tensor:
    """[..., N, K / 2] uint8 to [..., N, K] fp32."""
    table = torch.tensor([*_E2M1, *(-value for value in _E2M1)], device=packed.device)
    codes = _nibbles(packed)
    return _scaled(table.index_select(0, codes.flatten().int()).view(codes.shape), scale)


def dequantise_int4(packed: Tensor, scale: Tensor) -> Tensor:
    """[..., N, K / 8] int32, the first column in the lowest nibble, stored with 8 added, to [..., N, K] fp32."""
    return _scaled(_nibbles(packed.contiguous().view(torch.uint8)).float() - _OFFSET, scale)


def dequantise_e4m3(values: Tensor, scale: Tensor) -> Tensor:
    """[..., N, K] float8_e4m3fn to [..., N, K] fp32."""
    return _scaled(values.float(), scale)


def quantise_e2m1(matrix: Tensor, scale: Tensor) -> Tensor:
    """[..., N, K] to [..., N, K / 2] uint8: to nearest, ties to even, beyond 6 to 6. Scales must not be zero."""
    quotients = _quotients(matrix, scale)
    size = quotients.abs().clamp_max(E2M1_MAX)
    # Codes are half apart up to 2, one apart up to 4, then two; rounding to even is that of the codes in each stretch.
    upper = torch.where(size < 4, size.round() + 2, (size / 2).round() + 4)
    codes = torch.where(size < 2, (size * 2).round(), upper)
    return _packed(codes + 8 * quotients.signbit())


def quantise_int4(matrix: Tensor, scale: Tensor) -> Tensor:
    """[..., N, K] to [..., N, K / 8] int32: to nearest, ties to even, beyond the range to its ends."""
    codes = _quotients(matrix, scale).round().clamp(-INT4_MAX - 1, INT4_MAX) + _OFFSET
    return _packed(codes).view(torch.int32)


def quantise_e4m3(matrix: Tensor, scale: Tensor) -> Tensor:
    """[..., N, K] to [..., N, K] float8_e4m3fn: to nearest, ties to even, beyond 448 to 448."""
    return _quotients(matrix, scale).clamp(-E4M3_MAX, E4M3_MAX).to(torch.float8_e4m3fn)


def _nibbles(packed: Tensor) -> Tensor:
    return torch.stack((packed & 0xF, packed >> 4), dim=-1).flatten(-2)


def _packed(codes: Tensor) -> Tensor:
    even, odd = codes.to(torch.uint8).reshape(*codes.shape[:-1], -1, 2).unbind(-1)
    return even | odd << 4


def _scaled(values: Tensor, scale: Tensor) -> Tensor:
    return (_grouped(values, scale) * scale.float().unsqueeze(-1)).flatten(-2)


def _quotients(matrix: Tensor, scale: Tensor) -> Tensor:
    return (_grouped(matrix.float(), scale) / scale.float().unsqueeze(-1)).flatten(-2)


def _grouped(matrix: Tensor, scale: Tensor) -> Tensor:
    groups, columns = scale.shape[-1], matrix.shape[-1]
    if columns % groups or scale.shape[-2] not in (1, matrix.shape[-2]):
        raise ValueError(
            f"scale must be [..., N or 1, groups of equal width] for {list(matrix.shape)}, not {list(scale.shape)}"
        )
    return matrix.reshape(*matrix.shape[:-1], groups, -1)
