"""`expert_mlp` on the device: sort the pairs of row and expert, and two grouped products.

A product's blocks are runs of sorted pairs of one expert. The weight is the left operand, its rows the M of the matrix
instruction: sixteen pairs are enough for N, while as M they would leave Hopper's own instruction unused.
"""

import triton
import triton.language as tl

from dg_kernels.gated_gelu.kernel import gated
from dg_kernels.quantised.kernel import stored_numbers


@triton.jit(do_not_specialize=["pair_count"])
def sort_pairs(
    index,
    order,
    first_pair,
    first_block,
    pair_count,
    experts,
    size: tl.constexpr,
    chunk: tl.constexpr,
    rows: tl.constexpr,
    padded: tl.constexpr,
):
    """A stable counting sort without a counter: a pair's place is the number of pairs that come before it.

    The last program counts: where each expert's sorted pairs begin, [E + 1], and its blocks of `rows` pairs, [E + 1].
    """
    other = tl.arange(0, chunk)
    if tl.program_id(0) < tl.num_programs(0) - 1:
        pair = tl.program_id(0) * size + tl.arange(0, size)
        there = pair < pair_count
        expert = tl.load(index + pair, mask=there, other=0).to(tl.int32)
        place = tl.zeros((size,), tl.int32)
        for start in range(0, pair_count, chunk):
            rival = _chosen(index, start + other, pair_count, experts)[None, :]
            earlier = (start + other)[None, :] < pair[:, None]
            before = (rival < expert[:, None]) | ((rival == expert[:, None]) & earlier)
            place += tl.sum(before.to(tl.int32), 1)
        tl.store(order + place, pair, mask=there)
    else:
        own = tl.zeros((padded,), tl.int32)
        for start in range(0, pair_count, chunk):
            own += tl.histogram(_chosen(index, start + other, pair_count, experts), padded)
        needed = (own + rows - 1) // rows
        number = tl.arange(0, padded)
        tl.store(first_pair + number, tl.cumsum(own, 0) - own, mask=number <= experts)
        tl.store(first_block + number, tl.cumsum(needed, 0) - needed, mask=number <= experts)


@triton.jit
def _chosen(index, pair, pair_count, experts):
    """The experts of pairs; of those that there are not, E, which is behind all."""
    return tl.load(index + pair, mask=pair < pair_count, other=experts).to(tl.int32)


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
    target = inner + place.to(tl.int64)[None, :] * width + feature[:, None]
    tl.store(target, gated(gate, up).to(inner.dtype.element_ty), mask=there[None, :] & within[:, None])


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
