"""The benchmark runs without a GPU, at toy size, and its table has every operation that has a kernel."""

from __future__ import annotations

import pytest
import torch

from dg_kernels import bench
from dg_kernels.launching import pytorch_only, served


def test_the_table_has_every_operation_with_times_and_a_floor(capsys: pytest.CaptureFixture[str]) -> None:
    assert bench.main(["--toy"]) == 0
    table = [line.strip("| ").split(" | ") for line in capsys.readouterr().out.splitlines() if line.startswith("| ")]
    names = [row[0] for row in table[1:]]
    assert names == [
        "canvas_attention, sliding layer",
        "canvas_attention, full layer",
        "expert_mlp",
        "packed_expert_mlp, fp8",
        "packed_linear, fp8",
        "packed_expert_mlp, nvfp4",
        "packed_linear, nvfp4",
        "packed_expert_mlp, int4",
        "packed_linear, int4",
        "packed_expert_mlp, fp8, native",
        "packed_linear, fp8, native",
        "vocabulary_head",
        "the head's product alone, PyTorch",
        "soft_embedding, 0% of the rows sure",
        "soft_embedding, 50% of the rows sure",
        "soft_embedding, 100% of the rows sure",
        "norm_rotary",
        "add_attention",
        "add_feed_forward",
        "choose_experts",
    ]
    for row in table[1:]:
        times, megabytes, floor = row[2:4], row[4], row[6]
        assert all(float(cell) > 0 for cell in (*times, megabytes))
        assert float(floor) >= 0, "rounded to a microsecond"


def test_kernels_are_for_bf16_on_a_gpu_without_a_gradient() -> None:
    if not torch.cuda.is_available():
        assert not served(torch.empty(1, dtype=torch.bfloat16))
        return
    one = torch.empty(1, dtype=torch.bfloat16, device="cuda")
    assert served(one)
    assert not served(one, one.float())
    assert not served(one, one.clone().requires_grad_())
    with pytorch_only():
        assert not served(one)
