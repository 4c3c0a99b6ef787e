"""`canvas_attention` on the device: online softmax (Dao et al., arXiv 2205.14135) over tiles of keys, all or in runs.

The query heads that share a key head are rows of one matrix, so that each key is read once for all of them. Of wide
values a program makes only one part: the fp32 results of a whole row of 512 would not fit into registers. Where there
are fewer programs than processors, several share the keys, and a second kernel puts their results together.
"""

import triton
import triton.language as tl


@triton.jit(do_not_specialize=["canvas", "key_count", "places", "apart", "window"])
def attend(
    query,
    keys,
    values,
    mixed,
    sums,
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
    apart,
    window,
    rows: tl.constexpr,
    columns: tl.constexpr,
    depth: tl.constexpr,
    width: tl.constexpr,
    part: tl.constexpr,
    shown: tl.constexpr,
    splits: tl.constexpr,
):
    """Rows of one key head's group of queries, one part of the value's width; the names in pairs are strides.

    Of "all" keys, of "runs": the first `prefix` of so many places and `canvas_slots` of the row's own, which begin so
    many `apart` from those of the row before, behind the places; or "causal": a
    query sees its own key, of which the canvas's are the last, and those before it within the window; "causal runs"
    are both.

    With several `splits` a program sees one run of all these, and writes to `mixed` [splits, ...] what is to be divided
    by a sum; the sums [splits, 2, rows of the result] are the largest score and the sum of e to the others' distances.
    """
    parts: tl.constexpr = width // part
    in_runs: tl.constexpr = shown == "runs" or shown == "causal runs"
    is_causal: tl.constexpr = shown == "causal" or shown == "causal runs"
    batch = tl.program_id(2).to(tl.int64)
    shared, first = tl.program_id(1) // parts, tl.program_id(1) % parts * part
    row = tl.program_id(0) // splits * rows + tl.arange(0, rows)
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
    begin, span, own_place = 0, key_count, key_count - canvas
    last = tl.max(tl.where(there, position, 0))
    if shown == "causal":
        first_seen = tl.min(tl.where(there, position, canvas)) + own_place - window + 1
        begin = tl.maximum(first_seen, 0) // columns * columns
        span = own_place + last + 1
    if in_runs:
        known = tl.minimum(tl.load(prefix + batch), places).to(tl.int32)
        slots = last + 1 if is_causal else tl.load(canvas_slots + batch).to(tl.int32)
        own_place = places + tl.program_id(2) * apart
        # The second run begins with a tile of its own.
        padded = tl.cdiv(known, columns) * columns
        span = padded + slots
    begin, stop = _share(begin, span, columns, splits)
    for start in range(begin, stop, columns):
        at, end, origin = start, span, own_place
        if in_runs:
            behind = start >= padded
            at = tl.where(behind, start - padded + own_place, start)
            end = tl.where(behind, own_place + slots, known)
            origin = tl.where(behind, own_place, known)
        key = at + tl.arange(0, columns)
        visible = key < end
        k_row = k_place + key.to(tl.int64) * key_row
        scores = tl.zeros((rows, columns), tl.float32)
        for chunk in tl.static_range(0, width, depth):
            if depth != width:
                q = tl.load(q_place[:, None] + chunk + along[None, :], mask=there[:, None], other=0.0)
            k = tl.load(k_row[None, :] + chunk + along[:, None], mask=visible[None, :], other=0.0)
            scores = tl.dot(q, k, scores)
        seen = _seen(visible, position, key - origin, window, is_causal)
        scores = tl.where(seen, scores, -float("inf"))
        # Finite, also where a row has seen no key yet: e to minus infinity less minus infinity is no number.
        new = tl.maximum(tl.maximum(largest, tl.max(scores, 1)), -3.0e38)
        weight = tl.exp(scores - new[:, None])
        shrink = tl.exp(largest - new)
        total = total * shrink + tl.sum(weight, 1)
        v = tl.load(v_place[None, :] + (key.to(tl.int64) * value_row)[:, None], mask=visible[:, None], other=0.0)
        result = tl.dot(weight.to(v.dtype), v, result * shrink[:, None])
        largest = new
    line = (batch * canvas + position) * (key_heads * group) + head
    place = line * width + first
    if splits > 1:
        split, lines = tl.program_id(0) % splits, tl.num_programs(2).to(tl.int64) * canvas * key_heads * group
        place += split * lines * width
        tl.store(sums + split * 2 * lines + line, largest, mask=there)
        tl.store(sums + (split * 2 + 1) * lines + line, total, mask=there)
    else:
        result = result / total[:, None]
    tl.store(mixed + place[:, None] + across[None, :], result.to(mixed.dtype.element_ty), mask=there[:, None])


@triton.jit
def _seen(visible, position, key, window, is_causal: tl.constexpr):
    """[rows, columns] whether a query sees a key; positions are counted from the first query's own key."""
    seen = visible[None, :]
    if is_causal:
        ago = position[:, None] - key[None, :]
        seen = seen & (ago >= 0) & (ago < window)
    return seen


@triton.jit
def _share(begin, span, columns: tl.constexpr, splits: tl.constexpr):
    """The part of a run of keys that is this program's, in whole tiles."""
    stop = span
    if splits > 1:
        share = tl.cdiv(tl.cdiv(span - begin, columns), splits) * columns
        begin += tl.program_id(0) % splits * share
        stop = tl.minimum(span, begin + share)
    return begin, stop


@triton.jit
def merge_splits(parts, sums, mixed, lines, splits: tl.constexpr, width: tl.constexpr):
    """One line of the result, [width], from the splits that saw any of its keys."""
    line = tl.program_id(0).to(tl.int64)
    column = tl.arange(0, width)
    top = tl.load(sums + line)
    for split in tl.static_range(1, splits):
        top = tl.maximum(top, tl.load(sums + split * 2 * lines + line))
    total = 0.0
    result = tl.zeros((width,), tl.float32)
    for split in tl.static_range(splits):
        shrink = tl.exp(tl.load(sums + split * 2 * lines + line) - top)
        total += shrink * tl.load(sums + (split * 2 + 1) * lines + line)
        result += shrink * tl.load(parts + (split * lines + line) * width + column)
    tl.store(mixed + line * width + column, (result / total).to(mixed.dtype.element_ty))
