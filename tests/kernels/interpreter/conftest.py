"""Kernels where they can run: on the GPU in bf16 if there is one, else in Triton's interpreter in fp32.

The interpreter computes bf16 wrongly (in integers), so the same kernels are given fp32 there.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch


@pytest.fixture(autouse=True)
def poisoned() -> Iterator[None]:
    """Memory that nothing has written is NaN, or the largest integer."""
    torch.use_deterministic_algorithms(mode=True)
    assert torch.empty(2).new_empty(3).isnan().all()
    yield
    torch.use_deterministic_algorithms(mode=False)


@pytest.fixture
def device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


@pytest.fixture
def dtype(device: torch.device) -> torch.dtype:
    return torch.bfloat16 if device.type == "cuda" else torch.float32
