"""`canvas_attention` with a gradient, for training on a CPU.

PyTorch's own kernel recomputes the scores on the way back, without the matrix unit: 29 ms a layer for four chunks of
512 tokens and four heads of 64, on a core with AMX, against 6 ms for products in bf16 over probabilities that were
kept. They take B Hq C K numbers, 8 MB here. As operators of their own the compiler leaves them alone, and with them the
vectorised softmax, which is four times as fast as what it would write.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

# Finite: a row without any visible key, as of a padded slot, must not become NaN.
_HIDDEN = -1e30


def trained_attention(query: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None) -> Tensor:
    """[B, Hq, C, D] over [B, Hkv, K, D] to [B, Hq, C, D]; the mask is [B or 1, C, K], True where a key is visible."""
    mixed: Tensor = _attend(query, keys, values, mask)[0]
    return mixed


@torch.library.custom_op("dg_kernels::attend", mutates_args=())
def _attend(query: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
    scores = (_grouped(query, keys) @ keys.mT).view(*query.shape[:3], keys.shape[2])
    if mask is not None:
        scores.masked_fill_(~mask.unsqueeze(1), _HIDDEN)
    probabilities = scores.softmax(dim=-1)
    return (_grouped(probabilities, keys) @ values).view_as(query).clone(), probabilities


@_attend.register_fake
def _(query: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
    del values, mask
    return torch.empty_like(query, memory_format=torch.contiguous_format), query.new_empty(
        *query.shape[:3], keys.shape[2]
    )


@torch.library.custom_op("dg_kernels::attend_backward", mutates_args=())
def _attend_backward(
    gradient: Tensor, query: Tensor, keys: Tensor, values: Tensor, probabilities: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    gradient = _grouped(gradient, keys)
    weights = _grouped(probabilities, keys)
    back = torch._softmax_backward_data(gradient @ values.mT, weights, -1, weights.dtype)
    to_query = (back @ keys).view_as(query)
    return to_query.clone(), back.mT @ _grouped(query, keys), weights.mT @ gradient


@_attend_backward.register_fake
def _(
    gradient: Tensor, query: Tensor, keys: Tensor, values: Tensor, probabilities: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    del gradient, probabilities
    contiguous = torch.contiguous_format
    return (
        torch.empty_like(query, memory_format=contiguous),
        torch.empty_like(keys, memory_format=contiguous),
        torch.empty_like(values, memory_format=contiguous),
    )


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    query, keys, values, _ = inputs
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(query, keys, values, output[1])


def _backward(ctx: Any, gradient: Tensor, _: Tensor | None) -> tuple[Tensor, Tensor, Tensor, None]:
    to_query, to_keys, to_values = _attend_backward(gradient.contiguous(), *ctx.saved_tensors)
    return to_query, to_keys, to_values, None


_attend.register_autograd(_backward, setup_context=_keep)


def _grouped(rows: Tensor, keys: Tensor) -> Tensor:
    """[B, Hq, C, X] to [B, Hkv, Hq / Hkv C, X]: the heads that share keys as more rows of one product."""
    return rows.reshape(rows.shape[0], keys.shape[1], -1, rows.shape[-1])
