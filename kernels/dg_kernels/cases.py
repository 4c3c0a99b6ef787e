"""What is timed and tuned: every operation that has a kernel, at the shapes of one model, on random numbers.

Weights, keys and values come from memory: those that the L2 cache would hold lie there in copies, twice the cache
together, of which every call takes the next. Rows are where the operation before left them: in the cache.
"""

from __future__ import annotations

import functools
import itertools
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from dg_kernels import (
    Causal,
    CausalRuns,
    Heads,
    Mask,
    Norm,
    PackedWeight,
    VisibleRuns,
    add_attention,
    add_feed_forward,
    canvas_attention,
    choose_experts,
    expert_mlp,
    gated_gelu,
    norm_rotary,
    packed_expert_mlp,
    packed_linear,
    quantise_rows,
    random_numbers,
    rotary_angles,
    soft_embedding,
    vocabulary_head,
)
from dg_kernels.costs import (
    Cost,
    canvas_attention_cost,
    expert_mlp_cost,
    linear_cost,
    row_cost,
    soft_embedding_cost,
    vocabulary_head_cost,
)
from dg_kernels.launching import blocks
from dg_kernels.quantised.packed import WEIGHT_BITS, random_weight

_Make = Callable[..., Tensor]
_EPS = 1e-6
_DROPPED = 2.0**-9
"""Of a row's probability: half a unit in the last place of bf16."""


@dataclass(frozen=True)
class Sizes:
    """The shapes of one model."""

    canvas: int
    chunk: int
    """Of a prefix, encoded at a time."""
    prefix: int
    window: int
    """Tokens of a prefix that sliding layers see."""
    hidden: int
    vocabulary: int
    heads: int
    experts: int
    chosen: int
    inner: int
    attentions: tuple[tuple[str, int, int], ...]
    """Name, key heads and width of each kind of layer; the first sees a window of the prefix only."""


HEAD_PRODUCT = "the head's product alone, PyTorch"

FULL = Sizes(256, 512, 8192, 1023, 2816, 262_144, 16, 128, 8, 704, (("sliding layer", 8, 256), ("full layer", 2, 512)))
TOY = Sizes(32, 48, 128, 63, 64, 1024, 4, 8, 2, 64, (("sliding layer", 2, 32), ("full layer", 1, 64)))


@dataclass(frozen=True)
class Case:
    """One operation at one shape."""

    call: Callable[[], Any]
    cost: Cost
    operands: tuple[Tensor, ...]
    in_e4m3: bool = False
    """Whether its products are of e4m3, where the device has them."""
    has_kernel: bool = True
    """Whether it is one of ours, and no library's."""


def cases(sizes: Sizes, device: torch.device) -> dict[str, Callable[[], Case]]:
    """Every operation that has a kernel, by name; its random numbers are drawn when it is called."""
    make = functools.partial(torch.randn, device=device, dtype=torch.bfloat16)
    found: dict[str, Callable[[], Case]] = {}
    for name, shown in (("", "runs"), (", a chunk", "causal runs"), (", a chunk without places", "causal")):
        for layer, (kind, *shape) in enumerate(sizes.attentions):
            prefix = sizes.prefix if layer else sizes.window
            window = None if layer else sizes.window + 1
            one = functools.partial(_canvas_attention, make, sizes, *shape, prefix=prefix, window=window, shown=shown)
            found[f"canvas_attention, {kind}{name}"] = one
    found["expert_mlp"] = functools.partial(_expert_mlp, make, sizes)
    for format_ in WEIGHT_BITS:
        for native in (False, True) if format_ == "fp8" else (False,):
            name = f"{format_}, native" if native else format_
            for packed in (_packed_expert_mlp, _packed_linear):
                one = functools.partial(packed, make, sizes, format_, native=native)
                found[f"{packed.__name__.removeprefix('_')}, {name}"] = one
    found["quantise_rows"] = functools.partial(_quantise_rows, make, sizes)
    found["vocabulary_head"] = functools.partial(_vocabulary_head, make, sizes)
    found[HEAD_PRODUCT] = functools.partial(_head_product, make, sizes)
    for sure in (0.0, 0.5, 1.0):
        found[f"soft_embedding, {sure:.0%} of the rows sure"] = functools.partial(_soft_embedding, make, sizes, sure)
    for operation in (_norm_rotary, _add_attention, _add_feed_forward, _gated_gelu, _choose_experts, _random_numbers):
        found[operation.__name__.removeprefix("_")] = functools.partial(operation, make, sizes)
    return found


def narrow_cases(sizes: Sizes, device: torch.device) -> dict[str, Callable[[], Case]]:
    """What small models run and the released one does not: attention of narrower heads."""
    make = functools.partial(torch.randn, device=device, dtype=torch.bfloat16)
    return {
        f"canvas_attention, heads of {width}": functools.partial(
            _canvas_attention, make, sizes, 4, width, prefix=sizes.prefix, window=None, shown="runs"
        )
        for width in (64, 128)
    }


