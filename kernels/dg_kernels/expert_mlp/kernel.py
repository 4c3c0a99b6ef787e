"""`expert_mlp` on the device: sort the pairs of row and expert, two grouped products, one sum for each row.

A product's blocks are runs of sorted pairs of one expert. The weight is the left operand, its rows the M of the matrix
instruction: sixteen pairs are enough for N, while as M they would leave Hopper's own instruction unused.
"""

import triton
import triton.language as tl

from dg_kernels.quantised.kernel import stored_numbers


@triton.jit(do_not_specialize=["pair_count"])
def sort_pairs(index, order, pair_count, size: tl.constexpr, chunk: tl.constexpr):
    """A stable counting sort without a counter: a pair's place is the number of pairs that come before it."""
    pair = tl.program_id(0) * size + tl.arange(0, size)
    there = pair < pair_count
    expert = tl.load(index + pair, mask=there, other=0).to(tl.int32)
    place = tl.zeros((size,), tl.int32)
    for start in range(0, pair_count, chunk):
        other = start + tl.arange(0, chunk)
        rival = tl.load(index + other, mask=other < pair_count, other=2147483647).to(tl.int32)[None, :]
        before = (rival < expert[:, None]) | ((rival == expert[:, None]) & (other[None, :] < pair[:, None]))
        place += tl.sum(before.to(tl.int32), 1)
    tl.store(order + place, pair, mask=there)


@triton.jit(do_not_specialize=["pair_count"])
def place_blocks(
    index, first_pair, first_block, pair_count, experts, rows: tl.constexpr, padded: tl.constexpr, chunk: tl.constexpr
):
    """Where each expert's sorted pairs begin, [E + 1], and its blocks of `rows` pairs, [E + 1]."""
    expert = tl.arange(0, padded)
    below = tl.zeros((padded,), tl.int32)
    own = tl.zeros((padded,), tl.int32)
    for start in range(0, pair_count, chunk):
        pair = start + tl.arange(0, chunk)
        chosen = tl.load(index + pair, mask=pair < pair_count, other=2147483647).to(tl.int32)[None, :]
        below += tl.sum((chosen < expert[:, None]).to(tl.int32), 1)
        own += tl.sum((chosen == expert[:, None]).to(tl.int32), 1)
    needed = (own + rows - 1) // rows
    tl.store(first_pair + expert, below, mask=expert <= experts)
    tl.store(first_block + expert, tl.cumsum(needed, 0) - needed, mask=expert <= experts)


@triton.jit
def _block(first_pair, first_block, order, experts, rows: tl.constexpr, padded: tl.constexpr):
    """Of this program's block: the expert (E if there is no such block), its sorted places, its pairs, which exist."""
    block = tl.program_id(0)
    number = tl.arange(0, padded)
    begins = tl.load(first_block + 1 + number, mask=number < experts, other=2147483647)
    expert = tl.sum((begins <= block).to(tl.int32), 0)
    inside = expert < experts
    first = tl.load(first_pair + expert) + (block - tl.load(first_block + expert)) * rows
    place = first + tl.arange(0, rows)
    there = inside & (place < tl.load(first_pair + expert + 1, mask=inside, other=0))
    pair = tl.load(order + place, mask=there, other=0)
    return expert, place, pair, there


