"""A checkpoint is written with fewer bits: in a layout that its own package reads, within half a step of its parent."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from dg_engine import checkpoint
from dg_engine.errors import CheckpointError
from dg_engine.formats import convert
from dg_engine.formats.schemes import SCHEMES
from dg_engine.layers import Experts
from dg_engine.model import DiffusionGemma
from dg_engine.testing import TINY, tiny_model

CONFIG = replace(
    TINY,
    num_hidden_layers=2,
    layer_types=("sliding_attention", "full_attention"),
    intermediate_size=64,
    num_experts=3,
    moe_intermediate_size=32,
    vocab_size=16,
)
LAYER = "model.decoder.layers.0."


@pytest.fixture(scope="module")
def parent(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("parent")
    checkpoint.save(tiny_model(CONFIG).bfloat16(), directory, {"t_min": 0.4})
    return directory


def stored(directory: Path) -> dict[str, Tensor]:
    index = json.loads((directory / "model.safetensors.index.json").read_text())
    tensors: dict[str, Tensor] = {}
    for file in sorted(set(index["weight_map"].values())):
        tensors |= load_file(directory / file)
    assert tensors.keys() == index["weight_map"].keys()
    return tensors


def largest(matrix: Tensor, columns: int) -> Tensor:
    """[..., N, K]: for each number the largest magnitude in its group of columns."""
    groups = matrix.abs().reshape(*matrix.shape[:-1], -1, columns).amax(-1, keepdim=True)
    return groups.expand(*groups.shape[:-1], columns).reshape(matrix.shape)


def allowance(name: str, matrix: Tensor) -> Tensor:
    """How far a number may move: half the distance between the codes around it, and the rounding of its scale.

    NVFP4: codes are at most 2 apart on a range of 6, so 1/6 of the group's largest; the scale's own three bits of
    mantissa move the end of the range by 1/16 of it, and what is beyond the last code moves by that much more. A scale
    below the normal e4m3 numbers is off by half of the smallest, 2^-10, times 6 over 6 * 448 of the largest of all.
    FP8: half a unit in the last of three bits, 1/16 of the number, or half the smallest e4m3, 2^-10, of 448.
    INT4: half a step of a fourteenth of the range, with the scale rounded to eight bits of mantissa.
    All: the result is rounded to bf16.
    """
    if name == "nvfp4":
        moved = largest(matrix, 16) * (1 / 6 + 1 / 16) + matrix.abs().max() * 2**-10 / 448
    elif name == "fp8":
        moved = torch.maximum(matrix.abs() / 16, largest(matrix, matrix.shape[-1]) * 2**-10 / 448)
    else:
        moved = largest(matrix, 32) * (1 / 14 + 2**-8)
    return moved + matrix.abs() * 2**-7


@pytest.mark.parametrize("format_", SCHEMES)
@pytest.mark.parametrize("projections", [None, *SCHEMES])
def test_every_number_stays_within_half_a_step(
    parent: Path, tmp_path: Path, format_: str, projections: str | None
) -> None:
    convert.quantise(parent, tmp_path / "out", format_, projections=projections)
    before, after = checkpoint.load(parent).state_dict(), checkpoint.load(tmp_path / "out").state_dict()
    for name, matrix in before.items():
        is_projection = name.endswith("_proj.weight") and "self_cond" not in name
        expected = format_ if "experts" in name else projections if is_projection else None
        if expected is None:
            assert torch.equal(matrix, after[name]), name
            continue
        moved = (after[name].float() - matrix.float()).abs()
        assert (moved <= allowance(expected, matrix.float())).all(), name
        assert moved.any(), name


@pytest.mark.parametrize("format_", SCHEMES)
def test_the_quantised_model_stays_near_its_parent(parent: Path, tmp_path: Path, format_: str) -> None:
    """The experts' outputs of the first layer, whose input both models share: relative error, root of mean squares.

    Errors are uniform within the allowance, so their root mean square is the allowance's over the root of 3; those of
    gate, up and down are independent, and their squares add. GELU stretches an error by 1.13 at most.
    """
    convert.quantise(parent, tmp_path / "out", format_)
    ours, theirs = checkpoint.load(tmp_path / "out", dtype=torch.float32), checkpoint.load(parent, dtype=torch.float32)
    experts = first_experts(theirs)
    squares = [
        allowance(format_, matrix).square().mean() / 3 / matrix.square().mean()
        for matrix in (*experts.gate_up_proj.chunk(2, dim=1), experts.down_proj)
    ]
    expected, found = experts_output(theirs), experts_output(ours)
    error = ((found - expected).square().mean() / expected.square().mean()).sqrt()
    assert 0 < error < 1.13 * torch.stack(squares).sum().sqrt()


def experts_output(model: DiffusionGemma) -> Tensor:
    x = torch.randn(64, CONFIG.hidden_size, generator=torch.Generator().manual_seed(3))
    index = torch.arange(3).expand(64, 3)
    return first_experts(model).forward(x, index, torch.full((64, 3), 1 / 3))


def first_experts(model: DiffusionGemma) -> Experts:
    experts = model.get_submodule("model.decoder.layers.0.experts")
    assert isinstance(experts, Experts)
    return experts


@pytest.mark.parametrize("format_", SCHEMES)
def test_compressed_tensors_understands_what_is_written(parent: Path, tmp_path: Path, format_: str) -> None:
    package = pytest.importorskip("compressed_tensors")
    from compressed_tensors.quantization import QuantizationConfig

    convert.quantise(parent, tmp_path / "out", format_)
    stated = json.loads((tmp_path / "out" / "config.json").read_text())["quantization_config"]
    config = QuantizationConfig.model_validate(stated)
    (scheme,) = config.config_groups.values()
    compressor = package.compressors.BaseCompressor.get_value_from_registry(config.format)
    assert compressor.can_compress(torch.nn.Linear, scheme)
    stem = LAYER + "experts.2.down_proj."
    tensors = {name.removeprefix(stem): tensor for name, tensor in stored(tmp_path / "out").items() if stem in name}
    assert set(tensors) == set(compressor.compression_param_names(scheme))
    expected = compressor.decompress(tensors, scheme)["weight"].bfloat16()
    found = checkpoint.load(tmp_path / "out").state_dict()[LAYER + "experts.down_proj"][2]
    assert torch.equal(found, expected)
    matrix = checkpoint.load(parent).state_dict()[LAYER + "experts.down_proj"][2].float()
    scales = {name: tensor.clone() for name, tensor in tensors.items() if "scale" in name}
    scales["weight_scale"] = scales["weight_scale"].to(torch.float32)
    theirs = compressor.compress({"weight": matrix, **scales}, scheme)
    numbers = "weight" if format_ == "fp8" else "weight_packed"
    assert torch.equal(theirs[numbers], tensors[numbers]), "rounded as they round"


def test_matrices_that_are_multiplied_together_share_their_scale(parent: Path, tmp_path: Path) -> None:
    convert.quantise(parent, tmp_path / "out", "nvfp4", projections="nvfp4")
    tensors = stored(tmp_path / "out")

    def over_all(*names: str) -> set[float]:
        return {float(tensors[f"{LAYER}{name}.weight_global_scale"]) for name in names}

    assert len(over_all("experts.0.gate_proj", "experts.0.up_proj")) == 1
    assert len(over_all("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj")) == 1
    assert len(over_all("mlp.gate_proj", "mlp.up_proj")) == 1
    gates_and_ups = checkpoint.load(parent).state_dict()[LAYER + "experts.gate_up_proj"]
    for expert in range(CONFIG.num_experts):
        largest = float(gates_and_ups[expert].abs().max())
        assert over_all(f"experts.{expert}.up_proj").pop() == pytest.approx(6 * 448 / largest)


def test_what_is_left_alone_is_named_for_servers(parent: Path, tmp_path: Path) -> None:
    convert.quantise(parent, tmp_path / "out", "fp8")
    patterns = json.loads((tmp_path / "out" / "config.json").read_text())["quantization_config"]["ignore"]
    modules = {name.rpartition(".")[0] for name in stored(tmp_path / "out")}
    ignored = {m for m in modules if any(re.match(pattern.removeprefix("re:"), m) for pattern in patterns)}
    matrices = {m for m in modules if re.search(r"proj$|embed_tokens$", m)}
    assert {m for m in matrices - ignored if ".experts." not in m} == set()
    assert not {m for m in ignored if ".experts." in m}


def test_two_formats_are_two_groups_that_compressed_tensors_understands(parent: Path, tmp_path: Path) -> None:
    pytest.importorskip("compressed_tensors")
    from compressed_tensors.quantization import QuantizationConfig
    from compressed_tensors.utils import match_named_modules

    convert.quantise(parent, tmp_path / "out", "nvfp4", projections="fp8")
    stated = json.loads((tmp_path / "out" / "config.json").read_text())["quantization_config"]
    config = QuantizationConfig.model_validate(stated)
    assert config.format == "mixed-precision"
    names = {name.rpartition(".")[0] for name in stored(tmp_path / "out")}
    modules = torch.nn.Module()
    for name in sorted(name for name in names if name.endswith(("_proj", "embed_tokens"))):
        parent_of(modules, name).add_module(name.rpartition(".")[2], torch.nn.Linear(1, 1))
    for scheme, marks in zip(config.config_groups.values(), (("experts",), ("self_attn", "mlp")), strict=True):
        found = {name for name, _ in match_named_modules(modules, scheme.targets, config.ignore)}
        assert found == {
            name for name in names if name.endswith("_proj") and not set(marks).isdisjoint(name.split("."))
        }


def parent_of(root: torch.nn.Module, name: str) -> torch.nn.Module:
    """The module in which one of that name belongs, made where it is missing."""
    for part in name.split(".")[:-1]:
        if not hasattr(root, part):
            root.add_module(part, torch.nn.Module())
        root = getattr(root, part)
    return root


def test_large_checkpoints_become_several_files(parent: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(convert, "SHARD_BYTES", 10_000)
    seen: list[tuple[int, int]] = []
    convert.quantise(parent, tmp_path / "out", "int4", report=lambda done, of: seen.append((done, of)))
    files = sorted(path.name for path in (tmp_path / "out").glob("*.safetensors"))
    assert len(files) > 2
    assert files[0] == f"model-00001-of-{len(files):05}.safetensors"
    assert seen == [(done, len(seen)) for done in range(1, len(seen) + 1)]
    checkpoint.load(tmp_path / "out")


def test_settings_come_along_and_measurements_do_not(parent: Path, tmp_path: Path) -> None:
    shutil.copytree(parent, tmp_path / "measured")
    for name in ("evaluation.json", "tokenizer.json", "chat_template.jinja", "README.md", "modeling.py"):
        (tmp_path / "measured" / name).write_text("{}")
    convert.quantise(tmp_path / "measured", tmp_path / "out", "fp8")
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "chat_template.jinja",
        "config.json",
        "generation_config.json",
        "model-00001-of-00001.safetensors",
        "model.safetensors.index.json",
        "tokenizer.json",
    }


def test_experts_of_zeros_stay_zeros(tmp_path: Path) -> None:
    model = tiny_model(CONFIG).bfloat16()
    first_experts(model).down_proj.zero_()
    checkpoint.save(model, tmp_path / "zeros")
    for format_ in SCHEMES:
        convert.quantise(tmp_path / "zeros", tmp_path / format_, format_)
        assert not checkpoint.load(tmp_path / format_).state_dict()[LAYER + "experts.down_proj"].any()


@pytest.mark.parametrize(
    ("change", "format_", "expected"),
    [
        ({"moe_intermediate_size": 24}, "nvfp4", r"experts\.down_proj: 24 columns are not groups of 16"),
        ({"moe_intermediate_size": 16}, "int4", r"experts\.down_proj: 16 columns are not groups of 32"),
    ],
)
def test_a_width_that_does_not_suit_is_refused(
    tmp_path: Path, change: dict[str, Any], format_: str, expected: str
) -> None:
    checkpoint.save(tiny_model(replace(CONFIG, **change)), tmp_path / "narrow")
    with pytest.raises(CheckpointError, match=expected):
        convert.quantise(tmp_path / "narrow", tmp_path / "out", format_)
    assert not list(tmp_path.glob("out*"))


def test_nothing_is_overwritten_and_nothing_quantised_twice(parent: Path, tmp_path: Path) -> None:
    convert.quantise(parent, tmp_path / "out", "fp8")
    with pytest.raises(CheckpointError, match="exists; name a directory that does not"):
        convert.quantise(parent, tmp_path / "out", "nvfp4")
    with pytest.raises(CheckpointError, match=r"experts\.0\.\w+\.weight: is fp8 already"):
        convert.quantise(tmp_path / "out", tmp_path / "again", "nvfp4")


def test_a_full_disk_is_told_as_one(parent: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise SafetensorError("No space left on device")

    monkeypatch.setattr(convert, "save_file", full)
    with pytest.raises(CheckpointError, match=r"cannot be written \(No space left"):
        convert.quantise(parent, tmp_path / "small", "nvfp4")
    assert not [*tmp_path.glob("small*")]


def test_a_conversion_that_breaks_leaves_nothing(parent: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(convert, "_write_rest", broken)
    with pytest.raises(KeyboardInterrupt):
        convert.quantise(parent, tmp_path / "out", "fp8")
    assert not list(tmp_path.iterdir())
