"""How fast each operation is here, beside the least time that its bytes and its arithmetic need.

    python -m dg_kernels.bench           # on a GPU at the shapes of DiffusionGemma-26B-A4B, else at toy size
    python -m dg_kernels.bench --toy     # at toy size anywhere

The floor of an operation follows from its cost and from two rates that are measured first: of copying and of a large
matrix product. On a GPU launches are replayed from a graph, so that the host's own time is not in them, and weights
come from memory (`cases`). At toy size the table shows that everything runs: the shares are those of caches and of
overhead. What fails is said in its line, and the others go on.
"""

from __future__ import annotations

import argparse
import platform
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils.benchmark import Timer

from dg_kernels.cases import FULL, TOY, Case, cases
from dg_kernels.costs import Cost
from dg_kernels.launching import pytorch_only, served
from dg_kernels.quantised.rows import multiplies_e4m3


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


def timing(name: str, case: Case, device: torch.device, rates: Rates) -> Timing:
    """Measure one operation, and PyTorch's for the same."""
    on_device = served(*case.operands, dtype=case.operands[0].dtype)
    kernels = on_device and case.has_kernel
    found = seconds(case.call, device, graph=on_device)
    with pytorch_only():
        plain = seconds(case.call, device, graph=False) if kernels else found
    floor = rates.floor(case.cost, in_e4m3=case.in_e4m3)
    return Timing(name, "Triton" if kernels else "PyTorch", found, plain, case.cost, floor)


@torch.inference_mode()
def main(arguments: list[str] | None = None) -> int:
    """Print the device, its rates, and a table line by line; 1 if an operation failed."""
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
    failed = False
    for operation, made in cases(TOY if toy else FULL, device).items():
        try:
            cells = timing(operation, made(), device, rates).cells()
        except Exception as error:  # whatever a compiler or a device may raise
            cells, failed = [operation, f"failed: {one_line(error)}", *[""] * (len(HEADINGS) - 2)], True
        say(f"| {' | '.join(cells)} |")
    return int(failed)


def one_line(error: Exception) -> str:
    """Its kind and the beginning of what it says, for a table."""
    said = next(iter(str(error).strip().splitlines()), "").replace("|", "/")
    return f"{type(error).__name__}: {said[:200]}" if said else type(error).__name__


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
