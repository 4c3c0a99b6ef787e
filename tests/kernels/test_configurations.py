"""Tiles are data: found by the device's name, checked where they are read."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from dg_kernels.configurations import FILE, read_configurations, tile_for

GOOD = {"rows": 16, "columns": 32, "depth": 64, "warps": 4, "stages": 2}


def content(*, tile: dict[str, Any] | None = None, default: dict[str, Any] | None = None) -> bytes:
    family = {"devices": ["NVIDIA H100", "NVIDIA H200"], "tiles": {"matmul": GOOD | {"rows": 128} | (tile or {})}}
    return json.dumps({"default": default or {"matmul": GOOD}, "families": [family]}).encode()


def test_a_family_is_found_by_the_beginning_of_the_device_name() -> None:
    found = read_configurations(content())
    assert found.tile("matmul", "NVIDIA H100 80GB HBM3").rows == 128
    assert found.tile("matmul", "NVIDIA H200").rows == 128
    assert found.tile("matmul", "NVIDIA L4").rows == 16
    assert found.tile("matmul", "").rows == 16
    with pytest.raises(KeyError):
        found.tile("softmax", "NVIDIA H200")


@pytest.mark.parametrize(
    ("tile", "complaint"),
    [
        ({"rows": 48}, "rows must be a power of two from 16, not 48"),
        ({"depth": 8}, "depth must be a power of two from 16, not 8"),
        ({"warps": 3}, "warps must be 1, 2, 4, 8 or 16, not 3"),
        ({"stages": 0}, "stages must be 1 to 8, not 0"),
        ({"stagse": 2}, "unknown field `stagse`"),
        ({"rows": "64"}, "Expected `int`, got `str`"),
    ],
)
def test_an_impossible_tile_is_refused_with_its_place(tile: dict[str, Any], complaint: str) -> None:
    with pytest.raises(msgspec.ValidationError, match=complaint) as caught:
        read_configurations(content(tile=tile))
    assert "$.families[0].tiles[...]" in str(caught.value)


def test_a_family_cannot_have_a_kernel_without_a_default() -> None:
    with pytest.raises(msgspec.ValidationError, match=r"without a default: \['matmul'\]"):
        read_configurations(content(default={"softmax": GOOD}))


@pytest.mark.parametrize("device", ["NVIDIA H100 80GB HBM3", "NVIDIA GeForce RTX 4090", "NVIDIA GeForce RTX 5090", ""])
@pytest.mark.parametrize("kind", ["plain", "e4m3", "e2m1", "int4", "native"])
def test_both_products_of_the_experts_have_blocks_of_as_many_rows(kind: str, device: str) -> None:
    read_configurations(FILE.read_bytes())
    assert tile_for(f"expert_mlp/{kind}/gate_up", device).rows == tile_for(f"expert_mlp/{kind}/down", device).rows
