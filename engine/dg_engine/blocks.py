"""Long text, block by block: a whole canvas is denoised, encoded behind what is there, and the next canvas follows it.

This is how the model was built to write (transformers' `generate`, to which tests hold it). A block is kept as the last
step drafted it; the text ends at the first end-of-sequence in it. Token ids only.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import count
from typing import NamedTuple

import torch
from torch import Tensor

from dg_engine.api import StopReason
from dg_engine.causal import Start
from dg_engine.infill import Filling, Hole, answer_end
from dg_engine.lengths import Gap
from dg_engine.policies import Denoising
from dg_engine.prefix_store import PrefixEncoder


@dataclass(frozen=True, kw_only=True, slots=True)
class Writing:
    """What to write behind a prompt, and how."""

    slots: int
    """Of a canvas."""
    ends: Tensor
    """[V] booleans: tokens that end the text."""
    limit: int
    """Tokens at most."""
    plan: Denoising
    seed: int
    """Of the first block; the next has the next."""
    document: str = ""
    """Whose prefix cache is used and kept; empty for none."""
    deadline: float | None = None
    """`time.perf_counter()` seconds after which to stop with what is certain."""


class Finished(NamedTuple):
    """A block that is done."""

    tokens: list[int]
    """Those before what ends the text."""
    steps: int
    stop_reason: StopReason | None
    """None while more blocks follow."""


def write_blocks(
    encoder: PrefixEncoder, fill: Callable[[Gap], Iterator[Filling]], prompt: list[int], how: Writing
) -> Iterator[Filling | Finished | None]:
    """Yield None after each chunk encoded, the state after each step, and each block; the last has a stop reason.

    Args:
        encoder: encodes the prompt, and each block behind it.
        fill: denoises a canvas, as `lengths.ByFiller.fill`.
        prompt: at least one token.
        how: lengths, decisions, randomness.
    """
    tokens, prefix = prompt, None
    for number in count():
        for unit in encoder.encode(how.document, tokens, prefix):
            if unit is None:
                yield None
        assert unit is not None  # noqa: S101  (the last item always is a prefix)
        prefix = unit
        for state in fill(_whole_canvas(prefix.start, how, number)):
            end = answer_end(state.belief.argmax[: state.end], how.ends)
            yield state._replace(end=end)
        room = how.limit - (len(tokens) - len(prompt))
        block = Finished(state.tokens[: min(end, room)], state.step, _reason(state, end, room))
        yield block
        if block.stop_reason is not None:
            return
        tokens = tokens + block.tokens


def _whole_canvas(start: Start, how: Writing, number: int) -> Gap:
    """A canvas of free slots that neither grows nor is ended by a token: stopping is judged by all of it.

    Such a hole is full to its end, so that no filler is looked for.
    """
    hole = Hole(
        initial=how.slots,
        longest=how.slots,
        ends=torch.zeros_like(how.ends),
        filler=0,
        pinned_signal=False,
    )
    nothing = torch.empty(0, dtype=torch.long, device=how.ends.device)
    return Gap(start=start, suffix=nothing, hole=hole, plan=how.plan, seed=how.seed + number, deadline=how.deadline)


def _reason(state: Filling, end: int, room: int) -> StopReason | None:
    """Why the text ends with a block of which so many tokens stand before its end, and so many may be kept."""
    if state.stop_reason == "time_budget":
        return "time_budget"
    if end < state.end and end <= room:
        return "end_of_sequence"
    return "max_new_tokens" if end >= room else None
