"""Products with matrices in eight bits, for CPUs that multiply those faster than floating-point numbers.

Both sides are rounded: the matrix once, with a scale for each of its rows, and what it is multiplied by as it comes,
with a scale for each row of that (the vector-wise scheme of Dettmers et al., arXiv 2208.07339, without its outliers).
So what becomes of a row does not depend on which rows stand beside it.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from dg_engine.hardware import quickest

MOST = 127
"""Of a signed number of eight bits, as far down as up."""
_LEAST_SCALE = 1e-30


class EightBits:
    """Multiplies rows [..., K] in fp32 by a matrix [N, K], as `functional.linear` would.

    Args:
        matrix: [N, K], of any floating type.
    """

    def __init__(self, matrix: Tensor) -> None:
        rounded, scale = in_eight_bits(matrix.float())
        self._matrix, self._scale = rounded.t(), scale[:, 0]

    def __call__(self, x: Tensor) -> Tensor:
        """[..., N], in fp32."""
        rounded, scale = in_eight_bits(x.reshape(-1, x.shape[-1]))
        product = torch._int_mm(rounded, self._matrix) * scale * self._scale
        return product.view(*x.shape[:-1], len(self._scale))


def in_eight_bits(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Rows [R, K] as numbers of eight bits, and their scales [R, 1]: the product of both is what they were, nearly."""
    scale = rows.abs().amax(-1, keepdim=True).mul_(1 / MOST).clamp_min_(_LEAST_SCALE)
    return (rows / scale).round_().to(torch.int8), scale


def is_faster(dtype: torch.dtype) -> bool:
    """Whether a CPU multiplies a canvas faster in eight bits than in a type, rounding included; takes some 5 ms.

    It must also be right. Without VNNI two products are added up in 16 bits, which they overflow where they are large
    (oneDNN's guide, "Nuances of int8 computations"); here all are as large as they come.
    """
    canvas, matrix = torch.ones(64, 384), torch.ones(1536, 384)
    packed, typed, typed_canvas = EightBits(matrix), matrix.to(dtype), canvas.to(dtype)
    if not torch.allclose(packed(canvas), canvas @ matrix.T):
        return False
    return quickest(lambda: packed(canvas)) < quickest(lambda: functional.linear(typed_canvas, typed))
