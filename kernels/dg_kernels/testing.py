"""How tests compare an operation with its reference: one tolerance rule, by type and by the length of the sums."""

from __future__ import annotations

import torch
from torch import Tensor

from dg_kernels.quantised import quantise_e2m1, quantise_e4m3, quantise_int4
from dg_kernels.quantised.packed import PackedWeight

OPERATIONS = (
    "canvas_attention",
    "choose_experts",
    "expert_mlp",
    "expert_mlp.packed",
    "gated_gelu",
    "norm_rotary",
    "packed_linear",
    "quantised.rows",
    "random_numbers",
    "residual_norms",
    "soft_embedding",
    "vocabulary_head",
)
"""Modules that choose between PyTorch and their kernels by `served`, and launch these by `run`."""


def assert_agrees(actual: Tensor, expected: Tensor, *, terms: int = 1) -> None:
    """Compare by largest and by root-mean-square error, relative to the expected values' root mean square.

    The allowance is 4 units in the last place of the type, times the square root of the number of terms in each sum:
    rounding errors of a sum grow so. The root mean square may reach half of that, so that a bias shows which the
    largest error alone would pass.

    Raises:
        AssertionError: naming both errors and the coordinates and values of the worst element.
    """
    assert actual.shape == expected.shape, f"shape {list(actual.shape)}, expected {list(expected.shape)}"
    assert actual.dtype == expected.dtype, f"{actual.dtype}, expected {expected.dtype}"
    assert bool(torch.isfinite(actual).all()), "not every element is finite"
    error = (actual.double() - expected.double()).abs()
    scale = max(float(expected.double().pow(2).mean().sqrt()), 1e-6)
    allowed = 4 * torch.finfo(actual.dtype).eps * terms**0.5
    worst, mean = float(error.max()) / scale, float(error.pow(2).mean().sqrt()) / scale
    where = tuple(int(i) for i in torch.unravel_index(error.argmax(), error.shape))
    detail = f"worst at {where}: {float(actual[where])}, expected {float(expected[where])}"
    # A single element may be many times the root mean square, and its own rounding is relative to itself.
    assert worst <= allowed * 8, f"largest error {worst:.2e} of the scale, allowed {allowed * 8:.2e}; {detail}"
    assert mean <= allowed / 2, f"mean error {mean:.2e} of the scale, allowed {allowed / 2:.2e}; {detail}"


def random(*shape: int, dtype: torch.dtype = torch.float32, seed: int = 0) -> Tensor:
    """Normal random numbers that depend on the seed and the shape alone."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def distributions(rows: int, vocabulary: int) -> Tensor:
    """[rows, vocabulary] probabilities in fp32, of rows that are nearly sure and of rows that know nothing, in turn."""
    sharpness = torch.tensor([30.0, 0.5, 8.0, 3.0]).repeat(-(-rows // 4))[:rows, None]
    return (sharpness * random(rows, vocabulary)).softmax(dim=1)


def packed(kind: str, matrix: Tensor) -> PackedWeight:
    """A matrix [..., N, K] in 4 or 8 bits, with another factor for each row; int4 down to -6, as e2m1 by its scale."""
    factor = (0.5 + torch.rand(matrix.shape[:-1], generator=torch.Generator().manual_seed(9))).to(matrix.device)
    matrix = matrix / factor[..., None]
    if kind == "e4m3":
        values = quantise_e4m3(matrix, torch.full_like(factor, 2.0**-6)[..., None])
        return PackedWeight("e4m3", values, None, factor * 2.0**-6)
    width, dtype = (16, torch.float8_e4m3fn) if kind == "e2m1" else (32, torch.bfloat16)
    scale = (matrix.reshape(*factor.shape, -1, width).abs().amax(-1) / 6).to(dtype)
    if kind == "e2m1":
        return PackedWeight("e2m1", quantise_e2m1(matrix, scale.float()), scale, factor)
    return PackedWeight("int4", quantise_int4(matrix, scale.float()), scale, factor)
