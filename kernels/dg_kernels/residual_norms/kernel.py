"""`residual_norms` on the device: one program for one row."""

import triton
import triton.language as tl

from dg_kernels.quantised.kernel import store_row


@triton.jit
def _row(x, column, there):
    return tl.load(x + column, mask=there, other=0.0).to(tl.float32)


@triton.jit
def _inverse(number, width, eps):
    """Of the root mean square."""
    return 1.0 / tl.sqrt(tl.sum(number * number, 0) / width + eps)


@triton.jit
def attention_row(
    x,
    attended,
    after,
    dense,
    experts,
    router,
    total,
    to_dense,
    dense_scale,
    to_experts,
    experts_scale,
    to_router,
    width,
    eps,
    share,
    padded: tl.constexpr,
    least: tl.constexpr,
):
    """x + norm(attended), and its norms by three weights, the last times `share`."""
    row = tl.program_id(0).to(tl.int64)
    start = row * width
    column = tl.arange(0, padded)
    there = column < width
    added = _row(attended + start, column, there)
    number = _row(x + start, column, there) + added * _inverse(added, width, eps) * _row(after, column, there)
    written = number.to(total.dtype.element_ty)
    tl.store(total + start + column, written, mask=there)
    number = written.to(tl.float32)
    normed = number * _inverse(number, width, eps)
    by_dense, by_experts = normed * _row(dense, column, there), normed * _row(experts, column, there)
    store_row(by_dense, to_dense, dense_scale, row, width, column, there, least)
    store_row(by_experts, to_experts, experts_scale, row, width, column, there, least)
    tl.store(to_router + start + column, (normed * _row(router, column, there) * share).to(written.dtype), mask=there)


@triton.jit
def feed_forward_row(
    x,
    dense,
    mixed,
    first,
    second,
    whole,
    scalar,
    following,
    total,
    normed,
    normed_scale,
    parts,
    width,
    eps,
    padded: tl.constexpr,
    least: tl.constexpr,
):
    """(x + norm(norm(dense) + norm(sum of `parts` of mixed))) scalar, and the norm of it by the weight `following`."""
    row = tl.program_id(0).to(tl.int64)
    start = row * width
    column = tl.arange(0, padded)
    there = column < width
    one = _row(dense + start, column, there)
    other = tl.zeros((padded,), tl.float32)
    for part in range(parts):
        other += _row(mixed + (row * parts + part) * width, column, there)
    both = one * _inverse(one, width, eps) * _row(first, column, there)
    both += other * _inverse(other, width, eps) * _row(second, column, there)
    number = _row(x + start, column, there) + both * _inverse(both, width, eps) * _row(whole, column, there)
    written = (number * tl.load(scalar).to(tl.float32)).to(total.dtype.element_ty)
    tl.store(total + start + column, written, mask=there)
    number = written.to(tl.float32)
    number *= _inverse(number, width, eps) * _row(following, column, there)
    store_row(number, normed, normed_scale, row, width, column, there, least)
