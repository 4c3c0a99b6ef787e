"""The truth for `sampling_statistics`: each statistic by its definition, in fp64."""

import torch
from torch import Tensor

from dg_kernels.sampling import SamplingStatistics


def sampling_statistics_reference(logits: Tensor, temperature: float, uniform: Tensor) -> SamplingStatistics:
    """Same shapes as `sampling_statistics`."""
    probabilities = torch.softmax(logits.double() / temperature, dim=-1)
    entropy = -torch.special.xlogy(probabilities, probabilities).sum(dim=-1)
    confidence, argmax = probabilities.max(dim=-1)
    cumulative = probabilities.cumsum(dim=-1)
    target = uniform.double()[:, None] * cumulative[:, -1:]
    sample = (cumulative <= target).sum(dim=-1).clamp_max(logits.shape[1] - 1)
    return SamplingStatistics(argmax, confidence.float(), entropy.float(), sample, probabilities.float())
