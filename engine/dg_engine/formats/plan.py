"""Where each of the parameters comes from: decided from headers alone, so a bad checkpoint is refused unread."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from dg_engine.config import ModelConfig, read_config
from dg_engine.errors import CheckpointError
from dg_engine.formats.declared import declared
from dg_engine.formats.encodings import Encoded, recognise
from dg_engine.formats.headers import TORCH_TYPES, Stored, read_headers
from dg_engine.formats.places import DECODER, ENCODER, Place, Role, is_skipped, meaning
from dg_engine.model import DiffusionGemma


class Source(NamedTuple):
    """A parameter, or a part of one, and how it is stored."""

    place: Place
    encoded: Encoded


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """A checkpoint that has been found whole."""

    config: ModelConfig
    model: DiffusionGemma
    """Without data: every parameter is on the meta device."""
    parameters: Mapping[str, Tensor]
    """The model's state, without data."""
    sources: Mapping[str, tuple[Source, ...]]
    """For every parameter."""
    copies: tuple[tuple[Stored, Stored], ...]
    """What is stored again for the encoder, or as a head, behind what it has to be equal to."""
    unread: tuple[Stored, ...]
    """What the text model has no use for: vision, scales of activations."""
    rounds_rows: bool
    """Whether what FP8 weights are multiplied with is meant to be rounded to FP8 too."""

    @property
    def dtype(self) -> torch.dtype:
        """The type of the embedding as it is stored; bf16 if that is quantised."""
        (embedding,) = self.sources[DECODER + "embed_tokens.weight"]
        stored = embedding.encoded
        return TORCH_TYPES[stored.values.dtype] if stored.format == "plain" else torch.bfloat16

    def check_copies(self, fetch: Callable[[Stored], Tensor]) -> None:
        """Read what is stored twice: other code may use either, so the two must be one.

        Raises:
            CheckpointError: they are not; names file and tensor.
        """
        for first, copy in self.copies:
            alike = (first.dtype, first.shape) == (copy.dtype, copy.shape)
            if not alike or not torch.equal(_bits(fetch(first)), _bits(fetch(copy))):
                raise copy.refused(f"expected the numbers of {first.name}, which is the same weight, found others")


def read_plan(directory: Path) -> Plan:
    """Find out how a checkpoint is stored, from `config.json` and the headers of its files.

    Raises:
        CheckpointError: something is missing, malformed, truncated, stored twice or in an unknown way; names file and
            tensor.
    """
    config = read_config(directory)
    with torch.device("meta"):
        model = DiffusionGemma(config)
    parameters = model.state_dict()
    parts = _parts(read_headers(directory), parameters)
    sources = [
        Source(place, recognise(tensors, place.shape(parameters[place.parameter]))) for place, tensors in parts.places
    ]
    said = declared(directory)
    if said is not None:
        _check_declared(said.formats, sources)
    return Plan(
        config=config,
        model=model,
        parameters=parameters,
        sources=_by_parameter(directory, sources, parameters),
        copies=tuple(parts.copies),
        unread=tuple(parts.unread),
        rounds_rows=said is not None and said.rounds_rows,
    )


def _bits(tensor: Tensor) -> Tensor:
    return tensor.flatten().view(torch.uint8)


class _Parts(NamedTuple):
    places: list[tuple[Place, dict[Role, Stored]]]
    """What is stored for each place."""
    copies: list[tuple[Stored, Stored]]
    unread: list[Stored]


def _parts(headers: Mapping[str, Stored], parameters: Mapping[str, Tensor]) -> _Parts:
    parts: defaultdict[Place, dict[Role, Stored]] = defaultdict(dict)
    copies, unread = [], []
    # The decoder's come first, and the others are copies of them.
    for name, stored in sorted(headers.items(), key=lambda pair: not pair[0].startswith(DECODER)):
        if is_skipped(name):
            unread.append(stored)
            continue
        meant = meaning(name, parameters)
        if meant is None:
            raise stored.refused(f"config.json has no place for it, found {list(stored.shape)}")
        if meant.role == "activation":
            unread.append(stored)
        elif (first := parts[meant.place].setdefault(meant.role, stored)) is not stored:
            copies.append((first, stored))
    return _Parts(list(parts.items()), copies, unread)


def _check_declared(formats: frozenset[str], sources: list[Source]) -> None:
    for _, encoded in sources:
        if encoded.format not in formats | {"plain"}:
            said = " and ".join(sorted(formats))
            raise encoded.values.refused(f"config.json says {said}, found {encoded.format}")


def _by_parameter(
    directory: Path, sources: list[Source], parameters: Mapping[str, Tensor]
) -> dict[str, tuple[Source, ...]]:
    """The sources of every parameter, which must cover it exactly once."""
    grouped: defaultdict[str, list[Source]] = defaultdict(list)
    covered: dict[Place, Stored] = {}
    for source in sources:
        grouped[source.place.parameter].append(source)
        for cell in source.place.cells(parameters[source.place.parameter]):
            if cell in covered:
                raise source.encoded.values.refused(f"is stored twice, also as {covered[cell].name}")
            covered[cell] = source.encoded.values
    found, missing = {}, []
    for name, parameter in parameters.items():
        # A checkpoint without the encoder's own scalars means the decoder's.
        owner = name if name in grouped else DECODER + name.removeprefix(ENCODER)
        if owner not in grouped:
            missing.append(Place(name))
            continue
        missing += [cell for cell in Place(owner).cells(parameter) if cell not in covered]
        found[name] = tuple(grouped[owner])
    if missing:
        expected = list(missing[0].shape(parameters[missing[0].parameter]))
        raise CheckpointError(
            f"{directory}: {missing[0]}: expected {expected}, found none ({len(missing)} tensors are missing)"
        )
    return found
