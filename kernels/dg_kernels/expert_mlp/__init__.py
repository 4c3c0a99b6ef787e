"""A mixture of gated MLPs with the tanh-approximated GELU (Shazeer, arXiv 2002.05202)."""

import torch
from torch import Tensor
from torch.nn import functional

from dg_kernels.launching import run, served

__all__ = ["expert_mlp"]


def expert_mlp(x: Tensor, gate_up: Tensor, down: Tensor, index: Tensor, weight: Tensor) -> Tensor:
    """For every row the outputs of its chosen experts, each times its weight, to be added up.

    Args:
        x: [N, H].
        gate_up: [E, 2 I, H], the gate's rows first.
        down: [E, H, I].
        index: [N, K] expert numbers; the K experts of a row differ.
        weight: [N, K], in the type in which the sum is to be weighted.

    Returns:
        [N, P, H] in the type of `x`: P parts whose sum is the result. `add_feed_forward` adds them where it reads
        them, which saves the K parts that kernels find a pass of their own.

    Raises:
        ValueError: `index` and `weight` differ in shape, or `gate_up` does not belong to `down`.
    """
    experts, hidden, inner = down.shape
    if index.shape != weight.shape:
        raise ValueError(f"index is {list(index.shape)} but weight is {list(weight.shape)}")
    if gate_up.shape != (experts, 2 * inner, hidden):
        raise ValueError(f"gate_up must be {[experts, 2 * inner, hidden]}, not {list(gate_up.shape)}")
    if served(x, gate_up, down):
        from dg_kernels.expert_mlp.plan import plan

        launches, result = plan(x, gate_up, down, index, weight)
        run(launches)
        return result
    if index.shape[1] == experts:
        return _every_expert(x, gate_up, down, index, weight)[:, None]
    return _chosen_experts(x, gate_up, down, index, weight)[:, None]


def _every_expert(x: Tensor, gate_up: Tensor, down: Tensor, index: Tensor, weight: Tensor) -> Tensor:
    """K = E: no row is left out, so nothing is gathered and the graph has no data-dependent shape."""
    total = torch.zeros_like(x)
    for expert in range(down.shape[0]):
        share = torch.where(index == expert, weight, 0).sum(dim=-1, keepdim=True)
        total = total + (_expert(x, gate_up[expert], down[expert]) * share).to(x.dtype)
    return total


def _chosen_experts(x: Tensor, gate_up: Tensor, down: Tensor, index: Tensor, weight: Tensor) -> Tensor:
    """K < E: sort the N K pairs by expert, run every expert once over its own rows, add the rows back."""
    order = index.flatten().argsort(stable=True)
    rows = order // index.shape[1]
    counts = torch.bincount(index.flatten(), minlength=down.shape[0]).tolist()
    outputs = [
        _expert(chosen, gate_up[expert], down[expert])
        for expert, chosen in enumerate(torch.split(x[rows], counts))
        if counts[expert]
    ]
    weighted = torch.cat(outputs) * weight.flatten()[order, None]
    return torch.zeros_like(x).index_add_(0, rows, weighted.to(x.dtype))


def _expert(x: Tensor, gate_up: Tensor, down: Tensor) -> Tensor:
    gate, up = functional.linear(x, gate_up).chunk(2, dim=-1)
    return functional.linear(functional.gelu(gate, approximate="tanh") * up, down)
