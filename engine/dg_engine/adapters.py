"""Low-rank adapters (LoRA, arXiv 2106.09685) in the file layout of PEFT: what a fine-tuning adds to a checkpoint.

An adapter says for some of the model's matrices W that W + scale B A is meant. Two files hold it: `adapter_config.json`
and `adapter_model.safetensors`, under the names that PEFT gives them. The weights that encoder and decoder share appear
once, under the decoder's names: whoever opens an adapter with PEFT must merge it before use, or the encoder lacks it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, NamedTuple

import msgspec
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from dg_engine.errors import MALFORMED, CheckpointError
from dg_engine.model import DiffusionGemma

CONFIG_FILE = "adapter_config.json"
WEIGHTS_FILE = "adapter_model.safetensors"

_PREFIX = "base_model.model."
_FACTORS = (".lora_A.weight", ".lora_B.weight")
_BASE = "base_sha256"


class Factors(NamedTuple):
    """What is added to one matrix, B A; for E stacked matrices both have a first dimension of E."""

    a: Tensor
    """[rank, in] or [E, rank, in]."""
    b: Tensor
    """[out, rank] or [E, out, rank]."""

    def update(self, scale: float) -> Tensor:
        """scale B A in fp32, [out, in] or [E, out, in]."""
        return scale * (self.b.float() @ self.a.float())


@dataclass(frozen=True, kw_only=True, slots=True)
class Adapter:
    """Factors by the name of the parameter to which they belong."""

    rank: int
    alpha: float
    factors: Mapping[str, Factors]

    @property
    def scale(self) -> float:
        """What every B A is multiplied by."""
        return self.alpha / self.rank


class _Config(msgspec.Struct, kw_only=True):
    """The fields of PEFT's `LoraConfig` that this engine writes or must look at; others change nothing here."""

    peft_type: str = "LORA"
    task_type: str | None = None
    base_model_name_or_path: str | None = None
    r: int
    lora_alpha: float
    target_modules: list[str] | str | None = None
    target_parameters: list[str] | None = None
    inference_mode: bool = True
    lora_dropout: float = 0.0
    fan_in_fan_out: bool = False
    bias: str = "none"
    init_lora_weights: bool | str | None = None
    alora_invocation_tokens: list[int] | None = None
    layer_replication: list[Any] | None = None
    use_rslora: bool = False
    use_dora: bool = False
    rank_pattern: dict[str, Any] = {}
    alpha_pattern: dict[str, Any] = {}
    modules_to_save: list[str] | None = None


def adaptable(model: DiffusionGemma) -> dict[str, torch.nn.Parameter]:
    """The parameters that an adapter may change: every matrix but the embedding and the router."""
    return {
        name: parameter
        for name, parameter in model.named_parameters()
        if parameter.dim() >= 2 and "embed_tokens" not in name and "router" not in name
    }


def load(directory: Path, model: DiffusionGemma, base: Path) -> Adapter:
    """Read an adapter, checked whole against the model that it is for.

    Args:
        directory: holds the two files.
        model: neither read nor changed but for the names and shapes of its parameters.
        base: the model's checkpoint directory.

    Raises:
        CheckpointError: a file is missing or malformed, a tensor does not fit, or the adapter was trained over other
            weights; names file and tensor.
    """
    config = _read_config(directory / CONFIG_FILE)
    path = directory / WEIGHTS_FILE
    try:
        with safe_open(path, "pt") as file:
            trained_over = (file.metadata() or {}).get(_BASE)
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (no mapping)
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path}: is not a readable adapter ({error})") from error
    if trained_over is not None and trained_over != fingerprint(base):
        raise CheckpointError(f"{path}: was trained over other weights than {base}; fine-tune again over these")
    alpha = config.lora_alpha * (config.r**0.5 if config.use_rslora else 1.0)
    return Adapter(rank=config.r, alpha=alpha, factors=_factors(path, tensors, config.r, adaptable(model)))


def save(adapter: Adapter, directory: Path, base: Path) -> None:
    """Write both files, each beside its place and renamed.

    Args:
        adapter: what is written, in the type in which it is.
        directory: made if it is not there.
        base: the checkpoint directory that it belongs to; a later `load` over other weights is refused.
    """
    directory.mkdir(parents=True, exist_ok=True)
    stacked = [name for name in adapter.factors if not name.endswith(".weight")]
    config = _Config(
        base_model_name_or_path=str(base),
        r=adapter.rank,
        lora_alpha=adapter.alpha,
        target_modules=[name.removesuffix(".weight") for name in adapter.factors if name not in stacked],
        target_parameters=stacked or None,
    )
    tensors = {
        peft: tensor.detach().cpu().contiguous()
        for name, factors in adapter.factors.items()
        for peft, tensor in zip(_peft_names(name), _flattened(factors), strict=True)
    }
    partial = directory / f"{WEIGHTS_FILE}.partial"
    save_file(tensors, partial, metadata={"format": "pt", _BASE: fingerprint(base)})
    text = msgspec.json.format(msgspec.json.encode(config), indent=2) + b"\n"
    partial_config = directory / f"{CONFIG_FILE}.partial"
    partial_config.write_bytes(text)
    partial.replace(directory / WEIGHTS_FILE)
    partial_config.replace(directory / CONFIG_FILE)


