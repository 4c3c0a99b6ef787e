"""`rotary` against complex multiplication."""

from __future__ import annotations

import pytest
import torch

from dg_kernels import rotary, rotary_angles
from dg_kernels.rotary.reference import rotary_reference
from dg_kernels.testing import assert_agrees, random


@pytest.mark.parametrize("heads", [1, 3])
@pytest.mark.parametrize("width", [2, 16, 64])
@pytest.mark.parametrize("share", [1.0, 0.25, 0.0])
def test_agrees_with_the_reference(heads: int, width: int, share: float) -> None:
    positions = torch.tensor([0, 1, 7, 300, 511])
    x = random(2, 5, heads, width)
    angles = rotary_angles(positions, head_dim=width, theta=10_000.0, rotated_share=share)
    expected = rotary_reference(x, positions, head_dim=width, theta=10_000.0, rotated_share=share)
    # Angles up to 511 rad are rounded in fp32 to 3e-5, some 256 units in the last place of a cosine.
    assert_agrees(rotary(x, *angles), expected, terms=256**2)


def test_every_row_of_a_batch_may_have_its_own_positions() -> None:
    x = random(2, 4, 2, 16)
    positions = torch.tensor([[0, 1, 2, 3], [9, 10, 11, 12]])
    both = rotary(x, *rotary_angles(positions, head_dim=16, theta=100.0))
    for row in range(2):
        alone = rotary(x[row : row + 1], *rotary_angles(positions[row], head_dim=16, theta=100.0))
        assert torch.equal(both[row : row + 1], alone)


def test_products_depend_on_the_distance_alone() -> None:
    query, key = random(1, 1, 1, 32), random(1, 1, 1, 32, seed=1)

    def product(first: int, second: int) -> float:
        turned = [
            rotary(x, *rotary_angles(torch.tensor([at]), head_dim=32, theta=1000.0))
            for x, at in ((query, first), (key, second))
        ]
        return float((turned[0] * turned[1]).sum())

    assert product(3, 10) == pytest.approx(product(203, 210), abs=1e-3)
    assert product(3, 10) != pytest.approx(product(3, 11), abs=1e-3)


def test_angles_of_another_width_are_refused() -> None:
    with pytest.raises(ValueError, match="angles must be 16 wide, not 8"):
        rotary(random(1, 1, 1, 16), torch.ones(1, 8), torch.ones(1, 8))
