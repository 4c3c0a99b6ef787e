"""`packed_linear` on the device: one product, the weight its left operand, as for experts."""

import triton
import triton.language as tl

from dg_kernels.quantised.kernel import stored_numbers


@triton.jit(do_not_specialize=["count"])
def linear_product(
    x,
    weight,
    scale,
    factor,
    row_scale,
    result,
    count,
    width,
    length,
    rows: tl.constexpr,
    columns: tl.constexpr,
    depth: tl.constexpr,
    kind: tl.constexpr,
    group: tl.constexpr,
    whole: tl.constexpr,
):
    """[count, width] of rows [count, length] and a weight [width, length]: a block of rows by a block of features."""
    row = tl.program_id(0) * rows + tl.arange(0, rows)
    feature = tl.program_id(1) * columns + tl.arange(0, columns)
    along = tl.arange(0, depth)
    there = row < count
    within = feature < width
    right = x + row.to(tl.int64)[None, :] * length + along[:, None]
    total = tl.zeros((columns, rows), tl.float32)
    for start in range(0, length, depth):
        seen = there[None, :] if whole else there[None, :] & (start + along < length)[:, None]
        operand = tl.load(right + start, mask=seen, other=0.0)
        left = stored_numbers(weight, scale, feature.to(tl.int64), start, length, within, kind, group, depth, whole)
        total = tl.dot(left.to(operand.dtype), operand, total)
    total *= tl.load(factor + feature, mask=within, other=0.0)[:, None]
    if kind == "native":
        total *= tl.load(row_scale + row, mask=there, other=0.0)[None, :]
    target = result + row.to(tl.int64)[None, :] * width + feature[:, None]
    tl.store(target, total.to(result.dtype.element_ty), mask=there[None, :] & within[:, None])
