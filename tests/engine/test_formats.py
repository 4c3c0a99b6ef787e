"""Every number format and layout is read as its own package reads it, to the bit; all damage is refused by name."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from dg_engine import checkpoint
from dg_engine.errors import CheckpointError
from dg_engine.formats.schemes import SCHEMES
from dg_engine.layers import Experts, PackedExperts, PackedLinear
from dg_engine.testing import TINY, peak_bytes, tiny_model
from dg_kernels import quantise_int4
from dg_kernels.quantised.reference import dequantise_reference, e2m1_value, nibble_reference

CONFIG = replace(
    TINY, num_hidden_layers=1, layer_types=("full_attention",), num_experts=2, moe_intermediate_size=32, vocab_size=16
)
LAYER = "model.decoder.layers.0."
EXPERT = LAYER + "experts.1.up_proj."

Tensors = dict[str, Tensor]
Matrix = Callable[[Tensor], Tensors]
"""A matrix [N, K] to its stored tensors, by the ends of their names."""


@pytest.fixture(scope="module")
def parent(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("parent")
    checkpoint.save(tiny_model(CONFIG).bfloat16(), directory)
    return directory


def matrices(tensors: Tensors) -> Tensors:
    """Every expert's matrices by the stems of their names, taken out of the fused parameters."""
    gates_and_ups, downs = tensors.pop(LAYER + "experts.gate_up_proj"), tensors.pop(LAYER + "experts.down_proj")
    found = {}
    for expert in range(CONFIG.num_experts):
        gate, up = gates_and_ups[expert].chunk(2)
        for name, matrix in (("gate_proj", gate), ("up_proj", up), ("down_proj", downs[expert])):
            found[f"{LAYER}experts.{expert}.{name}."] = matrix
    return found


def fused(found: Tensors) -> Tensors:
    """The parameters that the matrices make up."""
    experts = [LAYER + f"experts.{expert}." for expert in range(CONFIG.num_experts)]
    return {
        LAYER + "experts.gate_up_proj": torch.stack(
            [torch.cat((found[each + "gate_proj."], found[each + "up_proj."])) for each in experts]
        ),
        LAYER + "experts.down_proj": torch.stack([found[each + "down_proj."] for each in experts]),
    }


def written(parent: Path, directory: Path, matrix: Matrix) -> Path:
    """The parent checkpoint with its experts stored one by one."""
    tensors = load_file(parent / "model.safetensors")
    for stem, values in matrices(tensors).items():
        tensors.update({stem + end: tensor.contiguous() for end, tensor in matrix(values).items()})
    return store(parent, directory, tensors)


def store(parent: Path, directory: Path, tensors: Tensors, **more: Any) -> Path:
    directory.mkdir(exist_ok=True)
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, directory / "model.safetensors")
    config = json.loads((parent / "config.json").read_text()) | more
    (directory / "config.json").write_text(json.dumps(config))
    return directory