@torch.no_grad()
def merge(model: DiffusionGemma, adapter: Adapter) -> None:
    """Add an adapter to the model it was loaded for: W + scale B A in fp32, rounded once to the weights' type."""
    parameters = adaptable(model)
    for name, factors in adapter.factors.items():
        weight = parameters[name]
        update = Factors(*(factor.to(weight.device) for factor in factors)).update(adapter.scale)
        weight.copy_(weight.float() + update)


def fingerprint(directory: Path) -> str:
    """A digest that differs for other weights: of each safetensors file its header, and some KiB of every tensor.

    Whole files would take minutes where a checkpoint has fifty gigabytes.

    Raises:
        CheckpointError: a file is truncated or no safetensors file, or cannot be read.
    """
    digest = hashlib.sha256()
    for path in sorted(directory.glob("*.safetensors")):
        try:
            with safe_open(path, "numpy"), path.open("rb") as file:  # which holds the header to the file
                _digest_samples(file, digest.update)
        except (SafetensorError, OSError) as error:
            raise CheckpointError(f"{path}: cannot be read ({error})") from error
    return digest.hexdigest()


def _digest_samples(file: IO[bytes], update: Callable[[bytes], None]) -> None:
    length = int.from_bytes(file.read(8), "little")
    header = file.read(length)
    update(header)
    for begin, end in _extents(header):
        file.seek(8 + length + (begin + end) // 2)
        update(file.read(min(_SAMPLE, (end - begin + 1) // 2)))


def _extents(header: bytes) -> list[tuple[int, int]]:
    """Where each tensor of a safetensors file begins and ends behind its header, in bytes."""
    return sorted(tuple(one["data_offsets"]) for name, one in json.loads(header).items() if name != "__metadata__")


_SAMPLE = 4096
_PLAIN = (
    "peft_type",
    "fan_in_fan_out",
    "bias",
    "use_dora",
    "rank_pattern",
    "alpha_pattern",
    "modules_to_save",
    "alora_invocation_tokens",
    "layer_replication",
)
"""Settings that must be as in a plain adapter."""
_REBASED = ("pissa", "olora", "corda", "loftq", "lora_ga")
"""Initialisations after which PEFT takes off the weights what the fresh factors add to them, whenever it loads."""


def _read_config(path: Path) -> _Config:
    try:
        config = msgspec.json.decode(path.read_bytes(), type=_Config)
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror}); an adapter needs it") from error
    except MALFORMED as error:
        raise CheckpointError(f"{path}: {error}") from error
    # Each of these means other mathematics than W + scale B A.
    plain = _Config(r=config.r, lora_alpha=config.lora_alpha)
    for name in _PLAIN:
        found, expected = getattr(config, name), getattr(plain, name)
        if (found or expected) != expected:
            raise CheckpointError(f"{path}: {name}: expected {expected!r}, found {found!r}")
    if str(config.init_lora_weights).lower().startswith(_REBASED):
        found = config.init_lora_weights
        raise CheckpointError(
            f"{path}: init_lora_weights: {found!r} changes the weights below; convert it to plain LoRA"
        )
    if config.r < 1:
        raise CheckpointError(f"{path}: r: expected at least 1, found {config.r}")
    return config


def _factors(path: Path, tensors: dict[str, Tensor], rank: int, parameters: Mapping[str, Tensor]) -> dict[str, Factors]:
    """Every tensor finds its place, or nothing is taken."""
    places = {peft: name for name in parameters for peft in _peft_names(name)}
    for peft in sorted(tensors):
        if peft not in places:
            raise CheckpointError(f"{path}: {peft}: the model has no such matrix to adapt")
    found = {}
    for name in dict.fromkeys(places[peft] for peft in sorted(tensors)):
        for peft, shape in zip(_peft_names(name), _shapes(parameters[name], rank), strict=True):
            if peft not in tensors:
                raise CheckpointError(f"{path}: {peft}: expected {list(shape)}, found none")
            if tensors[peft].shape != shape:
                raise CheckpointError(f"{path}: {peft}: expected {list(shape)}, found {list(tensors[peft].shape)}")
            if not tensors[peft].is_floating_point():
                raise CheckpointError(f"{path}: {peft}: expected floating-point weights, found {tensors[peft].dtype}")
        a, b = (tensors[peft] for peft in _peft_names(name))
        found[name] = _stacked(a, b, parameters[name])
    return found


def _peft_names(name: str) -> tuple[str, str]:
    """The names of A and B. PEFT wraps a module once for each stacked parameter, the later around the earlier."""
    module, _, last = name.rpartition(".")
    wrapped = module + ".base_layer" if last == "gate_up_proj" else module
    a, b = (_PREFIX + wrapped + factor for factor in _FACTORS)
    return a, b


def _shapes(weight: Tensor, rank: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The shapes of A and B in the file."""
    *experts, out, inner = weight.shape
    rows = rank * (experts[0] if experts else 1)
    return (rows, inner), (out, rows)


def _stacked(a: Tensor, b: Tensor, weight: Tensor) -> Factors:
    """From the file: A has E blocks of `rank` rows; the columns of B count ranks, and for each rank experts."""
    if weight.dim() == 2:
        return Factors(a, b)
    experts = weight.shape[0]
    return Factors(a.reshape(experts, -1, a.shape[1]), b.reshape(len(b), -1, experts).permute(2, 0, 1))


def _flattened(factors: Factors) -> Iterator[Tensor]:
    """To the file: the inverse of `_stacked`."""
    stacked = factors.a.dim() == 3
    yield factors.a.flatten(0, 1) if stacked else factors.a
    yield factors.b.permute(1, 2, 0).flatten(1) if stacked else factors.b
