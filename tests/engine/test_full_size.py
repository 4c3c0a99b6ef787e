"""The benchmark of the released model's shape runs at toy size, and what it measures is what it says."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from dg_engine.cli import main
from dg_engine.errors import EngineError
from dg_engine.full_size.floors import step_floor
from dg_engine.full_size.shapes import RELEASED, SHAPES
from dg_engine.full_size.weights import BITS, random_model
from dg_kernels.bench import Rates

TINY = SHAPES["tiny"].config


def test_one_command_reports_every_shape_block_and_kernel(tmp_path: Path) -> None:
    command = ["bench", "--full-size", "--shape", "tiny", "--format", "nvfp4", "--device", "cpu", "--out"]
    result = CliRunner().invoke(main, [*command, str(tmp_path)], catch_exceptions=False)
    assert result.exit_code == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["tiny-nvfp4.json", "tiny-nvfp4.md", "tiny-nvfp4.png"]
    assert (tmp_path / "tiny-nvfp4.md").read_text() in result.stdout
    assert (tmp_path / "tiny-nvfp4.png").read_bytes().startswith(b"\x89PNG")
    told = json.loads((tmp_path / "tiny-nvfp4.json").read_text())
    ours = told["ours"]
    assert [(one["canvas"], one["prefix"]) for one in ours["steps"]] == [(64, 8), (128, 8), (64, 96), (128, 96)]
    assert [one["steps"] for one in ours["blocks"]] == [1, 2]
    assert all(one["ms"] > 0 for one in (*ours["steps"], *ours["blocks"]))
    assert all(one["first_draft_ms"] > one["prefill_ms"] > 0 for one in ours["prefixes"])
    assert ours["weights_bytes"] < ours["memory_bytes"] <= ours["peak_bytes"]
    infills = [(one["hole"], one["canvas"], one["steps"], one["lengths"]) for one in ours["infills"]]
    assert infills == [(32, 64, 8, 1), (32, 64, 8, 8)]
    assert all(one["ms"] > 0 for one in ours["infills"])
    assert (
        "an infill of 8 lengths up to 32 in a canvas of 64, 8 steps, behind an encoded prefix of 32: " in result.stdout
    )
    assert "packed_expert_mlp, nvfp4" in {one["name"] for one in told["kernels"]}


def test_transformers_is_measured_beside_it_by_the_same_command(tmp_path: Path) -> None:
    command = ["bench", "--full-size", "--shape", "tiny", "--format", "bf16", "--device", "cpu", "--against", "eager"]
    result = CliRunner().invoke(main, [*command, "--out", str(tmp_path)], catch_exceptions=False)
    assert result.exit_code == 0
    told = json.loads((tmp_path / "tiny-bf16.json").read_text())
    assert [(one["mode"], one["prefix"]) for one in told["theirs"]] == [("eager", 8), ("eager", 96)]
    assert "transformers" in (tmp_path / "tiny-bf16.md").read_text()


@pytest.mark.parametrize("format_", BITS)
def test_random_weights_take_what_their_format_takes_and_give_numbers(format_: str) -> None:
    model = random_model(TINY, format_, torch.device("cpu"))
    experts = 2 * 8 * 3 * 64 * 64
    # Queries, keys, values and outputs of a sliding and a full layer, whose keys are the values; two dense MLPs.
    projections = 64 * ((4 + 2 + 2 + 4) * 32 + (4 + 1 + 4) * 64) + 2 * 3 * 64 * 96
    rows = 2 * 8 * 3 * 64 + (4 + 2 + 2) * 32 + 64 + (4 + 1) * 64 + 64 + 2 * (2 * 96 + 64)
    bits, factors = BITS[format_], 0 if format_ == "bf16" else 4 * rows
    assert model.parameter_count == random_model(TINY, "bf16", torch.device("cpu")).parameter_count
    rest = model.parameter_count - experts - projections
    assert model.weight_bytes == 2 * rest + (experts * bits.experts + projections * bits.projections) / 8 + factors
    with torch.no_grad():
        hidden = model.encode(torch.arange(20)[None]).hidden
    assert hidden.isfinite().all()


@pytest.mark.parametrize(("format_", "experts", "dense"), [("bf16", 10.62, 1.08), ("nvfp4", 2.99, 1.08)])
def test_the_floor_of_a_step_on_an_h200_is_the_one_worked_out_by_hand(
    format_: str, experts: float, dense: float
) -> None:
    """Milliseconds of experts, dense matrices, head, self-conditioning and attention.

    In FP8 the dense matrices' bytes take half as long, but with bf16 products their arithmetic takes as long as before.
    """
    rates, bits = Rates(bytes=4.3e12, flops=790e12, e4m3_flops=1580e12), BITS[format_]
    assert step_floor(RELEASED, 256, 8192, bits, rates) * 1e3 == pytest.approx(
        experts + dense + 0.48 + 0.48 + 0.62, rel=0.02
    )
    assert step_floor(RELEASED, 64, 8192, bits, rates) < step_floor(RELEASED, 256, 8192, bits, rates)
    assert step_floor(RELEASED, 256, 512, bits, rates) < step_floor(RELEASED, 256, 8192, bits, rates)


@torch.no_grad()
def test_transformers_runs_over_the_very_weights_and_computes_the_same() -> None:
    pytest.importorskip("transformers", minversion="5.23.0")
    from dg_engine.full_size.theirs import borrowed, measure_theirs

    model = random_model(TINY, "bf16", torch.device("cpu")).float()
    theirs = borrowed(model)
    assert theirs.lm_head.weight.data_ptr() == model.decoder.embed_tokens.weight.data_ptr()
    tokens, canvas = torch.arange(3, 90)[None], torch.arange(200, 456)[None]
    expected = theirs(input_ids=tokens, decoder_input_ids=canvas).logits
    found = model.logits(model.decode(canvas, model.encode(tokens).cache, None))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    (one,) = measure_theirs(model, replace(SHAPES["tiny"], prefixes=(8,), timed_steps=2), "eager")
    assert one.prefix == 8


def test_transformers_is_not_measured_over_packed_weights() -> None:
    pytest.importorskip("transformers")
    from dg_engine.full_size.theirs import borrowed

    with pytest.raises(EngineError, match="use --format bf16"):
        borrowed(random_model(TINY, "fp8", torch.device("cpu")))


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (["--full-size", "--holes", "3"], "--holes is for measurements without --full-size"),
        (["--format", "fp8"], "--format is for measurements with --full-size"),
    ],
)
def test_an_option_that_nothing_would_read_is_refused(options: list[str], complaint: str) -> None:
    result = CliRunner().invoke(main, ["bench", *options])
    assert result.exit_code == 2
    assert complaint in result.output
