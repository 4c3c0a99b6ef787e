"""Which experts a row goes through, and with what weights (Shazeer et al., arXiv 1701.06538)."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from dg_kernels.launching import run, served

__all__ = ["choose_experts"]


def choose_experts(logits: Tensor, scale: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The likeliest experts of every row, by their share of the probability that is theirs together, times `scale`.

    Args:
        logits: [N, E].
        scale: [E].
        count: K, at most E.

    Returns:
        Numbers [N, K] int64, the likeliest first, and weights [N, K] fp32.

    Raises:
        ValueError: `scale` is not for as many experts, or there are fewer than are to be chosen.
    """
    if scale.shape != logits.shape[1:] or not 0 < count <= len(scale):
        raise ValueError(f"{count} of {list(logits.shape[1:])} experts with a scale {list(scale.shape)}")
    if served(logits, scale):
        from dg_kernels.choose_experts.plan import plan

        launches, index, weight = plan(logits, scale, count)
        run(launches)
        return index, weight
    weight, index = functional.softmax(logits, dim=-1, dtype=torch.float32).topk(count, dim=-1)
    return index, weight / weight.sum(dim=-1, keepdim=True) * scale[index]
