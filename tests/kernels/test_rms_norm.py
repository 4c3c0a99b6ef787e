"""`rms_norm` against its reference."""

from __future__ import annotations

import pytest
import torch

from dg_kernels import rms_norm
from dg_kernels.rms_norm.reference import rms_norm_reference
from dg_kernels.testing import assert_agrees, random


@pytest.mark.parametrize("shape", [(1, 1), (3, 7), (2, 5, 63), (300, 256)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("weighted", [True, False])
def test_agrees_with_the_reference(shape: tuple[int, ...], dtype: torch.dtype, weighted: bool) -> None:
    x = 5 * random(*shape, dtype=dtype)
    weight = random(shape[-1], dtype=dtype, seed=1) if weighted else None
    assert_agrees(rms_norm(x, weight, 1e-6), rms_norm_reference(x, weight, 1e-6), terms=shape[-1])


def test_a_row_of_zeros_stays_zero() -> None:
    assert rms_norm(torch.zeros(2, 8), None, 1e-6).abs().max() == 0


def test_a_weight_of_another_width_is_refused() -> None:
    with pytest.raises(ValueError, match=r"weight must be \[8\], not \[7\]"):
        rms_norm(torch.zeros(2, 8), torch.ones(7), 1e-6)
