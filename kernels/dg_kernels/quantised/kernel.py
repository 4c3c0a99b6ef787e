"""Weights on the device: runs of stored numbers, and what they mean, in registers."""

import triton
import triton.language as tl


@triton.jit
def stored_numbers(
    values,
    scale,
    row,
    start,
    length,
    row_there,
    kind: tl.constexpr,
    group: tl.constexpr,
    depth: tl.constexpr,
    whole: tl.constexpr,
):
    """[M, depth] of M rows of `length` numbers, from the column `start`; in fp32 if they have to be decoded.

    Those of kind `native` are multiplied as they are.
    """
    if kind == "plain":
        numbers = _run(values, row, start, length, row_there, depth, whole)
    elif kind == "native":
        numbers = _run(values, row, start, length, row_there, depth, whole).to(tl.float8e4nv, bitcast=True)
    else:
        if kind == "e4m3":
            numbers = _e4m3(_run(values, row, start, length, row_there, depth, whole).to(tl.int32))
        else:
            byte = _run(values, row, start // 2, length // 2, row_there, depth // 2, whole).to(tl.int32)
            numbers = tl.join(_nibble(byte << 28, kind), _nibble(byte << 24, kind)).reshape(row.shape[0], depth)
        if group:
            shared = _run(scale, row, start // group, length // group, row_there, depth // group, whole)
            factor = _e4m3(shared.to(tl.int32)) if scale.dtype.element_ty == tl.uint8 else shared.to(tl.float32)
            numbers = numbers.reshape(row.shape[0], depth // group, group) * factor[:, :, None]
            numbers = numbers.reshape(row.shape[0], depth)
    return numbers


@triton.jit
def round_rows(x, values, scale, length, padded: tl.constexpr, least: tl.constexpr):
    """Rows to e4m3 codes [R, length] and scales [R], one program each."""
    row = tl.program_id(0).to(tl.int64)
    column = tl.arange(0, padded)
    there = column < length
    number = tl.load(x + row * length + column, mask=there, other=0.0).to(tl.float32)
    store_row(number, values, scale, row, length, column, there, least)


@triton.jit
def store_row(number, values, scale, row, length, column, there, least: tl.constexpr):
    """A row of fp32 numbers, zeros where they are not `there`: as it is or, if values are bytes, as `round_rows`."""
    if values.dtype.element_ty == tl.uint8:
        own = tl.maximum(tl.div_rn(tl.max(tl.abs(number), 0), 448.0), least)
        tl.store(scale + row, own)
        tl.store(values + row * length + column, _code(tl.div_rn(number, own)).to(tl.uint8), mask=there)
    else:
        tl.store(values + row * length + column, number.to(values.dtype.element_ty), mask=there)


@triton.jit
def _code(number):
    """Numbers up to 448 in fp32 to e4m3 codes in int32, ties to even."""
    size = tl.abs(number)
    bits = size.to(tl.int32, bitcast=True)
    # Half of the last place that stays, and its parity, are added to what is cut off; the difference of the biases is
    # 127 - 7 exponents of eight codes each.
    normal = ((bits + 0x7FFFF + ((bits >> 20) & 1)) >> 20) - 960
    # Below 2^-6 codes are 2^-9 apart: beside 1.5 * 2^23 the fp32 addition rounds to whole ones.
    small = (size * 512.0 + 12582912.0).to(tl.int32, bitcast=True) - 0x4B400000
    code = tl.minimum(tl.where(size < 0.015625, small, normal), 0x7E)
    return code | ((number.to(tl.int32, bitcast=True) >> 24) & 0x80)


@triton.jit
def _run(values, row, start, length, row_there, depth: tl.constexpr, whole: tl.constexpr):
    """[M, depth] stored elements; past the end zeros, whose numbers meet the zeros past the end of x."""
    column = start + tl.arange(0, depth)
    there = row_there[:, None] if whole else row_there[:, None] & (column < length)[None, :]
    return tl.load(values + row[:, None] * length + column[None, :], mask=there, other=0)


@triton.jit
def _e4m3(code):
    """Codes in the low eight bits of int32 to fp32. By arithmetic: Triton has the type from sm_89 on only."""
    # The arithmetic shift keeps the sign where it is and takes exponent and mantissa to fp32's places; what is missing
    # is the difference of the biases, 127 - 7. The mask is 0x87F00000 as int32; a larger literal would be 64 bits wide.
    return (((code << 24) >> 4) & -0x78100000).to(tl.float32, bitcast=True) * 1.329227995784916e36


@triton.jit
def _nibble(code, kind: tl.constexpr):
    """Codes in the top four bits of int32, whatever is below them, to fp32."""
    if kind == "int4":
        # In the mantissa of 128 it means 128 more than the code, which is 8 more than the number.
        number = (((code >> 12) & 0xF0000) | 0x43000000).to(tl.float32, bitcast=True) - 136.0
    else:
        # As for e4m3; the mask is 0x81C00000, the biases differ by 127 - 1.
        number = ((code >> 6) & -0x7E400000).to(tl.float32, bitcast=True) * 8.507059173023462e37
    return number
