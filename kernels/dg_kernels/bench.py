"""How fast each operation is here, beside the least time that its bytes and its arithmetic need.

    python -m dg_kernels.bench           # on a GPU at the shapes of DiffusionGemma-26B-A4B, else at toy size
    python -m dg_kernels.bench --toy     # at toy size anywhere

The floor of an operation follows from its cost and from two rates that are measured first: of copying and of a large
matrix product. On a GPU launches are replayed from a graph, so that the host's own time is not in them; weights and
logits are larger than any cache, keys and values of sliding layers are not. At toy size the table shows that everything
runs: the shares are those of caches and of overhead.
"""

from __future__ import annotations

import argparse
import functools
import platform
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.utils.benchmark import Timer

from dg_kernels import (
    add_attention,
    add_feed_forward,
    canvas_attention,
    choose_experts,
    expert_mlp,
    norm_rotary,
    packed_expert_mlp,
    packed_linear,
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
from dg_kernels.launching import pytorch_only, served
from dg_kernels.quantised.packed import WEIGHT_BITS, random_weight
from dg_kernels.quantised.rows import multiplies_e4m3

_Make = Callable[..., Tensor]
_EPS = 1e-6
_DROPPED = 2.0**-9
"""Of a row's probability: half a unit in the last place of bf16."""


@dataclass(frozen=True)
class Sizes:
    """The shapes of one model."""

    canvas: int
    prefix: int
    window: int
    hidden: int
    vocabulary: int
    heads: int
    experts: int
    chosen: int
    inner: int
    attentions: tuple[tuple[str, int, int], ...]
    """Name, key heads and width of each kind of layer; the first sees a window of the prefix only."""


HEAD_PRODUCT = "the head's product alone, PyTorch"

FULL = Sizes(256, 8192, 1023, 2816, 262_144, 16, 128, 8, 704, (("sliding layer", 8, 256), ("full layer", 2, 512)))
TOY = Sizes(32, 128, 63, 64, 1024, 4, 8, 2, 64, (("sliding layer", 2, 32), ("full layer", 1, 64)))


@dataclass(frozen=True)
class Case:
    """One operation at one shape."""

    name: str
    call: Callable[[], Any]
    cost: Cost
    operands: tuple[Tensor, ...]
    in_e4m3: bool = False
    """Whether its products are of e4m3, where the device has them."""


@dataclass(frozen=True)
class Rates:
    """What this device reached: bytes copied, and operations of a matrix product, in a second."""

    bytes: float
    flops: float
    """In bf16."""
    e4m3_flops: float
    """The same in e4m3 where the device multiplies it, else the rate in bf16."""

    def floor(self, cost: Cost, *, in_e4m3: bool = False) -> float:
        """The least seconds of an operation."""
        return cost.seconds(self.bytes, self.e4m3_flops if in_e4m3 else self.flops)


def cases(sizes: Sizes, device: torch.device) -> Iterator[Case]:
    """Every operation that has a kernel, on random numbers."""
    make = functools.partial(torch.randn, device=device, dtype=torch.bfloat16)
    for position, (name, key_heads, width) in enumerate(sizes.attentions):
        seen = sizes.canvas + (sizes.prefix if position else sizes.window)
        yield _canvas_attention(name, make, sizes, seen, key_heads, width)
    yield _expert_mlp(make, sizes)
    for format_, bits in WEIGHT_BITS.items():
        yield _packed_expert_mlp(make, sizes, format_, bits)
        yield _packed_linear(make, sizes, format_, bits)
    yield _packed_expert_mlp(make, sizes, "fp8", WEIGHT_BITS["fp8"], native=True)
    yield _packed_linear(make, sizes, "fp8", WEIGHT_BITS["fp8"], native=True)
    yield from _vocabulary_head(make, sizes)
    for sure in (0.0, 0.5, 1.0):
        yield _soft_embedding(make, sizes, sure)
    yield _norm_rotary(make, sizes)
    yield from _residual_norms(make, sizes)
    yield _choose_experts(make, sizes)


def _canvas_attention(name: str, make: _Make, sizes: Sizes, seen: int, key_heads: int, width: int) -> Case:
    query = make(1, sizes.canvas, sizes.heads, width).transpose(1, 2) * width**-0.5
    keys, values = make(1, key_heads, seen, width), make(1, key_heads, seen, width)
    cost = canvas_attention_cost(1, sizes.heads, key_heads, sizes.canvas, seen, width)
    return Case(
        f"canvas_attention, {name}",
        lambda: canvas_attention(query, keys, values),
        cost,
        (query, keys, values),
    )


def _expert_mlp(make: _Make, sizes: Sizes) -> Case:
    x = make(sizes.canvas, sizes.hidden)
    gate_up = make(sizes.experts, 2 * sizes.inner, sizes.hidden) * sizes.hidden**-0.5
    down = make(sizes.experts, sizes.hidden, sizes.inner) * sizes.inner**-0.5
    index, weight, distinct = _routing(make, sizes)
    cost = expert_mlp_cost(sizes.canvas, sizes.hidden, sizes.inner, sizes.chosen, distinct)
    return Case("expert_mlp", lambda: expert_mlp(x, gate_up, down, index, weight), cost, (x, gate_up, down))


def _packed_expert_mlp(make: _Make, sizes: Sizes, format_: str, bits: float, *, native: bool = False) -> Case:
    """Products are `native` where the device has them."""
    x = make(sizes.canvas, sizes.hidden)
    generator = torch.Generator(x.device).manual_seed(0)
    gate_up = random_weight(format_, (sizes.experts, 2 * sizes.inner, sizes.hidden), sizes.hidden**-0.5, generator)
    down = random_weight(format_, (sizes.experts, sizes.hidden, sizes.inner), sizes.inner**-0.5, generator)
    gate_up, down = (replace(one, quantises_rows=native) for one in (gate_up, down))
    index, weight, distinct = _routing(make, sizes)
    cost = expert_mlp_cost(sizes.canvas, sizes.hidden, sizes.inner, sizes.chosen, distinct, weight_bits=bits)
    name = f"packed_expert_mlp, {format_}{', native' if native else ''}"
    return Case(name, lambda: packed_expert_mlp(x, gate_up, down, index, weight), cost, (x,), in_e4m3=native)


def _packed_linear(make: _Make, sizes: Sizes, format_: str, bits: float, *, native: bool = False) -> Case:
    """The queries of the first kind of layer."""
    x, width = make(sizes.canvas, sizes.hidden), sizes.heads * sizes.attentions[0][2]
    generator = torch.Generator(x.device).manual_seed(0)
    weight = random_weight(format_, (width, sizes.hidden), sizes.hidden**-0.5, generator)
    weight = replace(weight, quantises_rows=native)
    cost = linear_cost(sizes.canvas, width, sizes.hidden, weight_bits=bits)
    name = f"packed_linear, {format_}{', native' if native else ''}"
    return Case(name, lambda: packed_linear(x, weight), cost, (x,), in_e4m3=native)


def _routing(make: _Make, sizes: Sizes) -> tuple[Tensor, Tensor, int]:
    """Experts of each row, their weights, and how many of the experts have any row."""
    weight, index = make(sizes.canvas, sizes.experts).float().softmax(-1).topk(sizes.chosen)
    return index, weight, int(torch.bincount(index.flatten()).count_nonzero())


def _vocabulary_head(make: _Make, sizes: Sizes) -> Iterator[Case]:
    """The head, and its product alone: what lies between them is what the statistics cost."""
    hidden = make(sizes.canvas, sizes.hidden)
    weight = make(sizes.vocabulary, sizes.hidden) * sizes.hidden**-0.5
    uniform = torch.rand(sizes.canvas, device=hidden.device)
    temperature = torch.full_like(uniform, 0.6)
    yield Case(
        "vocabulary_head",
        lambda: vocabulary_head(hidden, weight, cap=30.0, temperature=temperature, uniform=uniform),
        vocabulary_head_cost(sizes.canvas, sizes.vocabulary, sizes.hidden),
        (hidden, weight),
    )
    yield Case(
        HEAD_PRODUCT,
        lambda: functional.linear(hidden, weight),
        linear_cost(sizes.canvas, sizes.vocabulary, sizes.hidden),
        (hidden, weight),
    )


def _soft_embedding(make: _Make, sizes: Sizes, share: float) -> Case:
    """A share of the rows knows its token, the others know nothing, as between the first steps and the last."""
    sure = round(share * sizes.canvas)
    probabilities = make(sizes.canvas, sizes.vocabulary).softmax(-1)
    probabilities[:sure] = 0.0
    probabilities[:sure, 7] = 1.0
    weight = make(sizes.vocabulary, sizes.hidden) * sizes.hidden**-0.5
    return Case(
        f"soft_embedding, {share:.0%} of the rows sure",
        lambda: soft_embedding(probabilities, weight, dropped=_DROPPED),
        soft_embedding_cost(sizes.canvas, sizes.vocabulary, sizes.hidden, sure, sizes.canvas - sure),
        (probabilities, weight),
    )


def _norm_rotary(make: _Make, sizes: Sizes) -> Case:
    """The queries of the first kind of layer."""
    width = sizes.attentions[0][2]
    x, weight = make(1, sizes.canvas, sizes.heads, width), make(width)
    angles = rotary_angles(torch.arange(sizes.canvas, device=x.device), head_dim=width, theta=10_000.0)
    cosines, sines = (one.to(x.dtype) for one in angles)
    cost = row_cost(sizes.canvas, sizes.heads * width, 2)
    return Case("norm_rotary", lambda: norm_rotary(x, weight, cosines, sines, _EPS), cost, (x, weight, cosines, sines))


def _residual_norms(make: _Make, sizes: Sizes) -> Iterator[Case]:
    x, other, third = (make(sizes.canvas, sizes.hidden) for _ in range(3))
    weight, scalar = make(sizes.hidden), make(1)
    yield Case(
        "add_attention",
        lambda: add_attention(x, other, weight, weight, weight, weight, _EPS),
        row_cost(sizes.canvas, sizes.hidden, 6),
        (x, other, weight),
    )
    yield Case(
        "add_feed_forward",
        lambda: add_feed_forward(x, other, third, (weight, weight, weight), scalar, _EPS),
        row_cost(sizes.canvas, sizes.hidden, 4),
        (x, other, third, weight, scalar),
    )


def _choose_experts(make: _Make, sizes: Sizes) -> Case:
    logits, scale = make(sizes.canvas, sizes.experts), make(sizes.experts)
    cost = row_cost(sizes.canvas, sizes.experts, 1)
    return Case("choose_experts", lambda: choose_experts(logits, scale, sizes.chosen), cost, (logits, scale))


def measured_rates(device: torch.device, *, toy: bool) -> Rates:
    """Copying and multiplying matrices of bf16 that are large for the device."""
    length, side = (2**22, 512) if toy else (2**29, 8192)
    source = torch.empty(length, dtype=torch.bfloat16, device=device).normal_()
    target = torch.empty_like(source)
    matrix = source[: side * side].view(side, side)
    copied = seconds(lambda: target.copy_(source), device)
    operations = 2 * side**3
    flops = operations / seconds(lambda: matrix @ matrix, device)
    e4m3_flops = operations / seconds(_product_in_e4m3(matrix), device) if multiplies_e4m3(source) else flops
    return Rates(2 * source.nbytes / copied, flops, e4m3_flops)


def _product_in_e4m3(matrix: Tensor) -> Callable[[], Tensor]:
    """The library's own, with one scale for each operand."""
    operand, one = matrix.to(torch.float8_e4m3fn), torch.ones((), device=matrix.device)
    return lambda: torch._scaled_mm(operand, operand.t(), one, one, out_dtype=torch.bfloat16)


def seconds(call: Callable[[], Any], device: torch.device, *, graph: bool = True) -> float:
    """The median time of one call; on a GPU, out of a graph, unless the call waits for the device."""
    if device.type == "cuda" and graph:
        import triton.testing

        return float(triton.testing.do_bench_cudagraph(call, return_mode="median")) / 1e3
    return float(Timer("call()", globals={"call": call}).blocked_autorange(min_run_time=0.1).median)


@dataclass(frozen=True)
class Timing:
    """What an operation took here."""

    name: str
    by: str
    """Triton or PyTorch."""
    seconds: float
    pytorch_seconds: float
    cost: Cost
    floor_seconds: float

    def cells(self) -> list[str]:
        """The columns of HEADINGS."""
        return [
            self.name,
            self.by,
            f"{self.seconds * 1e3:.3f}",
            f"{self.pytorch_seconds * 1e3:.3f}",
            f"{self.cost.bytes / 1e6:.3g}",
            f"{self.cost.flops / 1e9:.3g}",
            f"{self.floor_seconds * 1e3:.3f}",
            f"{100 * self.floor_seconds / self.seconds:.0f} %",
        ]


HEADINGS = ("operation", "by", "ms", "PyTorch ms", "MB", "GFLOP", "floor ms", "share of the floor")


def timings(sizes: Sizes, device: torch.device, rates: Rates) -> Iterator[Timing]:
    """One operation after the other."""
    for case in cases(sizes, device):
        kernels = served(*case.operands)
        found = seconds(case.call, device, graph=kernels)
        with pytorch_only():
            plain = seconds(case.call, device, graph=False) if kernels else found
        floor = rates.floor(case.cost, in_e4m3=case.in_e4m3)
        yield Timing(case.name, "Triton" if kernels else "PyTorch", found, plain, case.cost, floor)


@torch.inference_mode()
def main(arguments: list[str] | None = None) -> int:
    """Print the device, its rates, and a table."""
    parser = argparse.ArgumentParser(prog="python -m dg_kernels.bench", description="Time every operation here.")
    parser.add_argument("--toy", action="store_true", help="at toy size, also on a GPU")
    toy = parser.parse_args(arguments).toy or not torch.cuda.is_available()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.manual_seed(0)
    rates = measured_rates(device, toy=toy)
    name = torch.cuda.get_device_name() if device.type == "cuda" else f"{platform.machine()}, one thread"
    say(f"{name}, torch {torch.__version__}, {'toy' if toy else 'full'} size")
    say(f"{rates_text(rates)}\n")
    say(f"| {' | '.join(HEADINGS)} |")
    say("|---|---|---:|---:|---:|---:|---:|---:|")
    for timing in timings(TOY if toy else FULL, device, rates):
        say(f"| {' | '.join(timing.cells())} |")
    return 0


def rates_text(rates: Rates) -> str:
    """Both rates of products, if there are two."""
    products = f"bf16 matrix product {rates.flops / 1e12:.3f} TFLOP/s"
    if rates.e4m3_flops != rates.flops:
        products += f", e4m3 {rates.e4m3_flops / 1e12:.3f} TFLOP/s"
    return f"copy {rates.bytes / 1e9:.1f} GB/s, {products}"


def say(line: str) -> None:
    """Print a line at once."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