def modelopt(matrix: Tensor) -> Tensors:
    """Random bytes of the right shapes: the convention in which the scale over all multiplies."""
    generator = torch.Generator().manual_seed(int(matrix.float().abs().sum() * 1000))
    rows, columns = matrix.shape
    scales = torch.rand(rows, columns // 16, generator=generator) + 0.1
    return {
        "weight": torch.randint(0, 256, (rows, columns // 2), dtype=torch.uint8, generator=generator),
        "weight_scale": scales.to(torch.float8_e4m3fn),
        "weight_scale_2": torch.rand((), generator=generator) + 0.01,
        "input_scale": torch.tensor(0.5),
    }


def assert_experts(directory: Path, expected: Tensors) -> None:
    state = checkpoint.load(directory).state_dict()
    for name, tensor in fused(expected).items():
        assert state[name].dtype == torch.bfloat16
        torch.testing.assert_close(state[name], tensor.bfloat16(), rtol=0, atol=0)


def packaged(preset: str, **changes: Any) -> tuple[Matrix, Callable[[Tensors], Tensor]]:
    """What compressed-tensors stores for a matrix, and what it reads back."""
    package = pytest.importorskip("compressed_tensors")
    from compressed_tensors.quantization.quant_scheme import preset_name_to_scheme
    from compressed_tensors.quantization.utils import calculate_qparams, generate_gparam

    scheme = preset_name_to_scheme(preset, ["Linear"])
    scheme.weights = scheme.weights.model_copy(update=changes)
    args = scheme.weights
    compressor = package.compressors.BaseCompressor.get_value_from_registry(
        {"NVFP4A16": "nvfp4-pack-quantized", "W4A16": "pack-quantized", "FP8": "float-quantized"}[preset]
    )

    def compress(matrix: Tensor) -> Tensors:
        width = {"tensor": matrix.numel(), "channel": matrix.shape[1]}.get(args.strategy, args.group_size)
        groups = matrix.reshape(1 if args.strategy == "tensor" else len(matrix), -1, width)
        over_all = generate_gparam(matrix.min(), matrix.max()) if preset == "NVFP4A16" else None
        scale, _ = calculate_qparams(groups.amin(-1), groups.amax(-1), args, global_scale=over_all)
        tensors = {"weight": matrix, "weight_scale": scale}
        if over_all is not None:
            tensors["weight_global_scale"] = over_all
        return dict(compressor.compress(tensors, scheme))

    def decompress(tensors: Tensors) -> Tensor:
        weight: Tensor = compressor.decompress(tensors, scheme)["weight"]
        return weight

    return compress, decompress


@pytest.mark.parametrize(
    ("preset", "changes"),
    [
        ("NVFP4A16", {}),
        ("W4A16", {"group_size": 16}),
        ("W4A16", {"strategy": "channel", "group_size": None}),
        ("FP8", {"strategy": "channel"}),
        ("FP8", {"strategy": "tensor"}),
    ],
)
def test_what_compressed_tensors_writes_is_read_to_the_bit(
    parent: Path, tmp_path: Path, preset: str, changes: dict[str, Any]
) -> None:
    compress, decompress = packaged(preset, **changes)
    directory = written(parent, tmp_path / "quantised", compress)
    experts = matrices(load_file(parent / "model.safetensors"))
    assert_experts(directory, {stem: decompress(compress(matrix)) for stem, matrix in experts.items()})


def test_modelopts_second_scale_multiplies(parent: Path, tmp_path: Path) -> None:
    directory = written(parent, tmp_path / "quantised", modelopt)
    expected = {}
    for stem, matrix in matrices(load_file(parent / "model.safetensors")).items():
        tensors = modelopt(matrix)
        codes = [[nibble_reference(row, column) for column in range(matrix.shape[1])] for row in tensors["weight"]]
        values = torch.tensor([[e2m1_value(code) for code in row] for row in codes])
        scale = tensors["weight_scale"].float() * tensors["weight_scale_2"]
        expected[stem] = dequantise_reference(values, scale)
    assert_experts(directory, expected)


def by_row(matrix: Tensor) -> Tensors:
    return SCHEMES["fp8"].write(matrix, [matrix])


def by_tensor(matrix: Tensor) -> Tensors:
    return {"weight": matrix.to(torch.float8_e4m3fn), "weight_scale": torch.tensor(float(matrix.abs().max()))}


def restacked(parent: Path, single: Path, directory: Path) -> Path:
    """A checkpoint of two single experts with their tensors stacked, gate and up apart."""
    tensors = load_file(single / "model.safetensors")
    stacked = {
        name.replace("experts.0.", "experts."): torch.stack((tensor, tensors[name.replace("experts.0.", "experts.1.")]))
        for name, tensor in tensors.items()
        if "experts.0." in name and not name.endswith("weight_shape")
    }
    rest = {name: tensor for name, tensor in tensors.items() if ".experts." not in name}
    return store(parent, directory, rest | stacked)


@pytest.mark.parametrize("matrix", [modelopt, by_row, by_tensor, lambda matrix: {"weight": matrix}])
def test_fused_and_single_experts_are_the_same(parent: Path, tmp_path: Path, matrix: Matrix) -> None:
    """Stacked over experts, gate and up apart: the scales are stacked as the numbers are."""
    single = written(parent, tmp_path / "single", matrix)
    expected = checkpoint.load(single).state_dict()
    directory = restacked(parent, single, tmp_path / "stacked")
    torch.testing.assert_close(checkpoint.load(directory).state_dict(), expected, rtol=0, atol=0)
    tensors = load_file(directory / "model.safetensors")
    renamed = {name.replace("_proj.weight", "_proj") if "experts" in name else name: tensors[name] for name in tensors}
    found = checkpoint.load(store(parent, tmp_path / "renamed", renamed)).state_dict()
    torch.testing.assert_close(found, expected, rtol=0, atol=0)


def packed_numbers(directory: Path) -> Tensors:
    """What the experts that stay packed mean, in fp32, by the names of the parameters that they stand for."""
    model = checkpoint.load(directory, dtype=torch.float32, keep_packed=True)
    experts = model.decoder.layers[0].experts
    assert isinstance(experts, PackedExperts)
    assert not list(experts.parameters())
    names = ("gate_up_proj", "down_proj")
    return {
        f"{LAYER}experts.{name}": weight.dequantised(torch.float32)
        for name, weight in zip(names, experts.weights, strict=True)
    }


def by_group(matrix: Tensor) -> Tensors:
    """Two groups of 16 columns."""
    scale = matrix.float().reshape(len(matrix), 2, -1).abs().amax(-1) / 7
    return {"weight_packed": quantise_int4(matrix, scale), "weight_scale": scale.half()}


PACKED: dict[str, tuple[Matrix, float]] = {
    "FP8, a scale a row": (by_row, 0.0),
    "FP8, a scale a matrix": (by_tensor, 0.0),
    "NVFP4, ModelOpt": (modelopt, 0.0),
    # The inverse of the divisor is rounded, and the product with it.
    "NVFP4, compressed-tensors": (lambda matrix: SCHEMES["nvfp4"].write(matrix, [matrix]), 2**-22),
    "INT4, a scale a row": (lambda matrix: SCHEMES["int4"].write(matrix, [matrix]), 0.0),
    "INT4, a scale for 16 columns": (by_group, 0.0),
}


@pytest.mark.parametrize("name", PACKED)
def test_experts_that_stay_packed_mean_the_same_numbers(parent: Path, tmp_path: Path, name: str) -> None:
    matrix, tolerance = PACKED[name]
    single = written(parent, tmp_path / "single", matrix)
    stacked = restacked(parent, single, tmp_path / "stacked")
    plain = checkpoint.load(single, dtype=torch.float32).state_dict()
    for directory in (single, stacked):
        for parameter, numbers in packed_numbers(directory).items():
            torch.testing.assert_close(numbers, plain[parameter], rtol=tolerance, atol=0)


@pytest.mark.parametrize("name", PACKED)
@torch.no_grad()
def test_a_model_with_packed_experts_computes_what_the_unpacked_one_does(
    parent: Path, tmp_path: Path, name: str
) -> None:
    directory = written(parent, tmp_path / "quantised", PACKED[name][0])
    plain, packed = (checkpoint.load(directory, dtype=torch.float32, keep_packed=keep) for keep in (False, True))
    tokens = torch.arange(12)[None] % CONFIG.vocab_size
    expected, found = plain.encode(tokens), packed.encode(tokens)
    torch.testing.assert_close(found.hidden, expected.hidden, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(
        packed.decode(tokens, found.cache, None), plain.decode(tokens, expected.cache, None), rtol=1e-5, atol=1e-5
    )


@pytest.mark.parametrize("odd", [lambda matrix: {"weight": matrix}, by_row], ids=["bf16", "another format"])
def test_experts_that_are_not_stored_alike_become_numbers(parent: Path, tmp_path: Path, odd: Matrix) -> None:
    stems = list(matrices(load_file(parent / "model.safetensors")))
    tensors = load_file(written(parent, tmp_path / "single", modelopt) / "model.safetensors")
    for name in [name for name in tensors if name.startswith(stems[-1])]:
        tensors.pop(name)
    matrix = matrices(load_file(parent / "model.safetensors"))[stems[-1]]
    tensors.update({stems[-1] + end: tensor for end, tensor in odd(matrix).items()})
    model = checkpoint.load(store(parent, tmp_path / "mixed", tensors), keep_packed=True)
    assert isinstance(model.decoder.layers[0].experts, Experts)


def test_groups_that_no_kernel_knows_become_numbers(tmp_path: Path) -> None:
    checkpoint.save(tiny_model(replace(CONFIG, hidden_size=48)).bfloat16(), tmp_path / "parent")
    directory = written(tmp_path / "parent", tmp_path / "groups of 24", by_group)
    experts = checkpoint.load(directory, keep_packed=True).decoder.layers[0].experts
    assert isinstance(experts, Experts)


@pytest.mark.parametrize("name", PACKED)
@torch.no_grad()
def test_projections_stay_packed_each_by_itself_and_compute_the_same(tmp_path: Path, name: str) -> None:
    """All but the output of attention, which is stored in bf16."""
    matrix, parent = PACKED[name][0], tmp_path / "parent"
    checkpoint.save(tiny_model(replace(CONFIG, intermediate_size=64)).bfloat16(), parent)
    tensors = load_file(parent / "model.safetensors")
    for stem in [name.removesuffix("weight") for name in tensors if name.endswith(("_proj.weight",))]:
        if "o_proj" not in stem and "self_conditioning" not in stem:
            found = matrix(tensors.pop(stem + "weight"))
            tensors.update({stem + end: tensor for end, tensor in found.items()})
    directory = store(parent, tmp_path / "quantised", tensors)
    plain, packed = (checkpoint.load(directory, dtype=torch.float32, keep_packed=keep) for keep in (False, True))
    kept = {each for each, module in packed.named_modules() if isinstance(module, PackedLinear)}
    assert kept == {
        each
        for each, module in plain.named_modules()
        if isinstance(module, torch.nn.Linear) and each.endswith("_proj")
        if "o_proj" not in each and "self_conditioning" not in each
    }
    assert packed.parameter_count == plain.parameter_count
    tokens = torch.arange(12)[None] % CONFIG.vocab_size
    torch.testing.assert_close(packed.encode(tokens).hidden, plain.encode(tokens).hidden, rtol=1e-5, atol=1e-5)


def test_packed_experts_are_not_saved(parent: Path, tmp_path: Path) -> None:
    model = checkpoint.load(written(parent, tmp_path / "quantised", by_row), keep_packed=True)
    with pytest.raises(CheckpointError, match="packed weights cannot be saved"):
        checkpoint.save(model, tmp_path / "copy")
    assert not (tmp_path / "copy").exists()


def test_gate_and_up_can_be_one_matrix_of_each_expert(parent: Path, tmp_path: Path) -> None:
    single = written(parent, tmp_path / "single", by_row)
    tensors = load_file(single / "model.safetensors")
    for name in [name for name in tensors if ".gate_proj." in name and ".experts." in name]:
        together = torch.cat([tensors.pop(each).float() for each in (name, name.replace("gate", "up"))])
        dtype = torch.float32 if name.endswith("scale") else torch.float8_e4m3fn
        tensors[name.replace("gate", "gate_up")] = together.to(dtype)
    found = checkpoint.load(store(parent, tmp_path / "together", tensors)).state_dict()
    torch.testing.assert_close(found, checkpoint.load(single).state_dict(), rtol=0, atol=0)


def test_scales_of_activations_and_of_cached_keys_are_passed_over(parent: Path, tmp_path: Path) -> None:
    tensors = load_file(parent / "model.safetensors")
    names = ("self_attn.k_proj.k_scale", "self_attn.v_scale", "experts.0.up_proj.input_global_scale")
    more = {LAYER + name: torch.tensor(2.0) for name in names}
    found = checkpoint.load(store(parent, tmp_path / "more", tensors | more)).state_dict()
    torch.testing.assert_close(found, checkpoint.load(parent).state_dict(), rtol=0, atol=0)


def test_single_experts_in_bf16_are_the_fused_ones(parent: Path, tmp_path: Path) -> None:
    directory = written(parent, tmp_path / "single", lambda matrix: {"weight": matrix})
    assert_experts(directory, matrices(load_file(parent / "model.safetensors")))


def test_loading_holds_no_second_copy(parent: Path, tmp_path: Path) -> None:
    """Beside the numbers there is at most one stored matrix, and what its numbers are made of."""
    directory = written(parent, tmp_path / "quantised", modelopt)
    numbers = sum(one.nbytes for one in checkpoint.load(directory).state_dict().values())
    peak = peak_bytes(lambda: checkpoint.load(directory))
    a_matrix = CONFIG.moe_intermediate_size * CONFIG.hidden_size
    assert numbers * 0.99 < peak < numbers + 20 * a_matrix < 1.5 * numbers
    experts = 2 * 3 * a_matrix
    packed = numbers - experts * 2 + experts * 9 // 16 + 4 * 2 * (3 * CONFIG.hidden_size)
    peak = peak_bytes(lambda: checkpoint.load(directory, keep_packed=True))
    assert packed * 0.99 < peak < packed + 10 * a_matrix < numbers + 10 * a_matrix


def test_loading_reports_its_progress(parent: Path) -> None:
    seen: list[float] = []
    checkpoint.load(parent, report=seen.append)
    assert seen == sorted(seen)
    assert seen[0] == 0
    assert 0.9 < seen[-1] < 1


DAMAGES: list[tuple[str, Callable[[Tensors], Any], str]] = [
    ("a scale is missing", lambda t: t.pop(EXPERT + "weight_scale"), "weight: expected bf16, FP8 with a scale"),
    ("the second scale is missing", lambda t: t.pop(EXPERT + "weight_scale_2"), "weight: expected bf16, FP8"),
    ("the numbers are missing", lambda t: t.pop(EXPERT + "weight"), "the weight that it belongs to, found none"),
    ("an expert is missing", lambda t: [t.pop(n) for n in list(t) if EXPERT in n], "expected [32, 32], found none (1"),
    (
        "an expert too many",
        lambda t: t.update({EXPERT.replace("1", "2") + "weight": torch.zeros(1)}),
        "no place for it",
    ),
    (
        "too short",
        lambda t: t.update({EXPERT + "weight": t[EXPERT + "weight"][:, :5]}),
        "expected [32, 16], found [32, 5]",
    ),
    (
        "scales too few",
        lambda t: t.update({EXPERT + "weight_scale": t[EXPERT + "weight_scale"][:9]}),
        "expected [32, 2]",
    ),
    (
        "NaN",
        lambda t: t.update({EXPERT + "weight_scale_2": torch.tensor(torch.nan)}),
        "scale_2: expected finite scales",
    ),
    ("infinite", lambda t: t.update({EXPERT + "weight_scale_2": torch.tensor(torch.inf)}), "expected finite scales"),
    (
        "zero points",
        lambda t: t.update({EXPERT + "weight_zero_point": torch.zeros(1)}),
        "zero points are not supported",
    ),
    ("reordered", lambda t: t.update({EXPERT + "weight_g_idx": torch.zeros(1)}), "activation ordering"),
    ("blocks", lambda t: t.update({EXPERT + "weight_scale_inv": torch.zeros(1)}), "two-dimensional blocks"),
    ("another type", lambda t: t.update({EXPERT + "weight": torch.zeros(32, 32, dtype=torch.float8_e5m2)}), "F8_E5M2"),
    ("twice", lambda t: t.update({LAYER + "experts.gate_up_proj": torch.zeros(2, 64, 32)}), "is stored twice, also as"),
]


@pytest.mark.parametrize(("change", "expected"), [case[1:] for case in DAMAGES], ids=[case[0] for case in DAMAGES])
def test_damage_is_refused_by_the_name_of_the_tensor(
    parent: Path, tmp_path: Path, change: Callable[[Tensors], Any], expected: str
) -> None:
    tensors = load_file(written(parent, tmp_path / "whole", modelopt) / "model.safetensors")
    change(tensors)
    with pytest.raises(CheckpointError) as caught:
        checkpoint.load(store(parent, tmp_path / "damaged", tensors))
    assert expected in str(caught.value)
    assert "experts." in str(caught.value)


def test_a_stored_shape_must_be_the_models(parent: Path, tmp_path: Path) -> None:
    compress, _ = packaged("W4A16", group_size=16)
    tensors = load_file(written(parent, tmp_path / "whole", compress) / "model.safetensors")
    tensors[EXPERT + "weight_shape"] = torch.tensor([32, 64])
    with pytest.raises(
        CheckpointError, match=r"experts\.1\.up_proj\.weight_shape: expected \[32, 32\], found \[32, 64\]"
    ):
        checkpoint.load(store(parent, tmp_path / "damaged", tensors))


def test_a_divisor_of_zero_is_refused(parent: Path, tmp_path: Path) -> None:
    compress, _ = packaged("NVFP4A16")
    tensors = load_file(written(parent, tmp_path / "whole", compress) / "model.safetensors")
    tensors[EXPERT + "weight_global_scale"] = torch.zeros(1)
    with pytest.raises(CheckpointError, match=r"up_proj\.weight_global_scale: expected finite scales other than zero"):
        checkpoint.load(store(parent, tmp_path / "damaged", tensors))


def group(**weights: Any) -> dict[str, Any]:
    return {"quant_method": "compressed-tensors", "config_groups": {"group_0": {"weights": weights}}}


@pytest.mark.parametrize(
    ("stated", "expected"),
    [
        ({"quant_method": "modelopt", "quant_algo": "NVFP4"}, None),
        (group(type="float", num_bits=4, strategy="tensor_group", group_size=16), None),
        ({"quant_method": "modelopt", "quant_algo": "FP8"}, "config.json says fp8, found nvfp4"),
        ({"quant_method": "modelopt", "quant_algo": "W8A8_SQ"}, "W4A16_NVFP4, found 'W8A8_SQ'"),
        ({"quant_method": "modelopt", "quant_algo": "nvfp4"}, None),
        ({"quant_method": "modelopt", "quant_algo": "W4A16_NVFP4"}, None),
        ({"quant_method": "modelopt", "quant_algo": "FP8_PER_CHANNEL_PER_TOKEN"}, "says fp8, found nvfp4"),
        ({"quant_method": "gptq"}, "quant_method: expected compressed-tensors or modelopt, found 'gptq'"),
        (group(type="int", num_bits=4, strategy="group", symmetric=False), "symmetric INT4, found type 'int'"),
        (group(type="float", num_bits=4, strategy="group", group_size=32), "group_size 32"),
        (group(type="float", num_bits=8, strategy="block"), "strategy 'block'"),
        ({"quant_method": "compressed-tensors"}, "cannot be understood"),
        (
            group(type="float", num_bits=4, strategy="tensor_group", group_size=16)
            | {"transform_config": {"config_groups": {"u": {"type": "hadamard"}}}},
            "transform_config: expected none",
        ),
        ([], "cannot be understood"),
    ],
)
def test_what_is_declared_must_be_readable_and_true(
    parent: Path, tmp_path: Path, stated: Any, expected: str | None
) -> None:
    tensors = load_file(written(parent, tmp_path / "whole", modelopt) / "model.safetensors")
    directory = store(parent, tmp_path / "stated", tensors, quantization_config=stated)
    if expected is None:
        checkpoint.load(directory)
        return
    with pytest.raises(CheckpointError) as caught:
        checkpoint.load(directory)
    assert expected in str(caught.value)


@pytest.mark.parametrize(
    ("activations", "rounded"),
    [
        (SCHEMES["fp8"].activations, True),
        (None, False),
        ({"type": "float", "num_bits": 8, "strategy": "tensor", "dynamic": False}, False),
        ({"type": "int", "num_bits": 8, "strategy": "token", "dynamic": True}, False),
    ],
    ids=["each row by its own scale", "not said", "one scale for all", "integers"],
)
def test_fp8_weights_meet_rounded_rows_where_the_checkpoint_was_made_for_them(
    parent: Path, tmp_path: Path, activations: Any, *, rounded: bool
) -> None:
    stated = group(type="float", num_bits=8, strategy="channel")
    stated["config_groups"]["group_0"]["input_activations"] = activations
    tensors = load_file(written(parent, tmp_path / "whole", by_row) / "model.safetensors")
    directory = store(parent, tmp_path / "stated", tensors, quantization_config=stated)
    experts = checkpoint.load(directory, keep_packed=True).decoder.layers[0].experts
    assert isinstance(experts, PackedExperts)
    assert [weight.quantises_rows for weight in experts.weights] == [rounded] * 2


def test_modelopts_weights_meet_rounded_rows_where_its_algorithm_says_so(parent: Path, tmp_path: Path) -> None:
    tensors = load_file(written(parent, tmp_path / "whole", by_row) / "model.safetensors")
    for algorithm, rounded in (("FP8_PER_CHANNEL_PER_TOKEN", True), ("FP8", False)):
        stated = {"quant_method": "modelopt", "quant_algo": algorithm}
        directory = store(parent, tmp_path / algorithm, tensors, quantization_config=stated)
        experts = checkpoint.load(directory, keep_packed=True).decoder.layers[0].experts
        assert isinstance(experts, PackedExperts)
        assert [weight.quantises_rows for weight in experts.weights] == [rounded] * 2


def test_modelopts_own_file_is_read_too(parent: Path, tmp_path: Path) -> None:
    directory = written(parent, tmp_path / "quantised", modelopt)
    (directory / "hf_quant_config.json").write_text(json.dumps({"quantization": {"quant_algo": "INT8_SQ"}}))
    with pytest.raises(CheckpointError, match=r"hf_quant_config\.json: quant_algo"):
        checkpoint.load(directory)
