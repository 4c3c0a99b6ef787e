"""`vocabulary_head` on the device: one program for each tile of rows by tokens, one for some rows, one for each tile.

A tile keeps, of its logits y: their largest m, s = sum e^(y - m), t = sum e^(y - m) (y - m), the place of m and one
token drawn from the tile. The entropy is then log S - T / S with sums rebased to the row's largest: nothing cancels
where it is near zero. The e^(y - m) themselves become probabilities by one factor for each row of a tile.
"""

import triton
import triton.language as tl


@triton.jit
def tile_statistics(
    hidden,
    weight,
    masses,
    temperature,
    uniform,
    sums,
    tokens,
    favoured,
    nats,
    masks,
    number,
    row_count,
    vocabulary,
    width,
    cap,
    rows: tl.constexpr,
    columns: tl.constexpr,
    depth: tl.constexpr,
    whole: tl.constexpr,
    banned: tl.constexpr,
):
    """Sums [3, padded rows, tiles] and tokens [2, padded rows, tiles] of one tile, and its `masses` of [rows, V]."""
    # The row block is the fast axis: all blocks of rows meet one tile of the weight while it is in the cache.
    tile, tiles = tl.program_id(1), tl.num_programs(1)
    row = tl.program_id(0) * rows + tl.arange(0, rows)
    token = tile * columns + tl.arange(0, columns)
    along = tl.arange(0, depth)
    row_there, token_there = row < row_count, token < vocabulary
    left = hidden + row.to(tl.int64)[:, None] * width + along[None, :]
    right = weight + token.to(tl.int64)[None, :] * width + along[:, None]
    total = tl.zeros((rows, columns), tl.float32)
    for start in range(0, width, depth):
        if whole:
            x = tl.load(left + start, mask=row_there[:, None], other=0.0)
            w = tl.load(right + start, mask=token_there[None, :], other=0.0)
        else:
            inside = start + along < width
            x = tl.load(left + start, mask=row_there[:, None] & inside[None, :], other=0.0)
            w = tl.load(right + start, mask=token_there[None, :] & inside[:, None], other=0.0)
        total = tl.dot(x, w, total)
    warmth = tl.load(temperature + row, mask=row_there, other=1.0)
    # tanh by the exponential; beyond 40 it is 1 in fp32.
    y = (1.0 - 2.0 / (tl.exp(tl.minimum(total * (2.0 / cap), 40.0)) + 1.0)) * cap
    there = row_there[:, None] & token_there[None, :]
    more = tl.load(nats + row, mask=row_there, other=0.0)
    chosen = tl.load(favoured + row, mask=row_there, other=0)
    y += tl.where(chosen[:, None] == token[None, :], more[:, None], 0.0)
    mask = tl.load(number + row, mask=row_there, other=-1)
    place = masks + mask[:, None] * vocabulary + token[None, :]
    y = tl.where(tl.load(place, mask=there & (mask >= 0)[:, None], other=1) != 0, y, banned)
    y *= (1.0 / warmth)[:, None]
    y = tl.where(token_there[None, :], y, -float("inf"))
    largest = tl.max(y, 1)
    shifted = tl.where(token_there[None, :], y - largest[:, None], 0.0)
    mass = tl.where(token_there[None, :], tl.exp(shifted), 0.0)
    tl.store(
        masses + row.to(tl.int64)[:, None] * vocabulary + token[None, :], mass.to(masses.dtype.element_ty), mask=there
    )
    sum_ = tl.sum(mass, 1)
    out = row.to(tl.int64) * tiles + tile
    plane = tl.num_programs(0).to(tl.int64) * rows * tiles
    tl.store(sums + out, largest)
    tl.store(sums + plane + out, sum_)
    tl.store(sums + 2 * plane + out, tl.sum(mass * shifted, 1))
    tl.store(tokens + out, tl.argmax(y, 1) + tile * columns)
    bits = tl.load(uniform + row, mask=row_there, other=0.0).to(tl.int32, bitcast=True)
    draw = tl.rand(0, (bits.to(tl.int64) << 32) | tile)
    tl.store(tokens + plane + out, _inverse(mass, draw * sum_, columns) + tile * columns)


@triton.jit
def _inverse(mass, target, columns: tl.constexpr):
    """In each row the first place where the running sum exceeds the target, at most the last place with any mass."""
    beyond = tl.sum((tl.cumsum(mass, 1) <= target[:, None]).to(tl.int32), 1)
    last = tl.max(tl.where(mass > 0, tl.arange(0, columns)[None, :], 0), 1)
    return tl.minimum(beyond, last)


@triton.jit
def merge_tiles(
    sums,
    tokens,
    uniform,
    argmax,
    confidence,
    entropy,
    sample,
    normaliser,
    row_count,
    tiles,
    plane,
    rows: tl.constexpr,
    padded: tl.constexpr,
):
    """From the tiles' numbers to those of whole rows."""
    row = tl.program_id(0) * rows + tl.arange(0, rows)
    tile = tl.arange(0, padded)[None, :]
    row_there = row < row_count
    there = row_there[:, None] & (tile < tiles)
    base = row.to(tl.int64) * tiles
    place = base[:, None] + tile
    largest = tl.load(sums + place, mask=there, other=-float("inf"))
    top = tl.where(row_there, tl.max(largest, 1), 0.0)
    shift = tl.where(there, largest - top[:, None], 0.0)
    mass = tl.where(there, tl.exp(shift) * tl.load(sums + plane + place, mask=there, other=0.0), 0.0)
    moment = tl.exp(shift) * tl.load(sums + 2 * plane + place, mask=there, other=0.0) + mass * shift
    total = tl.where(row_there, tl.sum(mass, 1), 1.0)
    spread = tl.log(total)
    tl.store(normaliser + row, top + spread, mask=row_there)
    tl.store(entropy + row, tl.maximum(spread - tl.sum(moment, 1) / total, 0.0), mask=row_there)
    tl.store(confidence + row, 1.0 / total, mask=row_there)
    best = tl.load(tokens + base + tl.argmax(largest, 1), mask=row_there)
    tl.store(argmax + row, best.to(tl.int64), mask=row_there)
    chosen = _inverse(mass, tl.load(uniform + row, mask=row_there, other=0.0) * total, padded)
    tl.store(sample + row, tl.load(tokens + plane + base + chosen, mask=row_there).to(tl.int64), mask=row_there)


@triton.jit
def scale_tiles(masses, sums, normaliser, row_count, vocabulary, tiles, rows: tl.constexpr, columns: tl.constexpr):
    """Masses of tiles to probabilities of rows, where they lie."""
    row = tl.program_id(0) * rows + tl.arange(0, rows)
    tile = tl.program_id(1)
    token = tile * columns + tl.arange(0, columns)
    row_there = row < row_count
    largest = tl.load(sums + row.to(tl.int64) * tiles + tile, mask=row_there, other=0.0)
    factor = tl.exp(largest - tl.load(normaliser + row, mask=row_there, other=0.0))
    place = masses + row.to(tl.int64)[:, None] * vocabulary + token[None, :]
    there = row_there[:, None] & (token < vocabulary)[None, :]
    scaled = tl.load(place, mask=there, other=0.0).to(tl.float32) * factor[:, None]
    tl.store(place, scaled.to(masses.dtype.element_ty), mask=there)
