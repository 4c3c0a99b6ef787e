"""Matrices that read the same rows, one behind the other in memory, so that their products are one.

On a GPU each product of a captured step is a launch. The weights keep their names, numbers and modules, as views of
what they are joined in: what is changed in place is changed for both. A model that is moved or cast afterwards must be
joined again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from dg_engine.layers import PackedLinear, Together
from dg_engine.model import DiffusionGemma
from dg_kernels import packed_linear
from dg_kernels.quantised.packed import joined_weight


@torch.no_grad()
def join(model: DiffusionGemma) -> None:
    """Join what can be, for inference: matrices of one type, or packed alike. No two copies of the whole ever exist."""
    for module in model.modules():
        if isinstance(module, Together):
            module.joined = _joined(module.together)


def _joined(modules: Sequence[nn.Module]) -> Callable[[Any], Sequence[Tensor]] | None:
    packed = [one for one in modules if isinstance(one, PackedLinear)]
    plain = [one for one in modules if isinstance(one, nn.Linear)]
    if len(packed) == len(modules):
        weights = [one.weights[0] for one in packed]
        if not all(one.is_stored_like(weights[0]) for one in weights):
            return None
        weight, widths = joined_weight(weights), [one.shape[0] for one in weights]
        for linear, part in zip(packed, weight.split(widths), strict=True):
            linear.weights = (part,)
        return _Split(partial(packed_linear, weight=weight), widths)
    if len(plain) == len(modules) and len({one.weight.dtype for one in plain}) == 1:
        matrix, widths = torch.cat([one.weight for one in plain]), [one.out_features for one in plain]
        for number, rows in enumerate(matrix.split(widths)):  # type: ignore[no-untyped-call]
            plain[number].weight = nn.Parameter(rows, requires_grad=False)
        return _Split(partial(functional.linear, weight=matrix), widths)
    return None


class _Split:
    """A product, cut into those of the matrices that it is made of; views of it."""

    def __init__(self, product: Callable[[Any], Tensor], widths: list[int]) -> None:
        self._product, self._widths = product, widths

    def __call__(self, x: Any) -> Sequence[Tensor]:
        return self._product(x).split(self._widths, dim=-1)  # type: ignore[no-any-return,no-untyped-call]
