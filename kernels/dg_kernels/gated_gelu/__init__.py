"""What is between the products of a gated MLP (Shazeer, arXiv 2002.05202), with the tanh-approximated GELU."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional

from dg_kernels.launching import run, served
from dg_kernels.quantised.rows import Operand, multiplies_e4m3

__all__ = ["gated_gelu"]


def gated_gelu(gate: Tensor, up: Tensor, *, rounds: bool = False) -> Operand:
    """gelu(gate) up; on a GPU in one pass, rounded once.

    Args:
        gate: [..., I].
        up: [..., I].
        rounds: whether what reads it multiplies it in e4m3 where the device does: there it is rounded to that
            (`quantise_rows`).

    Returns:
        [..., I] in the type of `gate`, or rounded.

    Raises:
        ValueError: shapes that differ.
    """
    if gate.shape != up.shape:
        raise ValueError(f"up must be {list(gate.shape)}, not {list(up.shape)}")
    if served(gate, up):
        from dg_kernels.gated_gelu.plan import plan

        launches, result = plan(gate, up, rounds=rounds and multiplies_e4m3(gate))
        run(launches)
        return result
    return functional.gelu(gate, approximate="tanh") * up
