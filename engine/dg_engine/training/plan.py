"""How a run goes: its length, the shapes of its batches, its schedule; any number of it can be set by name."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import msgspec

from dg_engine.errors import EngineError
from dg_engine.training.batches import Layout
from dg_engine.training.optimiser import Rates
from dg_engine.training.schedule import Schedule, Stage


@dataclass(frozen=True, kw_only=True, slots=True)
class Layouts:
    """The shapes of batches: causal, usual canvases, and now and then wide ones for long holes."""

    causal: Layout
    usual: Layout
    wide: Layout
    wide_every: int = 3
    """One batch in so many is wide."""

    def __post_init__(self) -> None:
        """Refuse different numbers of chunks: a batch's place in the data follows from its number."""
        if len({self.causal.chunks, self.usual.chunks, self.wide.chunks}) > 1:
            raise ValueError("layouts: all must have as many chunks")

    def pick(self, stage: Stage, number: int) -> Layout:
        """The layout of a batch, by its number in the run."""
        if stage == "causal":
            return self.causal
        return self.wide if number % self.wide_every == self.wide_every - 1 else self.usual


def layouts(chunks: int, encoder_tokens: int = 512) -> Layouts:
    """About as many tokens of holes as of chunks, more of them for the causal side."""
    share = encoder_tokens / 512

    def layout(canvases: float, slots: int, middles: float) -> Layout:
        return Layout(
            chunks=chunks,
            encoder_tokens=encoder_tokens,
            canvases=round(canvases * share),
            slots=slots,
            middles=round(middles * share),
        )

    return Layouts(causal=layout(0, 0, 0), usual=layout(5, 64, 7), wide=layout(3, 96, 4))


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """How a run goes."""

    seconds: float
    """To spend, by the trainer's clock, compilation aside."""
    layouts: Layouts
    accumulate: int = 2
    """Batches to an update."""
    rates: Rates = field(default_factory=Rates)
    schedule: Schedule = field(default_factory=Schedule)
    seed: int = 0
    average_decay: float = 0.9965
    """Of the exponential average of the weights, kept over the warm-down."""
    save_every: float = 300.0
    """Seconds between copies of the state, each with a checkpoint and a plot, which take 5 s for the small model."""
    validate_every: float = 300.0


def with_settings(plan: Plan, settings: Iterable[str]) -> Plan:
    """The plan with some of its numbers changed, all at once: what is refused is what comes out.

    Args:
        plan: what is not named stays.
        settings: `name=value`, the name a path through the fields, as `schedule.objective.filler_weight=1`.

    Raises:
        EngineError: there is no such number, or the value does not fit it, or one does not fit another; names what was
            set.
    """
    settings, changes = list(settings), dict[str, Any]()
    for setting in settings:
        name, _, value = setting.partition("=")
        try:
            _note(changes, plan, name.split("."), value)
        except (AttributeError, TypeError, ValueError) as error:
            raise EngineError(f"--set {setting}: {error}; names are those of plan.json in the run's folder") from error
    try:
        changed: Plan = _changed(plan, changes)
    except ValueError as error:
        raise EngineError(f"{' '.join(f'--set {setting}' for setting in settings)}: {error}") from error
    return changed


def _note(changes: dict[str, Any], value: Any, path: list[str], text: str) -> None:
    """Take a change of a group's number into what changes in it, which has groups as the group has."""
    first, *rest = path
    known = getattr(value, first)
    if dataclasses.is_dataclass(known) != bool(rest):
        raise ValueError(f"{first} is {'a group' if not rest else 'no group'}")
    if rest:
        _note(changes.setdefault(first, {}), known, rest, text)
    else:
        changes[first] = _parsed(text, known)


def _changed(value: Any, changes: dict[str, Any]) -> Any:
    new = {
        name: _changed(getattr(value, name), change) if isinstance(change, dict) else change
        for name, change in changes.items()
    }
    return dataclasses.replace(value, **new)


def _parsed(text: str, like: Any) -> Any:
    """The text as a value of the type of `like`: a number, or numbers in JSON's brackets."""
    kind = tuple[float, ...] if isinstance(like, tuple) else type(like)
    return msgspec.json.decode(text.encode(), type=kind, strict=not isinstance(like, float))