@triton.jit
def gate_up_product(
    x,
    gate_up,
    scale,
    factor,
    row_scale,
    inner,
    order,
    first_pair,
    first_block,
    experts,
    chosen,
    hidden,
    width,
    rows: tl.constexpr,
    columns: tl.constexpr,
    depth: tl.constexpr,
    padded: tl.constexpr,
    kind: tl.constexpr,
    group: tl.constexpr,
    whole: tl.constexpr,
):
    """gelu(gate x) * up x of a block's pairs, at their sorted places in `inner` [pairs, width]."""
    expert, place, pair, there = _block(first_pair, first_block, order, experts, rows, padded)
    if expert == experts:
        return
    feature = tl.program_id(1) * columns + tl.arange(0, columns)
    along = tl.arange(0, depth)
    within = feature < width
    right = x + (pair // chosen).to(tl.int64)[None, :] * hidden + along[:, None]
    own = expert.to(tl.int64) * 2 * width + feature
    gate = tl.zeros((columns, rows), tl.float32)
    up = tl.zeros((columns, rows), tl.float32)
    for start in range(0, hidden, depth):
        seen = there[None, :] if whole else there[None, :] & (start + along < hidden)[:, None]
        row = tl.load(right + start, mask=seen, other=0.0)
        left = stored_numbers(gate_up, scale, own, start, hidden, within, kind, group, depth, whole)
        gate = tl.dot(left.to(row.dtype), row, gate)
        left = stored_numbers(gate_up, scale, own + width, start, hidden, within, kind, group, depth, whole)
        up = tl.dot(left.to(row.dtype), row, up)
    if kind != "plain":
        gate *= tl.load(factor + own, mask=within, other=0.0)[:, None]
        up *= tl.load(factor + own + width, mask=within, other=0.0)[:, None]
    if kind == "native":
        own_scale = tl.load(row_scale + pair // chosen, mask=there, other=0.0)[None, :]
        gate *= own_scale
        up *= own_scale
    # gelu by tanh z = 1 - 2 / (e^2z + 1); beyond 40 the exponential adds nothing.
    twice = 1.5957691216057308 * (gate + 0.044715 * gate * gate * gate)
    value = gate * (1.0 - 1.0 / (tl.exp(tl.minimum(twice, 40.0)) + 1.0)) * up
    target = inner + place.to(tl.int64)[None, :] * width + feature[:, None]
    tl.store(target, value.to(inner.dtype.element_ty), mask=there[None, :] & within[:, None])


@triton.jit
def down_product(
    inner,
    down,
    scale,
    factor,
    row_scale,
    weight,
    outputs,
    order,
    first_pair,
    first_block,
    experts,
    hidden,
    width,
    rows: tl.constexpr,
    columns: tl.constexpr,
    depth: tl.constexpr,
    padded: tl.constexpr,
    kind: tl.constexpr,
    group: tl.constexpr,
    whole: tl.constexpr,
):
    """weight * down inner of a block's pairs, scattered to the pairs' own rows of `outputs` [pairs, hidden]."""
    expert, place, pair, there = _block(first_pair, first_block, order, experts, rows, padded)
    if expert == experts:
        return
    feature = tl.program_id(1) * columns + tl.arange(0, columns)
    along = tl.arange(0, depth)
    within = feature < hidden
    right = inner + place.to(tl.int64)[None, :] * width + along[:, None]
    own = expert.to(tl.int64) * hidden + feature
    total = tl.zeros((columns, rows), tl.float32)
    for start in range(0, width, depth):
        seen = there[None, :] if whole else there[None, :] & (start + along < width)[:, None]
        row = tl.load(right + start, mask=seen, other=0.0)
        left = stored_numbers(down, scale, own, start, width, within, kind, group, depth, whole)
        total = tl.dot(left.to(row.dtype), row, total)
    if kind != "plain":
        total *= tl.load(factor + own, mask=within, other=0.0)[:, None]
    share = tl.load(weight + pair, mask=there, other=0.0).to(tl.float32)
    if kind == "native":
        share *= tl.load(row_scale + place, mask=there, other=0.0)
    target = outputs + pair.to(tl.int64)[None, :] * hidden + feature[:, None]
    tl.store(target, (total * share[None, :]).to(outputs.dtype.element_ty), mask=there[None, :] & within[:, None])


@triton.jit
def sum_pairs(outputs, result, chosen, hidden, columns: tl.constexpr):
    """Each row's K outputs, always added in the same order."""
    row = tl.program_id(0).to(tl.int64)
    column = tl.program_id(1) * columns + tl.arange(0, columns)
    there = column < hidden
    total = tl.zeros((columns,), tl.float32)
    for choice in range(chosen):
        total += tl.load(outputs + (row * chosen + choice) * hidden + column, mask=there, other=0.0).to(tl.float32)
    tl.store(result + row * hidden + column, total.to(result.dtype.element_ty), mask=there)
