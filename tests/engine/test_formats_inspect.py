"""What a checkpoint consists of and what a run takes is known before it is loaded, and is what a run then takes."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from torch import Tensor

from dg_engine import checkpoint
from dg_engine.canvas import SeededDraws, denoise_step, new_canvas
from dg_engine.cli import main
from dg_engine.config import config_to_dict
from dg_engine.engine import Engine
from dg_engine.formats import convert
from dg_engine.formats.inspection import Inspection, bytes_text, inspect_checkpoint
from dg_engine.formats.plan import read_plan
from dg_engine.formats.sizes import memory_of_run
from dg_engine.full_size.shapes import RELEASED
from dg_engine.fused import FusedModel
from dg_engine.layers import Packed
from dg_engine.model import DiffusionGemma
from dg_engine.policies import EntropyBound
from dg_engine.prefix_cache import BEHIND, SPARE
from dg_engine.prefix_store import GPU_PREFILL_CHUNK, PrefixEncoder
from dg_engine.testing import TINY, peak_bytes, tiny_checkpoint, tiny_model

Header = dict[str, tuple[str, tuple[int, ...]]]


def modelopt_header(parameters: Mapping[str, Tensor], *, fp8: bool = False) -> Header:
    """Types and shapes of a checkpoint whose experts are NVFP4 by ModelOpt's convention, projections FP8 if told so."""
    header: Header = {}
    for name, parameter in parameters.items():
        if ".experts." not in name:
            is_fp8 = fp8 and name.endswith("_proj.weight") and "self_conditioning" not in name
            header[name] = ("F8_E4M3" if is_fp8 else "BF16", tuple(parameter.shape))
            if is_fp8:
                header[name + "_scale"] = ("F32", ())
            continue
        for stem, (rows, columns) in single_experts(name, parameter):
            header[stem + "weight"] = ("U8", (rows, columns // 2))
            header[stem + "weight_scale"] = ("F8_E4M3", (rows, columns // 16))
            header[stem + "weight_scale_2"] = ("F32", ())
            header[stem + "input_scale"] = ("F32", ())
    return header


def single_experts(name: str, parameter: Tensor) -> Iterator[tuple[str, tuple[int, int]]]:
    experts, rows, columns = parameter.shape
    module = name.rpartition(".")[0]
    for expert in range(experts):
        if name.endswith("down_proj"):
            yield f"{module}.{expert}.down_proj.", (rows, columns)
        else:
            yield f"{module}.{expert}.gate_proj.", (rows // 2, columns)
            yield f"{module}.{expert}.up_proj.", (rows // 2, columns)


def write_header(path: Path, header: Header) -> None:
    """A safetensors file of the right length whose data was never written: a hole, which takes no room on the disk."""
    widths = {"BF16": 2, "U8": 1, "F8_E4M3": 1, "F32": 4}
    entries, offset = {}, 0
    for name, (dtype, shape) in header.items():
        size = widths[dtype] * int(torch.Size(shape).numel())
        entries[name] = {"dtype": dtype, "shape": shape, "data_offsets": [offset, offset + size]}
        offset += size
    text = json.dumps(entries).encode()
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(8 + len(text) + offset)


def inspected(directory: Path, *, fp8: bool) -> Inspection:
    with torch.device("meta"):
        parameters = DiffusionGemma(RELEASED).state_dict()
    vision: Header = {"model.encoder.vision_tower.patch.weight": ("BF16", (1152, 768))}
    write_header(directory / "model.safetensors", modelopt_header(parameters, fp8=fp8) | vision)
    (directory / "config.json").write_text(json.dumps(config_to_dict(RELEASED, "bfloat16")))
    return inspect_checkpoint(directory, "cuda", context=16_384, canvas=None)


@pytest.fixture(scope="module")
def flagship(tmp_path_factory: pytest.TempPathFactory) -> Inspection:
    return inspected(tmp_path_factory.mktemp("flagship"), fp8=False)


def test_the_flagship_has_the_published_numbers_of_parameters(flagship: Inspection) -> None:
    assert flagship.parameters == pytest.approx(25.2e9, rel=0.003)
    assert flagship.active_parameters == pytest.approx(3.8e9, rel=0.02)
    experts = flagship.parts[0]
    assert experts.formats == ["nvfp4 (ModelOpt)"]
    assert experts.parameters == 30 * 128 * 3 * 704 * 2816
    assert experts.stored_bytes == experts.parameters * 9 // 16 + 30 * 128 * 3 * 4
    assert {part.name: part.formats for part in flagship.parts[1:]} == {
        name: ["bf16"] for name in ("attention", "dense", "router", "self-conditioning", "embedding", "norms")
    }
    assert flagship.unread_bytes == 1152 * 768 * 2 + 30 * 128 * 3 * 4


def test_the_flagship_in_nvfp4_with_16k_tokens_takes_18_2_gib(flagship: Inspection) -> None:
    """The weights alone are 16.5, or 17.7 GB. It is tried how long a block is: four holes of up to 128 at once."""
    memory = flagship.memory
    factors = 30 * 128 * (1408 + 2816) * 4
    assert memory.weights == pytest.approx(flagship.stored_bytes + factors, rel=1e-4)
    room, placed = GPU_PREFILL_CHUNK + SPARE, 1023 + 1024
    assert memory.sliding_cache == 25 * 2 * 8 * 256 * 2 * (1024 + BEHIND + room + placed)
    assert memory.full_cache == 5 * 2 * 2 * 512 * 2 * (2 * 16_384 + 1024 + room)
    assert memory.canvas == 4 * 128 * 262_144 * 2
    assert 18.1 * 2**30 < memory.total < 18.3 * 2**30


def test_with_projections_in_fp8_it_fits_into_18_gb(tmp_path: Path) -> None:
    """Of a thousand million bytes each: 16.0 of weights and their factors."""
    found = inspected(tmp_path, fp8=True)
    assert found.memory.weights == pytest.approx(16.1e9, rel=0.01)
    assert 17.7e9 < found.memory.total < 18e9


@pytest.mark.parametrize("experts", [4, 1])
def test_weights_take_what_was_foretold(tmp_path: Path, experts: int) -> None:
    tiny_checkpoint(tmp_path, replace(TINY, num_experts=experts, top_k_experts=1))
    model = Engine.load(tmp_path, device="cpu", dtype=torch.float32).model
    tensors = [*model.parameters(), *model.buffers()]
    if isinstance(model, FusedModel):
        parts = [part for layer in model.layers for part in vars(layer).values()]
        tensors += [part for part in parts if isinstance(part, Tensor)]
        tensors += [part.keywords["weight"] for part in parts if isinstance(part, partial)]
    taken = sum({one.data_ptr(): one.untyped_storage().nbytes() for one in tensors}.values())
    assert isinstance(model, FusedModel) == (experts == 1)
    assert memory_of_run(read_plan(tmp_path), 1, 1, 4, "cpu").weights == pytest.approx(taken, rel=0.01)


@pytest.mark.parametrize("format_", ["nvfp4", "fp8", "int4"])
@pytest.mark.parametrize("projections", [None, "fp8"])
def test_packed_weights_take_what_was_foretold(tmp_path: Path, format_: str, projections: str | None) -> None:
    model = tiny_model(replace(TINY, hidden_size=64, moe_intermediate_size=64)).bfloat16()
    checkpoint.save(model, tmp_path / "parent")
    convert.quantise(tmp_path / "parent", tmp_path / "small", format_, projections=projections)
    model = checkpoint.load(tmp_path / "small", keep_packed=True)
    matrices = [matrix for one in model.modules() if isinstance(one, Packed) for matrix in one.weights]
    tensors = [one for matrix in matrices for one in vars(matrix).values() if isinstance(one, Tensor)]
    # Two matrices of experts, three of the dense MLP, and of attention four, or three where keys are the values.
    sliding, full = (2, 2) if projections is None else (9, 8)
    kinds = TINY.layer_types
    assert len(matrices) == sliding * kinds.count("sliding_attention") + full * kinds.count("full_attention")
    taken = sum(one.untyped_storage().nbytes() for one in [*model.parameters(), *model.buffers(), *tensors])
    expected = memory_of_run(read_plan(tmp_path / "small"), 1, 1, 2, "cuda").weights
    assert expected == pytest.approx(taken, rel=0.001)
    assert model.parameter_count == checkpoint.load(tmp_path / "parent").parameter_count


@torch.inference_mode()
def test_a_prefix_takes_what_was_foretold(tmp_path: Path) -> None:
    model, length = tiny_model(), 3000
    checkpoint.save(model, tmp_path)
    expected = memory_of_run(read_plan(tmp_path), length, 1, 4, "cpu")
    *_, prefix = PrefixEncoder(model).encode("a", [7] * length)
    assert prefix is not None
    room = prefix.start.cache.room
    assert room is not None
    taken = [sum(one.untyped_storage().nbytes() for one in pair) for pair in zip(room.keys, room.values, strict=True)]
    # How much of the room behind the tokens is left depends on where the last buffer began.
    assert 0.7 < sum(taken[:2]) / expected.sliding_cache <= 1.01
    assert 0.9 < taken[2] / expected.full_cache <= 1.01


def test_a_step_takes_what_was_foretold(tmp_path: Path) -> None:
    model = tiny_model(replace(TINY, vocab_size=4096, canvas_length=64)).bfloat16()
    checkpoint.save(model, tmp_path)
    # A step of holes of 1, 2, 4, 8, 12, 16, 24, 32, 48 and 64 slots.
    assert inspect_checkpoint(tmp_path, "cpu", context=20, canvas=None).memory.canvas == 211 * 4096 * 4 * 5
    (tmp_path / "infill_config.json").write_text("{}")
    expected = inspect_checkpoint(tmp_path, "cpu", context=20, canvas=None).memory.canvas
    with torch.inference_mode():
        cache, draws = model.encode(torch.arange(20)[None]).cache, SeededDraws(4096, 0)
        canvas = new_canvas(model, 64, torch.zeros(0, dtype=torch.long), draws, pinned_signal=False)
        peak = peak_bytes(
            lambda: denoise_step(model, cache, canvas, temperature=0.8, acceptance=EntropyBound(), draws=draws)
        )
    assert expected == pytest.approx(peak, rel=0.05)


def test_people_and_programs_are_told_the_same(tmp_path: Path) -> None:
    sized = replace(TINY, moe_intermediate_size=32, vocab_size=16)
    checkpoint.save(tiny_model(sized).bfloat16(), tmp_path / "parent")
    convert.quantise(tmp_path / "parent", tmp_path / "small", "fp8")
    command = ["inspect", str(tmp_path / "small"), "--context", "100", "--canvas", "7", "--device", "cpu"]
    told = json.loads(CliRunner().invoke(main, [*command, "--json"], catch_exceptions=False).output)
    assert told["context"] == 100
    assert told["canvas"] == 7
    experts = told["parts"][0]
    assert experts["formats"] == ["fp8 (per channel)"]
    assert experts["active"] == experts["parameters"] // 2
    assert experts["stored_bytes"] == experts["parameters"] + 3 * 4 * (32 + 32 + 32) * 4
    text = CliRunner().invoke(main, command, catch_exceptions=False).output
    assert "2 sliding and 1 full layers of width 32, 2 of 4 experts, vocabulary 16" in text
    assert "fp8 (per channel)" in text
    assert "memory for 100 tokens of prefix and a canvas of 7 on cpu, which has" in text
    caches = sum(told["memory"][name] for name in ("sliding_cache", "full_cache"))
    assert (told["memory"]["further_document"], told["memory"]["further_places"]) == (caches, 0)
    assert f"each further document that is kept, at most 7: {bytes_text(caches)}" in " ".join(text.split())


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
def test_a_device_can_be_asked_about_that_is_not_here(tmp_path: Path) -> None:
    checkpoint.save(tiny_model(), tmp_path)
    text = CliRunner().invoke(main, ["inspect", str(tmp_path), "--device", "cuda"], catch_exceptions=False).output
    assert "a canvas of 12 on cuda, which is not in this machine" in text
    assert "in bfloat16" in text


def test_a_bad_checkpoint_is_refused_in_one_line(tmp_path: Path) -> None:
    checkpoint.save(tiny_model(), tmp_path)
    (tmp_path / "model.safetensors").write_bytes((tmp_path / "model.safetensors").read_bytes()[:-1])
    result = CliRunner().invoke(main, ["inspect", str(tmp_path)])
    assert result.exit_code == 1
    assert "model.safetensors: is not a readable safetensors file" in result.output


def test_quantize_says_where_it_wrote(tmp_path: Path) -> None:
    checkpoint.save(tiny_model(replace(TINY, moe_intermediate_size=32)).bfloat16(), tmp_path / "parent")
    command = ["quantize", str(tmp_path / "parent"), str(tmp_path / "out"), "--format", "int4"]
    assert CliRunner().invoke(main, command, catch_exceptions=False).stdout.strip() == str(tmp_path / "out")
    checkpoint.load(tmp_path / "out")
    again = CliRunner().invoke(main, command)
    assert again.exit_code == 1
    assert "exists; name a directory that does not" in again.output
