"""`soft_embedding` on the device: rows that are sure gather their few embeddings, the others are a product.

One program scans one row and lists what is kept of it; it stops where that is too much. The other rows are numbered,
and the product is of those alone: its programs for rows that there are not end at once. It is cut along the vocabulary
too, since its result is small; a last kernel adds the parts in their order.
"""

import triton
import triton.language as tl


@triton.jit
def find_kept(probabilities, tokens, kept, vocabulary, least, dropped, most: tl.constexpr, columns: tl.constexpr):
    """The tokens [R, most] that are kept of each row, and how many [R]; -1 where the row is not sure."""
    row = tl.program_id(0).to(tl.int64)
    along = tl.arange(0, columns)
    count = tl.zeros((), tl.int32)
    rest = tl.zeros((), tl.float32)
    start = tl.zeros((), tl.int32)
    while (start < vocabulary) & (count <= most):
        token = start + along
        p = tl.load(probabilities + row * vocabulary + token, mask=token < vocabulary, other=0.0).to(tl.float32)
        chosen = p >= least
        found = tl.sum(chosen.to(tl.int32), 0)
        if found > 0:
            place = count + tl.cumsum(chosen.to(tl.int32), 0) - 1
            tl.store(tokens + row * most + place, token, mask=chosen & (place < most))
        rest += tl.sum(tl.where(chosen, 0.0, p), 0)
        count += found
        start += columns
    tl.store(kept + row, tl.where((count <= most) & (rest <= dropped), count, -1))


@triton.jit
def sum_kept(
    probabilities,
    weight,
    tokens,
    kept,
    result,
    vocabulary,
    width,
    most: tl.constexpr,
    columns: tl.constexpr,
    depth: tl.constexpr,
):
    """[R, width] at the rows that are sure."""
    row = tl.program_id(0).to(tl.int64)
    column = tl.program_id(1) * columns + tl.arange(0, columns)
    along = tl.arange(0, depth)
    within = column < width
    count = tl.load(kept + row)
    if count >= 0:
        total = tl.zeros((columns,), tl.float32)
        for start in range(0, count, depth):
            there = start + along < count
            token = tl.load(tokens + row * most + start + along, mask=there, other=0).to(tl.int64)
            p = tl.load(probabilities + row * vocabulary + token, mask=there, other=0.0).to(tl.float32)
            place = weight + token[:, None] * width + column[None, :]
            embedding = tl.load(place, mask=there[:, None] & within[None, :], other=0.0).to(tl.float32)
            total += tl.sum(p[:, None] * embedding, 0)
        tl.store(result + row * width + column, total.to(result.dtype.element_ty), mask=within)


@triton.jit
def list_unsure(kept, order, count, row_count, padded: tl.constexpr):
    """The numbers of the rows that are not sure, ascending, and how many there are."""
    row = tl.arange(0, padded)
    unsure = (tl.load(kept + row, mask=row < row_count, other=0) < 0).to(tl.int32)
    tl.store(order + tl.cumsum(unsure, 0) - 1, row, mask=unsure > 0)
    tl.store(count, tl.sum(unsure, 0))


@triton.jit
def unsure_product(
    probabilities,
    weight,
    order,
    count,
    parts,
    row_count,
    vocabulary,
    width,
    share,
    rows: tl.constexpr,
    columns: tl.constexpr,
    depth: tl.constexpr,
):
    """Parts [shares, R, width] of the product, by place in `order`, each over `share` tokens."""
    # The row block is the fast axis: all blocks of rows meet one tile of the weight while it is in the cache.
    place = tl.program_id(0) * rows + tl.arange(0, rows)
    column = tl.program_id(1) * columns + tl.arange(0, columns)
    along = tl.arange(0, depth)
    within = column < width
    listed = tl.load(count)
    if tl.program_id(0) * rows < listed:
        there = place < listed
        row = tl.load(order + place, mask=there, other=0).to(tl.int64)
        first = tl.program_id(2) * share
        left = probabilities + row[:, None] * vocabulary + along[None, :]
        total = tl.zeros((rows, columns), tl.float32)
        for start in range(first, tl.minimum(first + share, vocabulary), depth):
            seen = start + along < vocabulary
            p = tl.load(left + start, mask=there[:, None] & seen[None, :], other=0.0)
            embedding = tl.load(
                weight + (start + along.to(tl.int64))[:, None] * width + column[None, :],
                mask=seen[:, None] & within[None, :],
                other=0.0,
            )
            total = tl.dot(p, embedding, total)
        out = parts + (tl.program_id(2).to(tl.int64) * row_count + place)[:, None] * width + column[None, :]
        tl.store(out, total, mask=there[:, None] & within[None, :])


@triton.jit
def add_parts(parts, order, count, result, row_count, width, shares, columns: tl.constexpr):
    """[R, width] at the rows that are not sure."""
    place = tl.program_id(0).to(tl.int64)
    column = tl.program_id(1) * columns + tl.arange(0, columns)
    within = column < width
    if place < tl.load(count):
        total = tl.zeros((columns,), tl.float32)
        for share in range(shares):
            total += tl.load(parts + (share * row_count + place) * width + column, mask=within, other=0.0)
        row = tl.load(order + place).to(tl.int64)
        tl.store(result + row * width + column, total.to(result.dtype.element_ty), mask=within)
