"""A checkpoint described for people and for programs, before anything of it is loaded."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import msgspec
import torch
from rich.table import Table

from dg_engine.device_loop import KEPT
from dg_engine.formats.plan import read_plan
from dg_engine.formats.sizes import Memory, Part, memory_of_run, parts
from dg_engine.hardware import fastest_dtype
from dg_engine.prefix_store import DOCUMENTS
from dg_engine.rows import tried_slots
from dg_engine.settings import read_infill_config

_MEMORY_ROWS = {
    "weights": "weights",
    "sliding_cache": "keys and values, sliding layers",
    "full_cache": "keys and values, full layers",
    "canvas": "canvas",
    "total": "all",
}


class Inspection(msgspec.Struct, frozen=True, kw_only=True):
    """What `dg-engine inspect` says; sizes are bytes."""

    path: str
    sliding_layers: int
    full_layers: int
    hidden_size: int
    experts: int
    experts_per_token: int
    vocab_size: int
    parameters: int
    active_parameters: int
    stored_bytes: int
    unread_bytes: int
    """Vision, and whatever else the text model has no use for."""
    parts: list[Part]
    context: int
    canvas: int
    device: str
    device_bytes: int | None
    """All the memory that the device has; None if it is not in this machine."""
    dtype: str
    """In which this engine computes on the device."""
    memory: Memory


def inspect_checkpoint(directory: Path, device: str, *, context: int, canvas: int | None) -> Inspection:
    """Describe a checkpoint from its configuration and the headers of its files.

    Args:
        directory: of the checkpoint.
        device: on which it would run.
        context: tokens of the prefix.
        canvas: slots; None is the model's own length.

    Raises:
        CheckpointError: it could not be loaded; names file and tensor.
    """
    plan = read_plan(directory)
    config, found, dtype = plan.config, parts(plan), fastest_dtype(device)
    slots = canvas or config.canvas_length
    sliding = sum(map(config.is_sliding, range(config.num_hidden_layers)))
    return Inspection(
        path=str(directory),
        sliding_layers=sliding,
        full_layers=config.num_hidden_layers - sliding,
        hidden_size=config.hidden_size,
        experts=config.num_experts,
        experts_per_token=config.top_k_experts,
        vocab_size=config.vocab_size,
        parameters=sum(part.parameters for part in found),
        active_parameters=sum(part.active for part in found),
        stored_bytes=sum(part.stored_bytes for part in found),
        unread_bytes=sum(stored.bytes for stored in plan.unread),
        parts=found,
        context=context,
        canvas=slots,
        device=device,
        device_bytes=_device_bytes(device),
        dtype=str(dtype).removeprefix("torch."),
        memory=memory_of_run(
            plan, context, max(slots, *_tried(directory, config.canvas_length, device)), dtype.itemsize, device
        ),
    )


def _tried(directory: Path, most: int, device: str) -> Iterator[int]:
    """Slots of the holes that are tried at once for a line and for a block; 0 where the checkpoint learnt filler."""
    infill = read_infill_config(directory)
    for extent in (infill.line_hole, infill.block_hole):
        longest = min(extent, most)
        lengths = () if infill.length_probe is None else infill.length_probe.up_to(longest)
        yield sum(lengths) if device == "cpu" or not lengths else tried_slots(lengths, infill.suffix_tokens)


def description(found: Inspection) -> Iterator[str | Table]:
    """What it is, its parts, and the memory of a run: lines of text and tables, for a terminal."""
    yield found.path
    layers = f"{found.sliding_layers} sliding and {found.full_layers} full layers of width {found.hidden_size:,}"
    experts = f"{found.experts_per_token} of {found.experts} experts"
    yield f"DiffusionGemma, {layers}, {experts}, vocabulary {found.vocab_size:,}\n"
    yield _parts_table(found)
    room = "is not in this machine" if found.device_bytes is None else f"has {bytes_text(found.device_bytes)}"
    prefix = f"{found.context:,} tokens of prefix"
    yield f"\nmemory for {prefix} and a canvas of {found.canvas} on {found.device}, which {room}\n"
    yield _memory_table(found)
    memory = found.memory
    kept = f"each further document that is kept, at most {DOCUMENTS - 1}: {bytes_text(memory.further_document)}"
    if memory.further_places:
        kept += f"; each further request at work, at most {KEPT - 1}: {bytes_text(memory.further_places)}"
    yield f"\n{kept}"


def _parts_table(found: Inspection) -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column("part")
    table.add_column("stored as")
    for column in ("parameters", "active", "stored"):
        table.add_column(column, justify="right", no_wrap=True)
    for part in found.parts:
        table.add_row(
            part.name,
            ", ".join(part.formats),
            _millions(part.parameters),
            _millions(part.active),
            bytes_text(part.stored_bytes),
        )
    table.add_row(
        "all", "", _millions(found.parameters), _millions(found.active_parameters), bytes_text(found.stored_bytes)
    )
    if found.unread_bytes:
        table.add_row("not read", "", "", "", bytes_text(found.unread_bytes))
    return table


def _memory_table(found: Inspection) -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column("")
    table.add_column(f"in {found.dtype}", justify="right", no_wrap=True)
    for field, label in _MEMORY_ROWS.items():
        table.add_row(label, bytes_text(getattr(found.memory, field)))
    return table


def _device_bytes(device: str) -> int | None:
    if device == "cpu":
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return torch.cuda.mem_get_info(device)[1] if torch.cuda.is_available() else None


def _millions(count: int) -> str:
    return f"{count / 1e6:,.1f} M" if count >= 100_000 else f"{count:,}"


def bytes_text(count: int) -> str:
    """A number of bytes for people."""
    return f"{count / 2**30:,.2f} GiB" if count >= 2**28 else f"{count / 2**20:,.2f} MiB"
