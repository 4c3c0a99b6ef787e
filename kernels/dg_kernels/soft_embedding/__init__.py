"""The mean embedding of distributions over the vocabulary: what self-conditioning is told of a slot."""

from __future__ import annotations

from torch import Tensor

from dg_kernels.launching import run, served

__all__ = ["MOST_KEPT", "soft_embedding"]

MOST_KEPT = 128
"""Tokens that stand for a row: as many rows of the released model's weight are 0.7 MB, of 1.5 GB."""


def soft_embedding(probabilities: Tensor, weight: Tensor, *, dropped: float = 0.0) -> Tensor:
    """Distributions [R, V] times embeddings [V, H]; returns [R, H].

    With `dropped` above 0 a row is summed over its tokens of a probability of at least dropped / MOST_KEPT alone, if
    they are at most MOST_KEPT and all others together have at most `dropped`. So every row is within
    `dropped` max_v ||weight_v|| of the exact one, in the 2-norm: what is left out is a sum of vectors no longer than
    the longest, with weights that sum to no more. A row that is not so sure is summed over all tokens. A norm that
    follows makes an error relative to the row's own length, which may be small where its embeddings cancel.

    On a GPU which rows are sure is decided there, without waiting: programs for rows that are do not read the weight.

    Raises:
        ValueError: shapes that do not belong together, or `dropped` is not in [0, 1).
    """
    if weight.shape[:-1] != probabilities.shape[1:]:
        raise ValueError(f"weight must be [{probabilities.shape[-1]}, H], not {list(weight.shape)}")
    if not 0 <= dropped < 1:
        raise ValueError(f"dropped must be in [0, 1), not {dropped}")
    if not dropped:
        return probabilities @ weight
    if served(probabilities, weight):
        from dg_kernels.soft_embedding.plan import plan

        launches, result = plan(probabilities, weight, dropped)
        run(launches)
        return result
    kept = probabilities >= dropped / MOST_KEPT
    rest = probabilities.masked_fill(kept, 0.0).float().sum(dim=1, keepdim=True)
    sure = (kept.sum(dim=1, keepdim=True) <= MOST_KEPT) & (rest <= dropped)
    return probabilities.masked_fill(sure & ~kept, 0.0) @ weight
