"""How a run goes: its length, the shapes of its batches, its schedule; any number of it can be set by name."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from dg_engine.errors import MALFORMED, EngineError
from dg_engine.training.batches import Layout
from dg_engine.training.bounds import bounded
from dg_engine.training.corpus import write_json
from dg_engine.training.optimiser import Rates
from dg_engine.training.schedule import Schedule, Stage

PLAN_FILE = "plan.json"
UPDATES = 2000
"""To which batches are gathered, as far as there are so many: a faster machine makes larger updates, not more of them.
The shipped model's run had 1,978."""
AVERAGED_UPDATES = 1 / 7
"""Of all of a run, over which its weights are averaged: a decay of 0.9965 in 2,000."""
_MOST_GATHERED = 64
_OPTIONS = {"seconds": "--minutes", "seed": "--seed"}
"""What of a plan has options of its own, which other things than the plan follow too."""


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
        bounded("wide_every", self.wide_every, least=1)
        if len({self.causal.chunks, self.usual.chunks, self.wide.chunks}) > 1:
            raise ValueError("layouts: all must have as many chunks")

    @property
    def kinds(self) -> tuple[Layout, ...]:
        """All of them."""
        return self.causal, self.usual, self.wide

    def joint_mean(self, of: Mapping[Layout, float]) -> float:
        """The mean of a number of each layout over the batches with holes."""
        return of[self.usual] + (of[self.wide] - of[self.usual]) / self.wide_every

    def pick(self, stage: Stage, number: int) -> Layout:
        """The layout of a batch, by its number in the run."""
        if stage == "causal":
            return self.causal
        return self.wide if number % self.wide_every == self.wide_every - 1 else self.usual


LONGEST_CANVAS = 96
"""Slots: the longest hole and what is pinned behind it."""


def layouts(chunks: int, encoder_tokens: int = 512) -> Layouts:
    """Some three fifths as many tokens of holes as of chunks."""

    def layout(canvases: float, slots: int) -> Layout:
        return Layout(
            chunks=chunks, encoder_tokens=encoder_tokens, canvases=round(canvases * encoder_tokens / 512), slots=slots
        )

    return Layouts(causal=layout(0, 0), usual=layout(5, 64), wide=layout(3, LONGEST_CANVAS))


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

    def __post_init__(self) -> None:
        """Refuse what no run can go by."""
        bounded("seconds", self.seconds, above=0)
        bounded("accumulate", self.accumulate, least=1)
        bounded("average_decay", self.average_decay, least=0, below=1)
        bounded("save_every", self.save_every, least=0)
        bounded("validate_every", self.validate_every, least=0)


class Pace(NamedTuple):
    """How long a batch takes, forward and back, and how much it holds."""

    causal: float
    """Seconds, in the causal stage."""
    joint: float
    """Seconds, in the other stages, where batches hold holes too."""
    causal_tokens: int
    joint_tokens: int
    """Padding among them."""

    def batches(self, plan: Plan) -> tuple[float, float]:
        """Those of the causal stage and those behind it that fit into a plan's time."""
        alone = plan.seconds * plan.schedule.causal_until
        return alone / self.causal, (plan.seconds - alone) / self.joint

    def forecast(self, plan: Plan, passes: Callable[[int], float]) -> str:
        """What a run will come to, as a line for people; `passes` says how often so many batches read the corpus."""
        causal, joint = self.batches(plan)
        tokens = causal * self.causal_tokens + joint * self.joint_tokens
        return (
            f"{self.causal_tokens / self.causal:,.0f} tokens/s from left to right, "
            f"{self.joint_tokens / self.joint:,.0f} with holes: the whole plan has room for "
            f"{(causal + joint) / plan.accumulate:,.0f} updates of {plan.accumulate} batches, {tokens / 1e6:,.1f} M "
            f"tokens, and reads the corpus {passes(round(causal + joint)):,.2f} times"
        )


def paced(plan: Plan, pace: Pace, accumulate: int | None = None) -> Plan:
    """The plan with updates of a size, and an average of a length, that fit how fast the machine is.

    Args:
        plan: with its time and its layouts.
        pace: what was measured.
        accumulate: batches to an update, where that is decided already.
    """
    batches = sum(pace.batches(plan))
    size = accumulate or min(max(1, round(batches / UPDATES)), _MOST_GATHERED)
    return replace(plan, accumulate=size, average_decay=1 - 1 / max(2.0, AVERAGED_UPDATES * batches / size))


def keep_plan(plan: Plan, directory: Path) -> None:
    """Write the plan into a run's folder."""
    write_json(directory / PLAN_FILE, plan)


def read_plan(directory: Path) -> Plan | None:
    """The plan of a run; None where there is none.

    Raises:
        EngineError: the file is malformed.
    """
    path = directory / PLAN_FILE
    try:
        return msgspec.json.decode(path.read_bytes(), type=Plan)
    except FileNotFoundError:
        return None
    except (OSError, *MALFORMED) as error:
        raise EngineError(
            f"{path}: is no plan of a run ({error}); delete it, and the run goes on by what its machine does now"
        ) from error


def with_settings(plan: Plan, settings: Iterable[str]) -> Plan:
    """The plan with some of its numbers changed, all at once: what is refused is what comes out.

    Args:
        plan: what is not named stays.
        settings: `name=value`, the name a path through the fields, as `schedule.objective.filler_weight=1`.

    Raises:
        EngineError: there is no such number, or the value does not fit it, or one does not fit another, or it has an
            option of its own; names what was set.
    """
    settings, changes = list(settings), dict[str, Any]()
    for setting in settings:
        name, _, value = setting.partition("=")
        if name in _OPTIONS:
            raise EngineError(f"--set {setting}: {name} is not set so, but by {_OPTIONS[name]}")
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
