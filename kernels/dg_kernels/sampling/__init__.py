"""What one denoising step must know of every position's distribution: argmax, entropy, a sample, the probabilities."""

import math
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

__all__ = ["SamplingStatistics", "sampling_statistics", "soft_cap"]


class SamplingStatistics(NamedTuple):
    """Per row of logits: the most likely token, its probability, the entropy in nats, one sample, all probabilities."""

    argmax: Tensor
    """[R] int64."""
    confidence: Tensor
    """[R] fp32: the probability of `argmax`."""
    entropy: Tensor
    """[R] fp32, nats."""
    sample: Tensor
    """[R] int64: drawn by inverse transform from the row's uniform number."""
    probabilities: Tensor
    """[R, V] fp32; from `vocabulary_head` on a GPU in the type of the hidden states."""


def soft_cap(logits: Tensor, cap: float) -> Tensor:
    """Squash logits into (-cap, cap) by cap * tanh(logits / cap), in fp32."""
    return torch.tanh(logits.float() / cap) * cap


def sampling_statistics(logits: Tensor, temperature: float | Tensor, uniform: Tensor) -> SamplingStatistics:
    """Divide capped logits by the temperature and take everything that a step needs in one pass.

    The sample is the two-level inverse of the cumulative distribution. `torch.multinomial` draws V random numbers a
    row: on one AVX-512 core it alone takes 24 ms for 128 rows of 8,192 logits, this whole function 8 ms.

    Args:
        logits: [R, V] fp32.
        temperature: positive; one for all rows, or [R] fp32 (not checked: on a GPU that would wait for the device).
        uniform: [R] fp32 in [0, 1): the only randomness.

    Returns:
        SamplingStatistics of R rows.

    Raises:
        ValueError: the temperature is not positive, or there is not one uniform number a row.
    """
    if isinstance(temperature, Tensor):
        temperature = temperature[:, None]
    elif not temperature > 0:
        raise ValueError(f"temperature must be positive, not {temperature}")
    if uniform.shape != logits.shape[:1]:
        raise ValueError(f"uniform must be {list(logits.shape[:1])}, not {list(uniform.shape)}")
    # No mass below e^-70: fp32 numbers below e^-87 are denormal, and a CPU takes ten times as long over them.
    shifted = ((logits - logits.amax(dim=-1, keepdim=True)) / temperature).clamp_min(_LEAST_SHIFTED)
    mass = functional.threshold(shifted.exp(), math.exp(_LEAST_SHIFTED) * 2, 0.0)
    total = mass.sum(dim=-1, keepdim=True)
    probabilities = mass / total
    # H = log sum e^y - sum p y. The shifted logits have maximum 0, so nothing cancels where the entropy is near 0.
    entropy = total.squeeze(-1).log() - torch.linalg.vecdot(probabilities, shifted)
    confidence, argmax = probabilities.max(dim=-1)
    return SamplingStatistics(
        argmax, confidence, entropy.clamp_min(0.0), _inverse_transform(probabilities, uniform), probabilities
    )


_LEAST_SHIFTED = -70.0
_BLOCK = 64


def _inverse_transform(probabilities: Tensor, uniform: Tensor) -> Tensor:
    """The first index at which the running sum of a row exceeds uniform times its total."""
    rows, vocabulary = probabilities.shape
    padded = torch.nn.functional.pad(probabilities, (0, -vocabulary % _BLOCK)).view(rows, -1, _BLOCK)
    blocks = padded.sum(dim=-1).cumsum(dim=-1)
    target = uniform[:, None] * blocks[:, -1:]
    block = torch.searchsorted(blocks, target, right=True).clamp_max(blocks.shape[1] - 1)
    below = torch.where(block > 0, blocks.gather(1, (block - 1).clamp_min(0)), 0.0)
    within = padded[torch.arange(rows, device=padded.device), block[:, 0]].cumsum(dim=-1)
    offset = torch.searchsorted(within, target - below, right=True)
    # Rounding can leave the target at or past the block's own sum: then take the last index of the block with any mass.
    last = torch.searchsorted(within, within[:, -1:].contiguous())
    return (block * _BLOCK + torch.minimum(offset, last)).squeeze(1)
