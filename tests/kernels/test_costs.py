"""The floors of the operations, against the released model's numbers worked out by hand."""

from __future__ import annotations

import pytest

from dg_kernels.costs import (
    Cost,
    canvas_attention_cost,
    expert_mlp_cost,
    soft_embedding_cost,
    vocabulary_head_cost,
)


def test_the_head_reads_its_weight_and_writes_the_probabilities_once() -> None:
    cost = vocabulary_head_cost(256, 262_144, 2816)
    assert cost.bytes == 2 * 262_144 * 2816 + 2 * 256 * 2816 + 2 * 256 * 262_144
    assert cost.flops == pytest.approx(0.378e12, rel=1e-3)


def test_rows_that_are_sure_spare_the_weight() -> None:
    unsure, sure = soft_embedding_cost(256, 262_144, 2816, 0, 256), soft_embedding_cost(256, 262_144, 2816, 64 * 256, 0)
    assert unsure.flops == pytest.approx(0.378e12, rel=1e-3)
    assert unsure.bytes == vocabulary_head_cost(256, 262_144, 2816).bytes
    assert sure.bytes == pytest.approx(134.2e6 + 92.3e6 + 1.4e6, rel=1e-3)


def test_a_full_layer_attends_in_71_gigaflop_over_8k() -> None:
    cost = canvas_attention_cost(1, 16, 2, 256, 8192 + 256, 512)
    assert cost.flops == pytest.approx(70.9e9, rel=1e-3)
    assert cost.bytes == (8192 + 256) * 4096 + 2 * 256 * 16 * 512 * 2


def test_four_bits_and_a_scale_for_sixteen_weights_are_a_little_over_a_quarter() -> None:
    dense, packed = (expert_mlp_cost(256, 2816, 704, 8, 128, weight_bits=bits) for bits in (16, 4.5))
    assert dense.flops == packed.flops == pytest.approx(0.731e12 / 30, rel=1e-3)
    weights = dense.bytes - 2 * 2 * 256 * 2816
    assert weights == pytest.approx(45.68e9 / 30, rel=1e-3)
    assert packed.bytes - 2 * 2 * 256 * 2816 == pytest.approx(12.85e9 / 30, rel=1e-3)


def test_the_floor_is_the_slower_of_memory_and_arithmetic() -> None:
    assert Cost(100, 1000).seconds(10, 1000) == 10
    assert Cost(100, 1000).seconds(1000, 10) == 100
