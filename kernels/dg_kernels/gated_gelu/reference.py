"""The truth for `gated_gelu`, in fp64."""

import math

from torch import Tensor

from dg_kernels.quantised.rows import Operand, quantise_rows


def gated_gelu_reference(gate: Tensor, up: Tensor, *, rounds: bool = False) -> Operand:
    """Same shapes as `gated_gelu`, on a device that multiplies e4m3."""
    x = gate.double()
    found = x * 0.5 * (1 + (math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)).tanh()) * up.double()
    return quantise_rows(found)._replace(dtype=gate.dtype) if rounds else found.to(gate.dtype)
