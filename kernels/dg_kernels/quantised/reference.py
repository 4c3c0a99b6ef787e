"""The truth for stored numbers: sign, exponent and mantissa of each, read out of its bits one by one."""

import math

import torch
from torch import Tensor


def e2m1_value(code: int) -> float:
    """The number that four bits mean: sign, two bits of exponent with bias 1, one of mantissa."""
    return _value(code, exponent_bits=2, mantissa_bits=1, bias=1)


def e4m3_value(code: int) -> float:
    """The number that eight bits mean: sign, four bits of exponent with bias 7, three of mantissa; no infinities."""
    return math.nan if code & 0x7F == 0x7F else _value(code, exponent_bits=4, mantissa_bits=3, bias=7)


def int4_value(code: int) -> float:
    """The number that four bits mean: 8 was added to it."""
    return float(code - 8)


def dequantise_reference(values: Tensor, scale: Tensor) -> Tensor:
    """Numbers [N, K] times the scale [N or 1, G] of their group, one after the other; [N, K] fp32."""
    rows, columns = values.shape
    width = columns // scale.shape[1]
    result = torch.empty(rows, columns)
    for row in range(rows):
        for column in range(columns):
            factor = scale[row if scale.shape[0] > 1 else 0, column // width]
            result[row, column] = values[row, column] * factor.float()
    return result


def nibble_reference(packed: Tensor, column: int) -> int:
    """The four bits of a column in a row of bytes."""
    byte = int(packed[column // 2])
    return byte >> 4 if column % 2 else byte & 0xF


def _value(code: int, *, exponent_bits: int, mantissa_bits: int, bias: int) -> float:
    sign = -1.0 if code >> (exponent_bits + mantissa_bits) else 1.0
    exponent = code >> mantissa_bits & (1 << exponent_bits) - 1
    fraction = (code & (1 << mantissa_bits) - 1) / (1 << mantissa_bits)
    return sign * (math.ldexp(1 + fraction, exponent - bias) if exponent else math.ldexp(fraction, 1 - bias))
