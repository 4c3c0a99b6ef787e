"""`norm_rotary` on the device: one program for some heads."""

import triton
import triton.language as tl


@triton.jit
def norm_and_turn(
    x,
    weight,
    cosines,
    sines,
    result,
    row_count,
    heads,
    angle_count,
    eps,
    half: tl.constexpr,
    padded: tl.constexpr,
    rows: tl.constexpr,
):
    """Rows [row_count, 2 half], `heads` of each position; the angles of `angle_count` positions repeat."""
    row = tl.program_id(0) * rows + tl.arange(0, rows)
    pair = tl.arange(0, padded)
    within = (pair < half)[None, :]
    there = (row < row_count)[:, None] & within
    left = row.to(tl.int64)[:, None] * (2 * half) + pair[None, :]
    angle = ((row // heads) % angle_count).to(tl.int64)[:, None] * (2 * half) + pair[None, :]
    first = tl.load(x + left, mask=there, other=0.0).to(tl.float32)
    second = tl.load(x + left + half, mask=there, other=0.0).to(tl.float32)
    squares = tl.sum(first * first, 1) + tl.sum(second * second, 1)
    inverse = 1.0 / tl.sqrt(squares / (2 * half) + eps)
    first *= inverse[:, None] * tl.load(weight + pair[None, :], mask=within, other=0.0).to(tl.float32)
    second *= inverse[:, None] * tl.load(weight + half + pair[None, :], mask=within, other=0.0).to(tl.float32)
    cosine = tl.load(cosines + angle, mask=there, other=0.0).to(tl.float32)
    sine = tl.load(sines + angle, mask=there, other=0.0).to(tl.float32)
    tl.store(result + left, (first * cosine - second * sine).to(result.dtype.element_ty), mask=there)
    cosine = tl.load(cosines + angle + half, mask=there, other=0.0).to(tl.float32)
    sine = tl.load(sines + angle + half, mask=there, other=0.0).to(tl.float32)
    tl.store(result + left + half, (second * cosine + first * sine).to(result.dtype.element_ty), mask=there)
