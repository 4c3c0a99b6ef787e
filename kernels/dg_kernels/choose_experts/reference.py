"""The truth for `choose_experts`: row by row, in fp64."""

from __future__ import annotations

import torch
from torch import Tensor


def choose_experts_reference(logits: Tensor, scale: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Same shapes as `choose_experts`."""
    numbers, weights = [], []
    for row in logits.double():
        chosen = sorted(range(len(row)), key=lambda expert: (-float(row[expert]), expert))[:count]
        numbers.append(chosen)
        weights.append(row[chosen].softmax(dim=0) * scale.double()[chosen])
    return torch.tensor(numbers), torch.stack(weights).float()
