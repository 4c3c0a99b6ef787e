"""Whether the experts' packed weights are bound by their bytes or by the instructions that turn them into numbers.

    python -m dg_kernels.issue

By counting alone: `resources.json` says how many instructions the loop of a product has, and the plan how many weights
it takes in; a processor issues 128 a cycle, lane by lane. Loads are thought to hide behind them, so that the longer of
the two is what a step takes. No GPU is needed, and none has confirmed it.
"""

from __future__ import annotations

import sys
from typing import NamedTuple

from dg_kernels.aot import ARCHITECTURES, launches, read_table
from dg_kernels.bench import say
from dg_kernels.cases import FULL
from dg_kernels.quantised.packed import WEIGHT_BITS

_LANES = 128
"""Instructions that a processor issues in a cycle, counted by lanes."""
_LAYERS = 30
_PRODUCTS = {"gate_up_product": 2, "down_product": 1}
"""How many of an expert's three matrices each takes in; a tile of the first has columns of two of them."""


class Device(NamedTuple):
    """Figures of NVIDIA's data sheets; the clock is the boost clock, of the H200 what it holds under load."""

    name: str
    hertz: float
    bytes: float
    """A second, of memory."""


DEVICES = (
    Device("NVIDIA H200", 1.7e9, 4.8e12),
    Device("NVIDIA GeForce RTX 4090", 2.52e9, 1.008e12),
    Device("NVIDIA GeForce RTX 5090", 2.41e9, 1.792e12),
)


class Times(NamedTuple):
    """Seconds that all experts of a step of the released model take."""

    instructions: float
    bytes: float

    @property
    def excess(self) -> float:
        """How much longer the longer one is than the bytes take."""
        return max(self) / self.bytes - 1


def expert_times(device: Device, format_: str) -> Times:
    """By the committed table.

    Args:
        device: one of DEVICES.
        format_: "fp8", "nvfp4" or "int4", turned into numbers in registers.

    Raises:
        RuntimeError: the table was made with another version of triton.
    """
    architecture = next(one for one in ARCHITECTURES if one.device.name == device.name)
    table, matrix = read_table(), FULL.experts * FULL.inner * FULL.hidden * _LAYERS
    issued = 0.0
    for name, launch in launches(architecture, f"^packed_expert_mlp, {format_.upper()}: "):
        matrices = _PRODUCTS[name.partition(": ")[2]]
        loop = table.kernels[name][f"sm_{architecture.capability}"].loop
        weights = matrices * int(launch.constants["columns"]) * int(launch.constants["depth"])
        issued += matrices * matrix * loop * launch.warps * 32 / weights
    rate = architecture.device.processors * _LANES * device.hertz
    return Times(issued / rate, 3 * matrix * WEIGHT_BITS[format_] / 8 / device.bytes)


def main() -> int:
    """Print a table."""
    say("| device | format | instructions, ms | bytes, ms | longer than the bytes |\n|---|---|---:|---:|---:|")
    for device in DEVICES:
        for format_ in WEIGHT_BITS:
            times = expert_times(device, format_)
            say(
                f"| {device.name.removeprefix('NVIDIA ')} | {format_} | {times.instructions * 1e3:.1f} "
                f"| {times.bytes * 1e3:.1f} | {times.excess:.0%} |"
            )
    return 0


if __name__ == "__main__":
    sys.exit(main())
