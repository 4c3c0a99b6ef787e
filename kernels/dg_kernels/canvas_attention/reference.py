"""The truth for `canvas_attention`: one head after the other, softmax written out in fp32."""

import torch
from torch import Tensor


def canvas_attention_reference(query: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None = None) -> Tensor:
    """Same shapes as `canvas_attention`."""
    batch, heads, length, width = query.shape
    group = heads // keys.shape[1]
    mixed = torch.empty(batch, length, heads, width, dtype=torch.float32)
    for row in range(batch):
        for head in range(heads):
            scores = query[row, head].float() @ keys[row, head // group].float().T
            if mask is not None:
                scores = scores.masked_fill(~mask[row % mask.shape[0]], float("-inf"))
            weights = torch.exp(scores - scores.max(dim=-1, keepdim=True).values)
            mixed[row, :, head] = (weights / weights.sum(dim=-1, keepdim=True)) @ values[row, head // group].float()
    return mixed.reshape(batch, length, heads * width).to(query.dtype)
