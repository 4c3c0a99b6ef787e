"""The least time of a denoising step: for each of its parts, its bytes or its arithmetic at the rates of the device."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from dg_engine.config import ModelConfig
from dg_engine.full_size.weights import BITS, Bits, Stored
from dg_kernels.bench import Rates
from dg_kernels.costs import Cost, canvas_attention_cost, expert_mlp_cost, vocabulary_head_cost


def step_floor(config: ModelConfig, canvas: int, prefix: int, bits: Bits, rates: Rates) -> float:
    """Seconds: the parts follow one another, so their floors add up."""
    parts = step_parts(config, canvas, prefix, bits)
    return sum(part.times * rates.floor(part.cost, in_e4m3=part.in_e4m3) for part in parts)


class Part(NamedTuple):
    """Something that a step does several times."""

    times: int
    cost: Cost
    in_e4m3: bool = False
    """Whether its products are, where the device has them."""


def step_parts(config: ModelConfig, canvas: int, prefix: int, bits: Bits) -> Iterator[Part]:
    """Experts, attention of both kinds, dense matrices, head, self-conditioning."""
    layers, hidden = config.num_hidden_layers, config.hidden_size
    share = config.top_k_experts / config.num_experts
    # Of experts that rows choose evenly.
    distinct = round(config.num_experts * (1 - (1 - share) ** canvas))
    inner, chosen = config.moe_intermediate_size, config.top_k_experts
    experts = expert_mlp_cost(canvas, hidden, inner, chosen, distinct, weight_bits=bits.experts.bits)
    yield Part(layers, experts, bits.experts.in_e4m3)
    for layer in range(layers):
        key_heads, width = config.head_shape(layer)
        sliding = config.is_sliding(layer)
        seen = canvas + (min(prefix, config.window - 1) if sliding else prefix)
        heads = config.num_attention_heads
        yield Part(1, canvas_attention_cost(1, heads, key_heads, canvas, seen, width))
        projected = hidden * width * (2 * heads + (2 if sliding else 1) * key_heads)
        yield _product(1, canvas, projected, bits.projections)
        yield _product(1, canvas, hidden * config.num_experts)
    dense = 3 * hidden * config.intermediate_size
    yield _product(layers, canvas, dense, bits.projections)
    yield _product(1, canvas, dense)
    # The mean embedding reads the probabilities that the head wrote, and the embedding again.
    yield Part(2, vocabulary_head_cost(canvas, config.vocab_size, hidden))


def _product(times: int, rows: int, weights: int, stored: Stored = BITS["bf16"].projections) -> Part:
    """Of rows with matrices of so many numbers; the rows themselves stay in a cache."""
    return Part(times, Cost(round(weights * stored.bits / 8), 2 * rows * weights), stored.in_e4m3)
