"""The truth for `vocabulary_head`: logits written out in fp64, each statistic by its definition."""

from __future__ import annotations

import torch
from torch import Tensor

from dg_kernels.sampling import SamplingStatistics
from dg_kernels.sampling.reference import sampling_statistics_reference
from dg_kernels.vocabulary_head import BANNED, AllowedTokens, LogitBias


def vocabulary_head_reference(
    hidden: Tensor,
    weight: Tensor,
    *,
    cap: float,
    temperature: Tensor,
    uniform: Tensor,
    bias: LogitBias | None = None,
    allowed: AllowedTokens | None = None,
) -> SamplingStatistics:
    """Same shapes as `vocabulary_head`; the sample is the inverse transform, as on a CPU."""
    logits = torch.tanh(hidden.double() @ weight.double().T / cap) * cap
    for row in range(len(hidden)):
        if bias is not None:
            logits[row, bias.token[row]] += bias.nats[row]
        if allowed is not None and allowed.number[row] >= 0:
            logits[row, ~allowed.masks[allowed.number[row]]] = BANNED
    return sampling_statistics_reference(logits / temperature.double()[:, None], 1.0, uniform)
