"""The truth for `soft_embedding`: every row on its own, in fp64."""

from __future__ import annotations

import torch
from torch import Tensor

from dg_kernels.soft_embedding import MOST_KEPT


def soft_embedding_reference(probabilities: Tensor, weight: Tensor, *, dropped: float = 0.0) -> Tensor:
    """Same shapes as `soft_embedding`."""
    rows = []
    for row in probabilities.double():
        kept = [token for token, p in enumerate(row.tolist()) if p >= dropped / MOST_KEPT]
        rest = 1.0 if not dropped else float(row.sum() - row[kept].sum())
        tokens = kept if len(kept) <= MOST_KEPT and rest <= dropped else list(range(len(row)))
        rows.append(row[tokens] @ weight.double()[tokens])
    return torch.stack(rows).to(weight.dtype)