def from_memory(call: Callable[..., Any], *operands: Tensor | PackedWeight) -> Callable[[], Any]:
    """Call with operands that no cache has: each time with the next of so many copies as the L2 cache holds half of."""
    first = operands[0].values if isinstance(operands[0], PackedWeight) else operands[0]
    count = max(1, blocks(2 * cache_bytes(first.device), sum(one.nbytes for one in operands)))
    lying = itertools.cycle([operands, *([_copied(one) for one in operands] for _ in range(count - 1))])
    return lambda: call(*next(lying))


def cache_bytes(device: torch.device) -> int:
    """Of the last cache before a GPU's memory; of a CPU's nothing is said."""
    return int(torch.cuda.get_device_properties(device).L2_cache_size) if device.type == "cuda" else 0


def _copied(operand: Tensor | PackedWeight) -> Tensor | PackedWeight:
    if isinstance(operand, Tensor):
        return operand.clone()
    scale = None if operand.scale is None else operand.scale.clone()
    return replace(operand, values=operand.values.clone(), scale=scale, factor=operand.factor.clone())


def _canvas_attention(
    make: _Make, sizes: Sizes, key_heads: int, width: int, *, prefix: int, window: int | None, shown: str
) -> Case:
    """Of a canvas in a step ("runs"), or of a chunk of a prefix, in a captured pass ("causal runs") or in another."""
    count = sizes.canvas if shown == "runs" else sizes.chunk
    query = make(1, count, sizes.heads, width).transpose(1, 2) * width**-0.5
    keys, values = (make(1, key_heads, prefix + count, width) for _ in range(2))
    known, own = (torch.full((1,), tokens, device=query.device) for tokens in (prefix, count))
    rules: dict[str, Mask] = {
        "runs": VisibleRuns(known, own, prefix),
        "causal": Causal(window),
        "causal runs": CausalRuns(known, own, prefix, window),
    }
    mask = rules[shown]
    call = from_memory(lambda keys, values: canvas_attention(query, keys, values, mask), keys, values)
    pairs = None if shown == "runs" else sum(min(prefix + row + 1, window or sys.maxsize) for row in range(count))
    cost = canvas_attention_cost(1, sizes.heads, key_heads, count, prefix + count, width, pairs=pairs)
    return Case(call, cost, (query, keys, values))


def _expert_mlp(make: _Make, sizes: Sizes) -> Case:
    x = make(sizes.canvas, sizes.hidden)
    gate_up = make(sizes.experts, 2 * sizes.inner, sizes.hidden) * sizes.hidden**-0.5
    down = make(sizes.experts, sizes.hidden, sizes.inner) * sizes.inner**-0.5
    index, weight, distinct = _routing(make, sizes)
    cost = expert_mlp_cost(sizes.canvas, sizes.hidden, sizes.inner, sizes.chosen, distinct)
    call = from_memory(lambda gate_up, down: expert_mlp(x, gate_up, down, index, weight), gate_up, down)
    return Case(call, cost, (x, gate_up, down))


def _packed_expert_mlp(make: _Make, sizes: Sizes, format_: str, *, native: bool) -> Case:
    """Products are `native` where the device has them."""
    x = make(sizes.canvas, sizes.hidden)
    shapes = (sizes.experts, 2 * sizes.inner, sizes.hidden), (sizes.experts, sizes.hidden, sizes.inner)
    weights = _weights(x.device, format_, *shapes, native=native)
    index, weight, distinct = _routing(make, sizes)
    bits = WEIGHT_BITS[format_]
    cost = expert_mlp_cost(sizes.canvas, sizes.hidden, sizes.inner, sizes.chosen, distinct, weight_bits=bits)
    call = from_memory(lambda gate_up, down: packed_expert_mlp(x, gate_up, down, index, weight), *weights)
    return Case(call, cost, (x,), in_e4m3=native)


def _packed_linear(make: _Make, sizes: Sizes, format_: str, *, native: bool) -> Case:
    """Queries, keys and values of the first kind of layer, which read the same rows."""
    x, (_, key_heads, head) = make(sizes.canvas, sizes.hidden), sizes.attentions[0]
    width = (sizes.heads + 2 * key_heads) * head
    weights = _weights(x.device, format_, (width, sizes.hidden), native=native)
    cost = linear_cost(sizes.canvas, width, sizes.hidden, weight_bits=WEIGHT_BITS[format_])
    return Case(from_memory(lambda weight: packed_linear(x, weight), *weights), cost, (x,), in_e4m3=native)


def _weights(device: torch.device, format_: str, *shapes: tuple[int, ...], native: bool) -> list[PackedWeight]:
    """Of a deviation that keeps what comes out about as large as what goes in."""
    generator = torch.Generator(device).manual_seed(0)
    weights = (random_weight(format_, shape, shape[-1] ** -0.5, generator) for shape in shapes)
    return [replace(one, quantises_rows=native) for one in weights]


def _quantise_rows(make: _Make, sizes: Sizes) -> Case:
    x = make(sizes.canvas, sizes.hidden)
    return Case(lambda: quantise_rows(x), row_cost(sizes.canvas, sizes.hidden, 3, size=1), (x,))


