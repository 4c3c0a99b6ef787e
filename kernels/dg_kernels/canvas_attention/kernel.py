"""`canvas_attention` on the device: online softmax (Dao et al., arXiv 2205.14135) over tiles of keys, all or in runs.

The query heads that share a key head are rows of one matrix, so that each key is read once for all of them. Of wide
values a program makes only one part: the fp32 results of a whole row of 512 would not fit into registers.
"""

import triton
import triton.language as tl


@triton.jit
def attend(
    query,
    keys,
    values,
    mixed,
    prefix,
    canvas_slots,
    query_batch,
    query_head,
    query_row,
    key_batch,
    key_head,
    key_row,
    value_batch,
    value_head,
    value_row,
    key_heads,
    group,
    canvas,
    key_count,
    places,
    rows: tl.constexpr,
    columns: tl.constexpr,
    depth: tl.constexpr,
    width: tl.constexpr,
    part: tl.constexpr,
    runs: tl.constexpr,
):
    """Rows of one key head's group of queries, one part of the value's width; the names in pairs are strides.

    With `runs` a batch row sees the first `prefix` of so many places, and `canvas_slots` keys behind the places.
    """
    parts: tl.constexpr = width // part
    batch = tl.program_id(2).to(tl.int64)
    shared, first = tl.program_id(1) // parts, tl.program_id(1) % parts * part
    row = tl.program_id(0) * rows + tl.arange(0, rows)
    head, position = shared * group + row // canvas, row % canvas
    there = row < group * canvas
    along, across = tl.arange(0, depth), tl.arange(0, part)
    q_place = query + batch * query_batch + head.to(tl.int64) * query_head + position.to(tl.int64) * query_row
    k_place = keys + batch * key_batch + shared.to(tl.int64) * key_head
    v_place = values + batch * value_batch + shared.to(tl.int64) * value_head + first + across
    if depth == width:
        q = tl.load(q_place[:, None] + along[None, :], mask=there[:, None], other=0.0)
    largest = tl.full((rows,), -float("inf"), tl.float32)
    total = tl.zeros((rows,), tl.float32)
    result = tl.zeros((rows, part), tl.float32)
    span = key_count
    if runs:
        known = tl.minimum(tl.load(prefix + batch), places).to(tl.int32)
        slots = tl.load(canvas_slots + batch).to(tl.int32)
        # The second run begins with a tile of its own.
        padded = tl.cdiv(known, columns) * columns
        span = padded + slots
    for start in range(0, span, columns):
        begin, end = start, span
        if runs:
            behind = start >= padded
            begin = tl.where(behind, start - padded + places, start)
            end = tl.where(behind, places + slots, known)
        key = begin + tl.arange(0, columns)
        visible = key < end
        k_row = k_place + key.to(tl.int64) * key_row
        scores = tl.zeros((rows, columns), tl.float32)
        for chunk in tl.static_range(0, width, depth):
            if depth != width:
                q = tl.load(q_place[:, None] + chunk + along[None, :], mask=there[:, None], other=0.0)
            k = tl.load(k_row[None, :] + chunk + along[:, None], mask=visible[None, :], other=0.0)
            scores = tl.dot(q, k, scores)
        scores = tl.where(visible[None, :], scores, -float("inf"))
        new = tl.maximum(largest, tl.max(scores, 1))
        weight = tl.exp(scores - new[:, None])
        shrink = tl.exp(largest - new)
        total = total * shrink + tl.sum(weight, 1)
        v = tl.load(v_place[None, :] + (key.to(tl.int64) * value_row)[:, None], mask=visible[:, None], other=0.0)
        result = tl.dot(weight.to(v.dtype), v, result * shrink[:, None])
        largest = new
    place = (batch * canvas + position) * (key_heads * group * width) + head * width + first
    result = result / total[:, None]
    tl.store(mixed + place[:, None] + across[None, :], result.to(mixed.dtype.element_ty), mask=there[:, None])
