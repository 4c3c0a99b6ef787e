"""What a stored name means: which part of which parameter, and which piece of its encoding.

Experts are stored fused, as `experts.gate_up_proj` [E, 2 I, H], or one by one, as `experts.7.gate_proj`; a quantised
matrix is several tensors, as `weight_packed`, `weight_scale` and `weight_global_scale`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Literal, NamedTuple, cast

from torch import Tensor

ENCODER = "model.encoder.language_model."
DECODER = "model.decoder."

_SKIPPED = ("model.encoder.vision_tower.", "model.encoder.embed_vision.")
_HEAD = "lm_head."

Role = Literal[
    "values", "packed", "scale", "scale_2", "global_scale", "shape", "zero_point", "g_idx", "scale_inv", "activation"
]
"""Which piece of an encoding; `activation` is for scales of activations and keys, which here are not quantised."""

_MATRIX = re.compile(
    r"(?P<stem>.*(?:proj|embed_tokens))(?:\.weight)?"
    r"(?:_(?P<role>packed|scale|scale_2|global_scale|shape|zero_point|g_idx|scale_inv))?"
)
_ACTIVATION = re.compile(r".*\.(?:input_scale|input_global_scale|output_scale|[qkv]_scale)")
_EXPERTS = re.compile(r"(?P<experts>.*\.experts)\.(?:(?P<number>\d+)\.)?(?P<matrix>gate|up|gate_up|down)_proj")
_HALVES = {"gate": 0, "up": 1}


class Place(NamedTuple):
    """A parameter, or a part of one that holds stacked experts."""

    parameter: str
    expert: int | None = None
    """None: all of them."""
    half: Literal[0, 1] | None = None
    """0: the gate's rows, 1: the up's rows. None: both."""

    def shape(self, parameter: Tensor) -> tuple[int, ...]:
        """The shape of the part, given the parameter."""
        return tuple(self.of(parameter).shape)

    def of(self, parameter: Tensor) -> Tensor:
        """The part of the parameter, as a view."""
        part = parameter if self.expert is None else parameter[self.expert]
        return part if self.half is None else part.chunk(2, dim=-2)[self.half]

    def cells(self, parameter: Tensor) -> Iterator[Place]:
        """The smallest parts that it consists of: halves of single experts, or the whole of a plain parameter."""
        if not _is_stacked(self.parameter):
            yield self
            return
        halves: tuple[Literal[0, 1], ...] = (0, 1) if self.half is None else (self.half,)
        for expert in range(len(parameter)) if self.expert is None else (self.expert,):
            for half in halves if self.parameter.endswith("gate_up_proj") else (None,):
                yield Place(self.parameter, expert, half)

    def __str__(self) -> str:
        """The name under which it would be stored."""
        if self.expert is None:
            return self.parameter
        experts, matrix = self.parameter.rsplit(".", 1)
        stored = matrix if self.half is None else ("gate_proj", "up_proj")[self.half]
        return f"{experts}.{self.expert}.{stored}.weight"


class Meaning(NamedTuple):
    """Of a stored name."""

    place: Place
    role: Role


def is_skipped(name: str) -> bool:
    """Whether the text model has no use for it, as for all of vision."""
    return name.startswith(_SKIPPED)


def meaning(name: str, parameters: Mapping[str, Tensor]) -> Meaning | None:
    """What a stored name means for a model with these parameters; None if nothing."""
    name = _canonical(name)
    if name in parameters:
        return Meaning(Place(name), "values")
    if _ACTIVATION.fullmatch(name):
        return Meaning(Place(name), "activation")
    matched = _MATRIX.fullmatch(name)
    if matched is None:
        return None
    place = _place(matched["stem"], parameters)
    return None if place is None else Meaning(place, cast("Role", matched["role"] or "values"))


def _place(stem: str, parameters: Mapping[str, Tensor]) -> Place | None:
    matched = _EXPERTS.fullmatch(stem)
    if matched is None:
        return Place(stem + ".weight") if stem + ".weight" in parameters else None
    matrix = "down_proj" if matched["matrix"] == "down" else "gate_up_proj"
    parameter = f"{matched['experts']}.{matrix}"
    expert = None if matched["number"] is None else int(matched["number"])
    if parameter not in parameters or (expert is not None and expert >= len(parameters[parameter])):
        return None
    return Place(parameter, expert, _HALVES.get(matched["matrix"]))  # type: ignore[arg-type]


def _canonical(name: str) -> str:
    """The head is the embedding, and encoder weights are the decoder's, except the layer scalars, which each has."""
    if name.startswith(_HEAD):
        return DECODER + "embed_tokens." + name.removeprefix(_HEAD)
    if name.startswith(ENCODER) and not name.endswith("layer_scalar"):
        return DECODER + name.removeprefix(ENCODER)
    return name


def _is_stacked(parameter: str) -> bool:
    return _EXPERTS.fullmatch(parameter) is not None
