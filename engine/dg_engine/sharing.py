"""Requests that take turns share their steps: one pass of the model refines the holes of all that are at work.

A step reads the same weights for one hole as for four, and reading them is most of its time. Each request has an
iterator of its own, which one worker asks in turn. Whoever is asked first takes the step for all; what it made of the
others waits for them. A request joins between two steps and leaves with its last state, and what becomes of it does not
depend on the others: rows of a batch share nothing but the time. Token ids only.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import torch

from dg_engine.device_loop import Canvases, DeviceLoop, Places
from dg_engine.hardware import is_nearly_full
from dg_engine.infill import Filling, is_past, out_of_time
from dg_engine.model import DiffusionGemma
from dg_engine.rows import Row, first_state, prefixes_of, shape_of
from dg_engine.static_canvas import Shape, State

MOST_TOGETHER = 4
"""Requests of one batch: each has its own prefix in it."""


class SharedLoop:
    """Fills holes, those of several requests in one batch. One worker asks; any thread may drop an iterator.

    Args:
        model: the decoder.
        loop: has the canvases.
    """

    def __init__(self, model: DiffusionGemma, loop: DeviceLoop) -> None:
        self._model, self._loop = model, loop
        self._batches: list[_Batch] = []

    def fill(self, row: Row, *, deadline: float | None = None) -> Iterator[Filling]:
        """Yield the state of a hole after each of its steps; the last carries a stop reason.

        Args:
            row: the hole.
            deadline: `time.perf_counter()` seconds after which it stops with what is certain; at least one step is run.

        Raises:
            ValueError: no canvas holds it.
        """
        member = _Member(row, deadline)
        batch = self._batch_for(shape_of([row]))
        try:
            batch.join(member)
            while not member.is_done:
                yield batch.next_of(member)
            batch.tidy()
        finally:
            # Another thread may be here, where a request was given up: its row goes when the next step is taken.
            member.is_gone = True

    def _batch_for(self, shape: Shape) -> _Batch:
        """One of that shape in which there is room, or a new one."""
        for batch in self._batches:
            batch.tidy()
        self._batches = [batch for batch in self._batches if batch.at_work]
        most = 1 if is_nearly_full(self._model.device) else MOST_TOGETHER
        for batch in self._batches:
            if batch.shape == shape and len(batch.at_work) < most:
                return batch
        self._batches.append(_Batch(self._model, self._loop, shape))
        return self._batches[-1]


@dataclass(slots=True, eq=False)
class _Member:
    """A request in a batch."""

    row: Row
    deadline: float | None
    states: deque[Filling] = field(default_factory=deque)
    """Those that were not asked for yet."""
    has_stopped: bool = False
    """Whether the last of its states, asked for or not, has a stop reason."""
    is_gone: bool = False
    """Nobody asks any more."""
    left: State | None = None
    """Of its row alone, when its batch last changed; None before its first."""

    @property
    def is_done(self) -> bool:
        """Whether every state was asked for."""
        return self.has_stopped and not self.states


class _Batch:
    """Rows of one shape, refined together.

    Args:
        model: the decoder.
        loop: lends places.
        shape: of each row alone.
    """

    def __init__(self, model: DiffusionGemma, loop: DeviceLoop, shape: Shape) -> None:
        self.shape = shape
        self._model, self._loop = model, loop
        self._members: list[_Member] = []
        """One for each row of the canvases."""
        self._places: Places | None = None
        self._canvases: Canvases | None = None
        self._is_under_way = False

    @property
    def at_work(self) -> list[_Member]:
        """Whose holes need more steps."""
        return [member for member in self._members if not (member.has_stopped or member.is_gone)]

    def join(self, member: _Member) -> None:
        """Begin its first step with the next of the others."""
        self._take_in()
        self._seat([*self.at_work, member])
        self._launch()

    def next_of(self, member: _Member) -> Filling:
        """Its next state, of a step that was taken for others too; there is one."""
        while not member.states:
            self._take_in()
            # There are no canvases where another could not join, as for want of memory: then all go on without it.
            if self._canvases is None or len(self.at_work) < len(self._members):
                self._seat(self.at_work)
            self._launch()
        return member.states.popleft()

    def tidy(self) -> None:
        """Give the places back where nobody is at work."""
        if self._places is not None and not self.at_work:
            self._take_in()
            self._seat([])

    def _launch(self) -> None:
        if self._canvases is not None:
            self._canvases.launch()
            self._is_under_way = True

    def _take_in(self) -> None:
        """Wait for the step under way, and keep what it made of each hole until it is asked for."""
        if self._canvases is None or not self._is_under_way:
            return
        self._is_under_way = False
        for member, state in zip(self._members, self._canvases.states(), strict=True):
            if not member.has_stopped:
                kept = out_of_time(state) if is_past(member.deadline) else state
                member.states.append(kept)
                member.has_stopped = kept.stop_reason is not None

    def _seat(self, members: Sequence[_Member]) -> None:
        """Go on with these rows alone, from where each of them is; none is under way."""
        if self._canvases is not None:
            for number, member in enumerate(self._members):
                member.left = self._canvases.copied(number)
        if self._places is not None:
            self._loop.give_back(self._places)
        self._members, self._places, self._canvases = list(members), None, None
        if members:
            rows, count = [member.row for member in members], len(members)
            shape = self.shape._replace(batch=count, prefixes=count)
            states = [member.left or first_state(self._model, self.shape, [member.row]) for member in members]
            self._places = self._loop.take(shape.prefix, prefixes_of(shape, rows))
            canvases = self._places.canvases(shape, rows)
            canvases.resume(rows, State(*map(torch.cat, zip(*states, strict=True))))
            self._canvases = canvases
