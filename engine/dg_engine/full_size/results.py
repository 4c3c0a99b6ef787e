"""What the stages of a run find, and the report that they make together."""

from __future__ import annotations

from typing import TypeVar

import msgspec

from dg_kernels.bench import Rates, Timing


class Found(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """What a stage found."""


class Ceilings(Found, frozen=True, kw_only=True):
    """What the device reaches; floors are worked out of it."""

    rates: Rates


class Memory(Found, frozen=True, kw_only=True):
    """The most that is held when what an engine captures before its first user is captured.

    With weights, one prefix, a step of the longest canvas behind it and a block whose length is tried.
    """

    prefix: int
    weights_bytes: int
    allocated_bytes: int
    """In tensors; on a CPU by the whole process."""
    reserved_bytes: int
    """By torch's allocator, which keeps what captured steps compute in; on a CPU the same as allocated."""


class PrefixTime(Found, frozen=True, kw_only=True):
    """What encoding a prefix takes."""

    prefix: int
    prefill_ms: float
    first_draft_ms: float
    """From the prefix's tokens to the first draft of the longest canvas."""


class StepTime(Found, frozen=True, kw_only=True):
    """What a denoising step takes."""

    canvas: int
    prefix: int
    ms: float
    """The median, from one draft to the next as the host sees them."""
    floor_ms: float
    allocated_bytes: int
    """At most, encoding the prefix among it."""


class BlockTime(Found, frozen=True, kw_only=True):
    """What a whole block takes: its steps, and its tokens encoded behind the prefix."""

    canvas: int
    prefix: int
    steps: int
    ms: float

    @property
    def tokens_per_second(self) -> float:
        """Of the block's own tokens."""
        return self.canvas / self.ms * 1e3


class InfillTime(Found, frozen=True, kw_only=True):
    """What a whole infill takes whose prefix is encoded, as while somebody types."""

    prefix: int
    hole: int
    canvas: int
    steps: int
    lengths: int
    """That are tried, and the likeliest answer chosen; 1 where the length is known."""
    ms: float
    """The median."""


class KernelTime(Found, frozen=True, kw_only=True):
    """What one operation takes."""

    timing: Timing


class TheirStep(Found, frozen=True, kw_only=True):
    """What a step takes in transformers' `generate`."""

    mode: str
    canvas: int
    prefix: int
    ms: float
    allocated_bytes: int
    """At most, encoding the prefix among it."""
    right: bool
    """Whether it computes what the model is defined to: not behind a prefix that overruns a static cache's window."""


class TheirBlocks(Found, frozen=True, kw_only=True):
    """What whole blocks take in transformers' `generate`."""

    mode: str
    right: bool
    """As in `TheirStep`."""
    blocks: list[BlockTime]


class Failed(Found, frozen=True, kw_only=True):
    """What a stage did not find; the next run tries it again, behind those that were never tried."""

    error: str


Result = (
    Ceilings | Memory | PrefixTime | StepTime | BlockTime | InfillTime | KernelTime | TheirStep | TheirBlocks | Failed
)
_Kind = TypeVar("_Kind", bound=Found)


class Report(msgspec.Struct, kw_only=True):
    """All that was measured of one shape in one format, on one device, of one state of the sources."""

    device: str
    machine: str
    sources: str
    """A digest of what was measured: the sources, the machine and the versions of what they run on."""
    commit: str
    """In git's words; empty where there is no git."""
    shape: str
    format: str
    found: dict[str, Result] = {}
    """By the name of the stage."""

    def all(self, kind: type[_Kind]) -> list[_Kind]:
        """What stages of a kind found."""
        return [one for one in self.found.values() if isinstance(one, kind)]

    @property
    def failures(self) -> dict[str, str]:
        """Why, by the name of the stage."""
        return {name: one.error for name, one in self.found.items() if isinstance(one, Failed)}
