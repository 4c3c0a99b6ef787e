"""`canvas_attention` against one head after the other."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from dg_kernels import canvas_attention
from dg_kernels.canvas_attention.reference import canvas_attention_reference
from dg_kernels.testing import assert_agrees, random


def tensors(
    batch: int, heads: int, groups: int, prefix: int, canvas: int, width: int
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    return (
        0.3 * random(batch, heads, canvas, width),
        0.3 * random(batch, groups, canvas, width, seed=1),
        random(batch, groups, canvas, width, seed=2),
        0.3 * random(batch, groups, prefix, width, seed=3),
        random(batch, groups, prefix, width, seed=4),
    )


@pytest.mark.parametrize(("heads", "groups"), [(1, 1), (4, 2), (6, 1)])
@pytest.mark.parametrize("prefix", [0, 1, 63])
@pytest.mark.parametrize("canvas", [1, 17])
@pytest.mark.parametrize("masked", [False, True])
def test_agrees_with_the_reference(heads: int, groups: int, prefix: int, canvas: int, masked: bool) -> None:
    given = tensors(2, heads, groups, prefix, canvas, 16)
    mask = None
    if masked:
        mask = random(2, canvas, prefix + canvas, seed=5) > 0
        mask[..., -1] = True
    assert_agrees(canvas_attention(*given, mask), canvas_attention_reference(*given, mask), terms=prefix + canvas)


def test_a_masked_key_has_no_influence() -> None:
    query, key, value, prefix_key, prefix_value = tensors(1, 2, 1, 5, 3, 8)
    mask = torch.ones(1, 3, 8, dtype=torch.bool)
    mask[..., 2] = False
    before = canvas_attention(query, key, value, prefix_key, prefix_value, mask)
    prefix_value[:, :, 2] = 1e6
    assert torch.equal(canvas_attention(query, key, value, prefix_key, prefix_value, mask), before)


def test_heads_that_do_not_divide_and_a_mask_of_another_width_are_refused() -> None:
    with pytest.raises(ValueError, match="2 key heads do not divide 3 query heads"):
        canvas_attention(*tensors(1, 3, 2, 4, 4, 8))
    with pytest.raises(ValueError, match="mask must be 8 wide, not 4"):
        canvas_attention(*tensors(1, 2, 2, 4, 4, 8), torch.ones(1, 4, 4, dtype=torch.bool))
