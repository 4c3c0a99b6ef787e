"""What an operation must read, write and compute at least: the floor that a measured time is compared with."""

from __future__ import annotations

from typing import NamedTuple

__all__ = [
    "Cost",
    "canvas_attention_cost",
    "expert_mlp_cost",
    "linear_cost",
    "row_cost",
    "soft_embedding_cost",
    "vocabulary_head_cost",
]


class Cost(NamedTuple):
    """Each operand read once and each result written once; a multiplication and an addition are two operations."""

    bytes: int
    flops: int

    def seconds(self, bytes_per_second: float, flops_per_second: float) -> float:
        """The least time on a device of these rates."""
        return max(self.bytes / bytes_per_second, self.flops / flops_per_second)


def vocabulary_head_cost(rows: int, vocabulary: int, width: int, *, size: int = 2) -> Cost:
    """Of `vocabulary_head`, with `size` bytes a number: the weight, the hidden states and the probabilities."""
    return Cost(size * (vocabulary * width + rows * width + rows * vocabulary), 2 * rows * vocabulary * width)


def soft_embedding_cost(rows: int, vocabulary: int, width: int, kept: int, unsure: int, *, size: int = 2) -> Cost:
    """Of `soft_embedding`: rows that are sure keep `kept` tokens in all, `unsure` others need the whole weight."""
    weight = vocabulary * width if unsure else kept * width
    return Cost(size * (rows * vocabulary + weight + rows * width), 2 * (unsure * vocabulary + kept) * width)


def canvas_attention_cost(
    batch: int,
    heads: int,
    key_heads: int,
    canvas: int,
    keys: int,
    width: int,
    *,
    pairs: int | None = None,
    size: int = 2,
) -> Cost:
    """Of `canvas_attention`: queries, keys, values, results; two products of D numbers for each pair, a head.

    The `pairs` are those of a query and a key that it sees, C K where all see all. A window must be taken out of `keys`
    by who asks.
    """
    numbers = 2 * batch * heads * canvas * width + 2 * batch * key_heads * keys * width
    return Cost(size * numbers, 4 * batch * heads * (canvas * keys if pairs is None else pairs) * width)


def expert_mlp_cost(rows: int, width: int, inner: int, chosen: int, distinct: int, *, weight_bits: float = 16) -> Cost:
    """Of `expert_mlp` with `chosen` experts a row and `distinct` experts in all: weights, rows in bf16, results."""
    weights = round(distinct * 3 * width * inner * weight_bits / 8)
    return Cost(weights + 2 * 2 * rows * width, 2 * rows * chosen * 3 * width * inner)


def linear_cost(rows: int, width: int, length: int, *, weight_bits: float = 16) -> Cost:
    """Of a product of rows [R, K] in bf16 with a weight [N, K]."""
    weights = round(width * length * weight_bits / 8)
    return Cost(weights + 2 * rows * (width + length), 2 * rows * width * length)


def row_cost(rows: int, width: int, arrays: int, *, size: int = 2) -> Cost:
    """Of an operation on rows that reads and writes so many [rows, width] arrays; its arithmetic does not count."""
    return Cost(size * arrays * rows * width, 0)
