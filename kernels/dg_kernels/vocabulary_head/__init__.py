"""The tied head with everything that a denoising step asks of its logits, which themselves are never written."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from dg_kernels.launching import run, served
from dg_kernels.sampling import SamplingStatistics, sampling_statistics, soft_cap

__all__ = ["BANNED", "AllowedTokens", "LogitBias", "sampled_from", "vocabulary_head"]

BANNED = -1e4
"""The logit of what is not allowed: far below every capped one, and finite, so that nothing becomes NaN."""


class LogitBias(NamedTuple):
    """What is added to the logit of one token of each row."""

    token: Tensor
    """[R] int64."""
    nats: Tensor
    """[R] fp32."""


class AllowedTokens(NamedTuple):
    """What rows may be: masks, and which row keeps to which."""

    masks: Tensor
    """[M, V] booleans, true where a token is allowed."""
    number: Tensor
    """[R] int64: of a row's mask; -1 allows everything."""


def vocabulary_head(
    hidden: Tensor,
    weight: Tensor,
    *,
    cap: float,
    temperature: Tensor,
    uniform: Tensor,
    bias: LogitBias | None = None,
    allowed: AllowedTokens | None = None,
) -> SamplingStatistics:
    """`sampled_from` the soft-capped logits hidden weight^T, in one pass over the weight.

    On a GPU no logits are written: each tile of the vocabulary leaves five numbers per row, which a second, small
    kernel merges, and exp(logits - their largest in the tile), which a third scales to probabilities where they lie.
    Each is rounded twice to the type of the hidden states, whatever its size.

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
        bias: added to capped logits.
        allowed: all other tokens get BANNED for a logit; both before the temperature divides.

    Raises:
        ValueError: shapes that do not belong together, or a cap that is not positive.
    """
    rows, vocabulary = hidden.shape[:1], weight.shape[0]
    if hidden.shape[1] != weight.shape[1]:
        raise ValueError(f"weight must be [V, {hidden.shape[1]}], not {list(weight.shape)}")
    named = {"temperature": temperature, "uniform": uniform}
    if bias is not None:
        named |= {"bias.token": bias.token, "bias.nats": bias.nats}
    if allowed is not None:
        named["allowed.number"] = allowed.number
        if allowed.masks.shape[1:] != (vocabulary,):
            raise ValueError(f"allowed.masks must be [M, {vocabulary}], not {list(allowed.masks.shape)}")
    for name, given in named.items():
        if given.shape != rows:
            raise ValueError(f"{name} must be {list(rows)}, not {list(given.shape)}")
    if not cap > 0:
        raise ValueError(f"cap must be positive, not {cap}")
    if served(hidden, weight):
        from dg_kernels.vocabulary_head.plan import plan

        launches, found = plan(hidden, weight, cap, temperature, uniform, bias, allowed)
        run(launches)
        return found
    return sampled_from(soft_cap(functional.linear(hidden, weight), cap), temperature, uniform, bias, allowed)


def sampled_from(
    logits: Tensor,
    temperature: Tensor,
    uniform: Tensor,
    bias: LogitBias | None = None,
    allowed: AllowedTokens | None = None,
) -> SamplingStatistics:
    """`sampling_statistics` of capped logits [R, V], which are overwritten; the rest as in `vocabulary_head`."""
    if bias is not None:
        logits.scatter_add_(1, bias.token[:, None], bias.nats[:, None])
    if allowed is not None:
        # The number -1 is that of the last: anything.
        masks = torch.cat((allowed.masks, torch.ones_like(allowed.masks[:1])))
        logits.masked_fill_(~masks[allowed.number], BANNED)
    return sampling_statistics(logits, temperature, uniform)
