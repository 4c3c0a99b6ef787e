"""`choose_experts` on the device: one program for some rows; the largest, without it the largest, and so on."""

import triton
import triton.language as tl


@triton.jit(do_not_specialize=["row_count"])
def choose(
    logits,
    scale,
    index,
    weight,
    row_count,
    experts,
    count: tl.constexpr,
    places: tl.constexpr,
    padded: tl.constexpr,
    rows: tl.constexpr,
):
    """Numbers and weights [row_count, count]."""
    row = tl.program_id(0) * rows + tl.arange(0, rows)
    expert, place = tl.arange(0, padded)[None, :], tl.arange(0, places)[None, :]
    there = (row < row_count)[:, None]
    start = row.to(tl.int64)[:, None]
    inside = there & (expert < experts)
    left = tl.load(logits + start * experts + expert, mask=inside, other=-float("inf")).to(tl.float32)
    number = tl.zeros((rows, places), tl.int32)
    found = tl.zeros((rows, places), tl.float32)
    for choice in range(count):
        best = tl.argmax(left, 1)[:, None]
        found = tl.where(place == choice, tl.max(left, 1)[:, None], found)
        number = tl.where(place == choice, best, number)
        left = tl.where(expert == best, -float("inf"), left)
    chosen = there & (place < count)
    # The first is the largest.
    largest = tl.sum(tl.where(chosen & (place == 0), found, 0.0), 1)[:, None]
    mass = tl.where(chosen, tl.exp(tl.where(chosen, found - largest, 0.0)), 0.0)
    total = tl.sum(mass, 1)
    share = mass / tl.where(total > 0, total, 1.0)[:, None]
    share *= tl.load(scale + number, mask=chosen, other=0.0).to(tl.float32)
    tl.store(index + start * count + place, number.to(tl.int64), mask=chosen)
    tl.store(weight + start * count + place, share, mask=chosen)
