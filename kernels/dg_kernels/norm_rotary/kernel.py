"""`norm_rotary` on the device: one program for one head of some positions."""

import triton
import triton.language as tl


@triton.jit(do_not_specialize=["position_count", "slots", "angle_count"])
def norm_and_turn(
    query,
    key,
    value,
    query_weight,
    key_weight,
    cosines,
    sines,
    turned_query,
    turned_key,
    normed_value,
    position_count,
    slots,
    heads,
    key_heads,
    angle_count,
    angle_row,
    query_row,
    key_row,
    value_row,
    key_batch,
    key_head,
    key_slot,
    value_batch,
    value_head,
    value_slot,
    eps,
    half: tl.constexpr,
    padded: tl.constexpr,
    rows: tl.constexpr,
):
    """Positions, `slots` of each batch: heads of queries, [position_count, heads, 2 half], then of keys and of values.

    The angles of `angle_count` positions repeat.
    """
    position = (tl.program_id(0) * rows + tl.arange(0, rows)).to(tl.int64)
    pair = tl.arange(0, padded)
    there = (position < position_count)[:, None] & (pair < half)[None, :]
    batch, slot = position // slots, position % slots
    angle = (position % angle_count)[:, None] * angle_row + pair[None, :]
    head = tl.program_id(1)
    if head < heads:
        first, second = _normed(query + position * query_row + head * (2 * half), pair, there, half, eps)
        first, second = _turned(first, second, query_weight, cosines + angle, sines + angle, pair, there, half)
        _store(turned_query + (position * heads + head) * (2 * half), first, second, pair, there, half)
    else:
        head -= heads
        if head < key_heads:
            first, second = _normed(key + position * key_row + head * (2 * half), pair, there, half, eps)
            first, second = _turned(first, second, key_weight, cosines + angle, sines + angle, pair, there, half)
            place = batch * key_batch + head.to(tl.int64) * key_head + slot * key_slot
            _store(turned_key + place, first, second, pair, there, half)
        else:
            head -= key_heads
            first, second = _normed(value + position * value_row + head * (2 * half), pair, there, half, eps)
            place = batch * value_batch + head.to(tl.int64) * value_head + slot * value_slot
            _store(normed_value + place, first, second, pair, there, half)


@triton.jit
def _normed(source, pair, there, half: tl.constexpr, eps):
    """Both halves of what begins at `source` [R], of unit root mean square."""
    left = source[:, None] + pair[None, :]
    first = tl.load(left, mask=there, other=0.0).to(tl.float32)
    second = tl.load(left + half, mask=there, other=0.0).to(tl.float32)
    squares = tl.sum(first * first, 1) + tl.sum(second * second, 1)
    inverse = 1.0 / tl.sqrt(squares / (2 * half) + eps)
    return first * inverse[:, None], second * inverse[:, None]


@triton.jit
def _turned(first, second, weight, cosine, sine, pair, there, half: tl.constexpr):
    """Both halves times the weight, turned by the angles at `cosine` and `sine` [R, padded]."""
    within = (pair < half)[None, :]
    first *= tl.load(weight + pair[None, :], mask=within, other=0.0).to(tl.float32)
    second *= tl.load(weight + half + pair[None, :], mask=within, other=0.0).to(tl.float32)
    left = first * tl.load(cosine, mask=there, other=0.0).to(tl.float32)
    left -= second * tl.load(sine, mask=there, other=0.0).to(tl.float32)
    right = second * tl.load(cosine + half, mask=there, other=0.0).to(tl.float32)
    right += first * tl.load(sine + half, mask=there, other=0.0).to(tl.float32)
    return left, right


@triton.jit
def _store(target, first, second, pair, there, half: tl.constexpr):
    """Both halves to what begins at `target` [R]."""
    left = target[:, None] + pair[None, :]
    tl.store(left, first.to(target.dtype.element_ty), mask=there)
    tl.store(left + half, second.to(target.dtype.element_ty), mask=there)
