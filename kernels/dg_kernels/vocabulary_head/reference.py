"""The truth for `vocabulary_head`: logits written out in fp64, each statistic by its definition."""

import torch
from torch import Tensor

from dg_kernels.sampling.reference import sampling_statistics_reference
from dg_kernels.vocabulary_head import VocabularyStatistics


def vocabulary_head_reference(
    hidden: Tensor, weight: Tensor, *, cap: float, temperature: Tensor, uniform: Tensor
) -> VocabularyStatistics:
    """Same shapes as `vocabulary_head`, with logits; the sample is the inverse transform, as on a CPU."""
    logits = torch.tanh(hidden.double() @ weight.double().T / cap) * cap / temperature.double()[:, None]
    found = sampling_statistics_reference(logits, 1.0, uniform)
    normaliser = logits.exp().sum(dim=-1).log()
    return VocabularyStatistics(*found[:4], normaliser.float(), logits.to(hidden.dtype))
