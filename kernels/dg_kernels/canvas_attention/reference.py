"""The truth for `canvas_attention`: one head after the other, softmax written out in fp32."""

import torch
from torch import Tensor

from dg_kernels.canvas_attention import Causal, CausalRuns, Mask, VisibleRuns


def canvas_attention_reference(query: Tensor, keys: Tensor, values: Tensor, mask: Mask | None = None) -> Tensor:
    """Same shapes as `canvas_attention`."""
    if isinstance(mask, VisibleRuns):
        return _of_runs(query, keys, values, mask)
    if isinstance(mask, CausalRuns):
        return _of_causal_runs(query, keys, values, mask)
    if isinstance(mask, Causal):
        return _one_by_one(query, keys, values, mask)
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


def _of_runs(query: Tensor, keys: Tensor, values: Tensor, runs: VisibleRuns) -> Tensor:
    """Row by row, with what is not visible cut away."""
    rows = []
    for row in range(len(query)):
        known, first = min(int(runs.prefix[row]), runs.places), runs.places + row * runs.apart
        own = slice(first, first + int(runs.canvas[row]))
        seen = [torch.cat((one[row, :, :known], one[row, :, own]), dim=1)[None] for one in (keys, values)]
        rows.append(canvas_attention_reference(query[row, None], *seen))
    return torch.cat(rows)


def _of_causal_runs(query: Tensor, keys: Tensor, values: Tensor, runs: CausalRuns) -> Tensor:
    """Row by row, with the places nobody is in cut away."""
    rows = []
    for row in range(len(query)):
        known, first = min(int(runs.prefix[row]), runs.places), runs.places + row * runs.apart
        own = slice(first, first + query.shape[2])
        key, value = (torch.cat((one[row, :, :known], one[row, :, own]), dim=1)[None] for one in (keys, values))
        rows.append(_one_by_one(query[row, None], key, value, Causal(runs.window)))
    return torch.cat(rows)


def _one_by_one(query: Tensor, keys: Tensor, values: Tensor, causal: Causal) -> Tensor:
    """Query by query, with what is not visible cut away."""
    found, queries = [], query.shape[2]
    for number in range(queries):
        end = keys.shape[2] - queries + number + 1
        seen = slice(max(0, end - (causal.window or end)), end)
        one = query[:, :, number, None], keys[:, :, seen], values[:, :, seen]
        found.append(canvas_attention_reference(*one))
    return torch.cat(found, dim=1)
