"""`residual_norms` on the device: one program for one row."""

import triton
import triton.language as tl


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
    to_experts,
    to_router,
    width,
    eps,
    share,
    padded: tl.constexpr,
):
    """x + norm(attended), and its norms by three weights, the last times `share`."""
    start = tl.program_id(0).to(tl.int64) * width
    column = tl.arange(0, padded)
    there = column < width
    added = _row(attended + start, column, there)
    number = _row(x + start, column, there) + added * _inverse(added, width, eps) * _row(after, column, there)
    written = number.to(total.dtype.element_ty)
    tl.store(total + start + column, written, mask=there)
    number = written.to(tl.float32)
    normed = number * _inverse(number, width, eps)
    tl.store(to_dense + start + column, (normed * _row(dense, column, there)).to(written.dtype), mask=there)
    tl.store(to_experts + start + column, (normed * _row(experts, column, there)).to(written.dtype), mask=there)
    tl.store(to_router + start + column, (normed * _row(router, column, there) * share).to(written.dtype), mask=there)


@triton.jit
def feed_forward_row(x, dense, mixed, first, second, whole, scalar, result, width, eps, padded: tl.constexpr):
    """(x + norm(norm(dense) + norm(mixed))) scalar."""
    start = tl.program_id(0).to(tl.int64) * width
    column = tl.arange(0, padded)
    there = column < width
    one = _row(dense + start, column, there)
    other = _row(mixed + start, column, there)
    both = one * _inverse(one, width, eps) * _row(first, column, there)
    both += other * _inverse(other, width, eps) * _row(second, column, there)
    number = _row(x + start, column, there) + both * _inverse(both, width, eps) * _row(whole, column, there)
    number *= tl.load(scalar).to(tl.float32)
    tl.store(result + start + column, number.to(result.dtype.element_ty), mask=there)
