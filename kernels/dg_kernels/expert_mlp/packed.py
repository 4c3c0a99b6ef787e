"""`expert_mlp` over weights of eight and four bits: they become bf16 in registers or, without a kernel, beforehand."""

from __future__ import annotations

import torch
from torch import Tensor

from dg_kernels.expert_mlp import expert_mlp
from dg_kernels.launching import run, served
from dg_kernels.quantised.packed import PackedWeight
from dg_kernels.quantised.rows import Operand, RoundedRows, multiplied_in_e4m3

__all__ = ["packed_expert_mlp"]


def packed_expert_mlp(x: Operand, gate_up: PackedWeight, down: PackedWeight, index: Tensor, weight: Tensor) -> Tensor:
    """`expert_mlp` with packed weights: the same shapes, [N, H] to [N, P, H].

    On a GPU in bf16 a weight is multiplied by its scale in fp32 and rounded to bf16; sums are multiplied by the factor.
    Weights that both `quantises_rows` are multiplied in their own type there, if the device has it, with rows that are
    rounded to that, unless they were already, between the products too. Elsewhere, and where a group's width is no
    power of two, the experts that are chosen are dequantised first.

    Raises:
        ValueError: `index` and `weight` differ in shape, `gate_up` does not belong to `down`, or they do not take
            rounded rows.
    """
    experts, hidden, inner = down.shape
    if index.shape != weight.shape:
        raise ValueError(f"index is {list(index.shape)} but weight is {list(weight.shape)}")
    if gate_up.shape != (experts, 2 * inner, hidden):
        raise ValueError(f"gate_up must be {[experts, 2 * inner, hidden]}, not {list(gate_up.shape)}")
    native = multiplied_in_e4m3(x, quantises=gate_up.quantises_rows and down.quantises_rows)
    if isinstance(x, RoundedRows) or (served(x) and gate_up.has_kernel and down.has_kernel):
        from dg_kernels.expert_mlp.plan import plan

        launches, result = plan(x, gate_up, down, index, weight, native=native)
        run(launches)
        return result
    present = torch.zeros(experts, dtype=torch.bool, device=index.device).index_fill_(0, index.flatten(), value=True)
    number = present.cumsum(0) - 1
    some = present.nonzero()[:, 0]
    plain = [one.chosen(some).dequantised(x.dtype) for one in (gate_up, down)]
    return expert_mlp(x, plain[0], plain[1], number[index], weight)
