"""The truth for `expert_mlp`: row by row, expert by expert, in fp32."""

import math

import torch
from torch import Tensor


def expert_mlp_reference(x: Tensor, gate_up: Tensor, down: Tensor, index: Tensor, weight: Tensor) -> Tensor:
    """Same shapes as `expert_mlp`, but the parts are added up: [N, H]."""
    total = torch.zeros(x.shape, dtype=torch.float32)
    for row in range(x.shape[0]):
        for choice in range(index.shape[1]):
            expert = int(index[row, choice])
            gate, up = (gate_up[expert].float() @ x[row].float()).chunk(2)
            inner = gate * 0.5 * (1 + torch.tanh(math.sqrt(2 / math.pi) * (gate + 0.044715 * gate**3))) * up
            total[row] += weight[row, choice].float() * (down[expert].float() @ inner)
    return total.to(x.dtype)
