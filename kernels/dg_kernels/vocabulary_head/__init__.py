"""The tied head with everything that a denoising step asks of its logits, which themselves need not be written."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from dg_kernels.launching import run, served
from dg_kernels.sampling import sampling_statistics, soft_cap

__all__ = ["VocabularyStatistics", "vocabulary_head"]


class VocabularyStatistics(NamedTuple):
    """What a step must know of every row's distribution over the vocabulary."""

    argmax: Tensor
    """[R] int64."""
    confidence: Tensor
    """[R] fp32: the probability of `argmax`."""
    entropy: Tensor
    """[R] fp32, nats."""
    sample: Tensor
    """[R] int64."""
    log_normaliser: Tensor
    """[R] fp32: log-sum-exp of the row's logits; exp(logits - log_normaliser) are the probabilities."""
    logits: Tensor | None
    """[R, V] in the type of the hidden states, capped and divided by the temperature, where they were asked for."""


def vocabulary_head(
    hidden: Tensor, weight: Tensor, *, cap: float, temperature: Tensor, uniform: Tensor, keep_logits: bool = False
) -> VocabularyStatistics:
    """`sampling_statistics` of the soft-capped logits hidden weight^T, one pass over the weight.

    On a GPU no fp32 logits are written: each tile of the vocabulary leaves five numbers per row, and a second, small
    kernel merges them. With `keep_logits` the tiles also write their logits in 16 bits, which is what conditioning the
    next step needs: probabilities are bf16 there anyway.

    The sample is a function of its row and its uniform number alone, whatever else is in the batch. On a CPU it is the
    inverse of the cumulative distribution. On a GPU the uniform number chooses a tile in that way, and the token within
    the tile is chosen by a second number: Philox (Salmon et al., SC 2011) of the bits of the first and the tile. Both
    follow the distribution, to the 2^-24 that one fp32 number resolves, but they are not the same tokens.

    Args:
        hidden: [R, H].
        weight: [V, H].
        cap: positive: logits are squashed into (-cap, cap).
        temperature: [R] fp32, positive (not checked: that would wait for the device).
        uniform: [R] fp32 in [0, 1): the only randomness.
        keep_logits: return the logits too.

    Raises:
        ValueError: shapes that do not belong together, or a cap that is not positive.
    """
    rows = hidden.shape[:1]
    if hidden.shape[1] != weight.shape[1]:
        raise ValueError(f"weight must be [V, {hidden.shape[1]}], not {list(weight.shape)}")
    if temperature.shape != rows or uniform.shape != rows:
        raise ValueError(
            f"temperature and uniform must be {list(rows)}, not {list(temperature.shape)} and {list(uniform.shape)}"
        )
    if not cap > 0:
        raise ValueError(f"cap must be positive, not {cap}")
    if served(hidden, weight):
        from dg_kernels.vocabulary_head.plan import plan

        launches, found = plan(hidden, weight, cap, temperature, uniform, keep_logits=keep_logits)
        run(launches)
        return found
    logits = soft_cap(functional.linear(hidden, weight), cap) / temperature[:, None]
    found_ = sampling_statistics(logits, 1.0, uniform)
    return VocabularyStatistics(
        *found_[:4],
        torch.logsumexp(logits, dim=-1),
        logits.to(hidden.dtype) if keep_logits else None,
    )