def _routing(make: _Make, sizes: Sizes) -> tuple[Tensor, Tensor, int]:
    """Experts of each row, their weights, and how many of the experts have any row."""
    weight, index = make(sizes.canvas, sizes.experts).float().softmax(-1).topk(sizes.chosen)
    return index, weight, int(torch.bincount(index.flatten()).count_nonzero())


def _vocabulary_head(make: _Make, sizes: Sizes) -> Case:
    hidden, weight = _head(make, sizes)
    uniform = torch.rand(sizes.canvas, device=hidden.device)
    temperature = torch.full_like(uniform, 0.6)
    return Case(
        lambda: vocabulary_head(hidden, weight, cap=30.0, temperature=temperature, uniform=uniform),
        vocabulary_head_cost(sizes.canvas, sizes.vocabulary, sizes.hidden),
        (hidden, weight),
    )


def _head_product(make: _Make, sizes: Sizes) -> Case:
    """What the statistics cost is what lies between this and `vocabulary_head`."""
    hidden, weight = _head(make, sizes)
    cost = linear_cost(sizes.canvas, sizes.vocabulary, sizes.hidden)
    return Case(lambda: functional.linear(hidden, weight), cost, (hidden, weight), has_kernel=False)


def _head(make: _Make, sizes: Sizes) -> tuple[Tensor, Tensor]:
    return make(sizes.canvas, sizes.hidden), make(sizes.vocabulary, sizes.hidden) * sizes.hidden**-0.5


def _soft_embedding(make: _Make, sizes: Sizes, share: float) -> Case:
    """A share of the rows knows its token, the others know nothing, as between the first steps and the last."""
    sure = round(share * sizes.canvas)
    probabilities = make(sizes.canvas, sizes.vocabulary).softmax(-1)
    probabilities[:sure] = 0.0
    probabilities[:sure, 7] = 1.0
    weight = make(sizes.vocabulary, sizes.hidden) * sizes.hidden**-0.5
    return Case(
        lambda: soft_embedding(probabilities, weight, dropped=_DROPPED),
        soft_embedding_cost(sizes.canvas, sizes.vocabulary, sizes.hidden, sure, sizes.canvas - sure),
        (probabilities, weight),
    )


def _norm_rotary(make: _Make, sizes: Sizes) -> Case:
    """Of the first kind of layer."""
    _, key_heads, width = sizes.attentions[0]
    counts, weight = (sizes.heads, key_heads, key_heads), make(width)
    raw = Heads(*(make(1, sizes.canvas, heads, width) for heads in counts))
    angles = rotary_angles(torch.arange(sizes.canvas, device=weight.device), head_dim=width, theta=10_000.0)
    cosines, sines = (one.to(weight.dtype) for one in angles)
    cost = row_cost(sizes.canvas, (sizes.heads + 2 * key_heads) * width, 2)
    operands = weight, weight, cosines, sines
    return Case(lambda: norm_rotary(raw, *operands, _EPS), cost, (*raw, *operands))


def _add_attention(make: _Make, sizes: Sizes) -> Case:
    x, other, weight = make(sizes.canvas, sizes.hidden), make(sizes.canvas, sizes.hidden), make(sizes.hidden)
    cost = row_cost(sizes.canvas, sizes.hidden, 6)
    norm = Norm(weight)
    return Case(lambda: add_attention(x, other, weight, norm, norm, weight, _EPS), cost, (x, other, weight))


def _add_feed_forward(make: _Make, sizes: Sizes) -> Case:
    x, dense = (make(sizes.canvas, sizes.hidden) for _ in range(2))
    mixed, weight, scalar = make(sizes.canvas, sizes.chosen, sizes.hidden), make(sizes.hidden), make(1)
    weights, following = (weight, weight, weight), Norm(weight)
    return Case(
        lambda: add_feed_forward(x, dense, mixed, weights, scalar, following, _EPS),
        row_cost(sizes.canvas, sizes.hidden, 4 + sizes.chosen),
        (x, dense, mixed, weight, scalar),
    )


def _gated_gelu(make: _Make, sizes: Sizes) -> Case:
    """Of the dense MLP, which is as wide as three experts."""
    gate, up = make(2, sizes.canvas, 3 * sizes.inner)
    return Case(lambda: gated_gelu(gate, up), row_cost(sizes.canvas, 3 * sizes.inner, 3), (gate, up))


def _random_numbers(make: _Make, sizes: Sizes) -> Case:
    """Of as many rows as stand behind one prefix where lengths are tried; 12 bytes a slot."""
    seed = torch.arange(8, device=make(1).device)
    call = functools.partial(random_numbers, seed, seed, sizes.canvas, sizes.vocabulary)
    return Case(call, row_cost(len(seed), sizes.canvas, 12, size=1), (seed,))


def _choose_experts(make: _Make, sizes: Sizes) -> Case:
    logits, scale = make(sizes.canvas, sizes.experts), make(sizes.experts)
    cost = row_cost(sizes.canvas, sizes.experts, 1)
    return Case(lambda: choose_experts(logits, scale, sizes.chosen), cost, (logits, scale))
