"""The truth for `canvas_attention`: one head after the other, softmax written out in fp32."""

import torch
from torch import Tensor


def canvas_attention_reference(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    prefix_key: Tensor,
    prefix_value: Tensor,
    mask: Tensor | None = None,
) -> Tensor:
    """Same shapes as `canvas_attention`."""
    batch, heads, length, width = query.shape
    group = heads // key.shape[1]
    mixed = torch.empty(batch, length, heads, width, dtype=torch.float32)
    for row in range(batch):
        for head in range(heads):
            keys = torch.cat((prefix_key[row, head // group], key[row, head // group])).float()
            values = torch.cat((prefix_value[row, head // group], value[row, head // group])).float()
            scores = query[row, head].float() @ keys.T
            if mask is not None:
                scores = scores.masked_fill(~mask[row % mask.shape[0]], float("-inf"))
            weights = torch.exp(scores - scores.max(dim=-1, keepdim=True).values)
            mixed[row, :, head] = (weights / weights.sum(dim=-1, keepdim=True)) @ values
    return mixed.reshape(batch, length, heads * width).to(query.dtype)
