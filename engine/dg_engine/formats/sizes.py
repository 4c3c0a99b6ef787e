"""What a checkpoint consists of and what memory a run of it takes, from its plan alone: nothing is loaded."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import msgspec
import torch

from dg_engine.formats.packing import packable, packed_bytes
from dg_engine.formats.places import DECODER
from dg_engine.formats.plan import Plan, Source
from dg_engine.fused import can_fuse
from dg_engine.hardware import multiplies_packed
from dg_engine.prefix_cache import BEHIND, SPARE
from dg_engine.prefix_store import prefill_chunk
from dg_engine.rows import MOST_SLOTS, prefix_places

PARTS = ("experts", "attention", "dense", "router", "self-conditioning", "embedding", "norms")
"""In the order in which they are shown. `dense` are the MLPs beside the experts; `norms` has the scalars too."""

LOGITS_COPIES = 5
"""fp32 copies of a canvas's logits that a step on a CPU holds at its peak, while it draws from their distribution."""


_MARKS = {"experts": "experts", "self_attn": "attention", "mlp": "dense", "router": "router"}
_MARKS |= {"self_conditioning": "self-conditioning", "embed_tokens": "embedding"}

_COPIED_WHEN_FUSED = tuple(f"{name}_proj.weight" for name in ("q", "k", "v", "gate", "up"))


class Part(msgspec.Struct, frozen=True, kw_only=True):
    """Parameters that serve one purpose."""

    name: str
    formats: list[str]
    parameters: int
    active: int
    """Used for one token: of the experts those that the router chooses."""
    stored_bytes: int


class Memory(msgspec.Struct, frozen=True, kw_only=True):
    """Bytes that a run takes."""

    weights: int
    sliding_cache: int
    """Keys and values in sliding layers, of one prefix and of the canvas."""
    full_cache: int
    """Keys and values in full layers."""
    canvas: int
    """Activations at the peak of a step: its logits or probabilities. All others are gone by then, or small."""
    further_document: int
    """For every other document of that length whose prefix is kept; not in the total."""
    further_places: int
    """For a request beside it whose steps take turns with its own; not in the total."""

    @property
    def total(self) -> int:
        """Of one document and one request."""
        return self.weights + self.sliding_cache + self.full_cache + self.canvas


def parts(plan: Plan) -> list[Part]:
    """The parameters of a checkpoint by their purpose. The encoder's scalars count only if they are stored."""
    found = []
    for name in PARTS:
        members = [parameter for parameter in plan.parameters if _part(parameter) == name]
        sources = {id(source.encoded): source for each in members for source in plan.sources[each]}.values()
        parameters = sum(plan.parameters[each].numel() for each in members)
        share = (plan.config.top_k_experts, plan.config.num_experts) if name == "experts" else (1, 1)
        found.append(
            Part(
                name=name,
                formats=_formats(sources),
                parameters=parameters,
                active=parameters * share[0] // share[1],
                stored_bytes=sum(source.encoded.bytes for source in sources),
            )
        )
    return found


def memory_of_run(plan: Plan, context: int, slots: int, item_bytes: int, device: str) -> Memory:
    """What this engine takes for one prefix and one request, in numbers of `item_bytes` bytes where nothing is packed.

    Elsewhere than on a CPU a prefix lies in its document's cache and, while its hole is filled, in the places that
    captured steps know; a step leaves probabilities in 16 bits there and no logits.

    Args:
        plan: of the checkpoint.
        context: tokens of the prefix.
        slots: of whose tokens a step asks the vocabulary at once: of a whole canvas, or of several holes.
        item_bytes: of a number.
        device: cpu or cuda.
    """
    config = plan.config
    # Of a document's cache, behind its tokens.
    room = prefill_chunk(torch.device(device)) + SPARE
    document = _caches(plan, min(context, config.window + BEHIND) + room, context + room, item_bytes)
    known, logits = _Caches(0, 0), slots * config.vocab_size * 4 * LOGITS_COPIES
    if device != "cpu":
        places = prefix_places(context)
        known = _caches(plan, min(places, config.window - 1) + MOST_SLOTS, places + MOST_SLOTS, item_bytes)
        logits = slots * config.vocab_size * item_bytes
    return Memory(
        weights=_weights(plan, item_bytes, device),
        sliding_cache=document.sliding + known.sliding,
        full_cache=document.full + known.full,
        canvas=logits,
        further_document=sum(document),
        further_places=sum(known),
    )


class _Caches(NamedTuple):
    """Bytes of keys and values in the layers of each kind."""

    sliding: int
    full: int


def _caches(plan: Plan, sliding: int, full: int, item_bytes: int) -> _Caches:
    """Of so many tokens in each."""
    return _Caches(
        _cache(plan, sliding, item_bytes, sliding=True),
        _cache(plan, full, item_bytes, sliding=False),
    )


def _weights(plan: Plan, item_bytes: int, device: str) -> int:
    """Of what stays packed its bits, of all else its numbers; with what `FusedModel` has twice."""
    modules = packable(plan) if multiplies_packed(device) else {}
    stay = {name for names in modules.values() for name in names}
    fused = device == "cpu" and can_fuse(plan.model)
    total = 0
    for name, parameter in plan.parameters.items():
        if name in stay:
            total += packed_bytes(parameter, plan.sources[name])
        else:
            total += parameter.numel() * item_bytes * (2 if fused and _is_fused(name) else 1)
    return total


def _is_fused(parameter: str) -> bool:
    """Whether `FusedModel` has a second copy of it."""
    return "experts" in parameter or (
        parameter.startswith(DECODER + "layers.") and parameter.endswith(_COPIED_WHEN_FUSED)
    )


def _cache(plan: Plan, tokens: int, item_bytes: int, *, sliding: bool) -> int:
    config = plan.config
    widths = [heads * width for heads, width in map(config.head_shape, range(config.num_hidden_layers))]
    chosen = [width for layer, width in enumerate(widths) if config.is_sliding(layer) == sliding]
    return 2 * sum(chosen) * tokens * item_bytes


def _formats(sources: Iterable[Source]) -> list[str]:
    """Each format with its kind: `bf16`, `nvfp4 (ModelOpt)`."""
    named = (source.encoded for source in sources)
    return sorted({one.note if one.format == "plain" else f"{one.format} ({one.note})" for one in named})


def _part(parameter: str) -> str:
    inner = parameter.removeprefix(DECODER).split(".")
    if inner[-2].endswith("norm"):
        return "norms"
    return next((part for mark, part in _MARKS.items() if mark in inner), "norms")
