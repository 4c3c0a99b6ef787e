"""One open document: its text, its syntax tree, what was offered, and at most one request that still runs.

The newest request wins: an older one is settled at once, and so is any whose text has changed meanwhile. Work that lost
is cancelled, which closes the engine's stream. Work for a request that is sure to come begins before it, and while an
offer is read the engine is asked what may follow it, which is 6 % more requests (`dg-lsp replay`).
"""

from __future__ import annotations

import asyncio
import logging
import math
import os
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Sequence
from contextlib import aclosing
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias, TypeVar

import msgspec

from dg_engine.api import Draft, Infill, InfillRequest
from dg_engine.errors import EngineError
from dg_engine.exclusion import Exclusions
from dg_lsp.anticipation import Asked, next_place, taken
from dg_lsp.backends import Backend
from dg_lsp.copying import copied
from dg_lsp.document import Change, Document, Position, Snapshot
from dg_lsp.memory import Memory
from dg_lsp.neighbours import Neighbours
from dg_lsp.planning import Plan, PlanningOptions, SelectedCompletion, Silence, plan
from dg_lsp.postprocess import Suggestion, distinct, suggest, without_scraps
from dg_lsp.settings import Settings
from dg_lsp.showing import worth_showing
from dg_lsp.syntax import syntax_for

log = logging.getLogger(__name__)

T = TypeVar("T")
Watch = Callable[[Plan, Draft], None]


class Selected(NamedTuple):
    """The entry selected in the client's menu: `text` would replace what lies from `start` to `end`."""

    start: Position
    end: Position
    text: str


class Ask(NamedTuple):
    """What the client wants to know: a completion at `position`, on its own account if `automatic`."""

    position: Position
    automatic: bool
    selected: Selected | None = None


class Offer(NamedTuple):
    """A completion for one version of the text; `infill` is None where memory answered."""

    suggestion: Suggestion
    snapshot: Snapshot
    infill: Infill | None
    others: tuple[Suggestion, ...] = ()
    """What may be meant instead, the likeliest first."""


class EngineTrouble(Silence):
    """Nothing is offered because the engine failed."""


Outcome: TypeAlias = Offer | Silence

OTHERS = 2
"""Completions besides the best that are offered for a request made by hand."""


class Services(NamedTuple):
    """What a request needs besides the document, as it stands when the request comes."""

    settings: Settings
    backend: Backend
    exclusions: Exclusions
    snoozed: Silence | None = None
    """Why nothing is offered unasked, while that is so."""
    others: Callable[[Snapshot], Iterable[str]] = lambda _: ()
    """The texts besides a document's own that may be copied from into it, the nearest first."""

    def of(self, snapshot: Snapshot) -> Services:
        """With the settings for a document's language."""
        return self._replace(settings=self.settings.for_language(snapshot.language_id))


SUPERSEDED = Silence("A newer request of the same document took its place.")
CHANGED = Silence("The text changed before the answer came.")
CLOSED = Silence("The document was closed.")
RECONFIGURED = Silence("Other settings came before the answer.")
GIVEN_UP = Silence("The work was given up.")
FAILED = Silence("The server itself failed; its log says how.")


class Session:
    """One document and the conversation about it."""

    def __init__(self, document: Document, path: Path | None) -> None:
        snapshot = document.snapshot()
        self._document = document
        self.path = path
        """None for one that is on no disk."""
        self.neighbours = None if path is None else Neighbours(path)
        self._syntax = syntax_for(snapshot.language_id, "" if path is None else str(path))
        self._memory = Memory()
        self._run: _Run | None = None
        self._asked: Asked | None = None
        self._ahead: _Ahead | None = None
        self._keys_apart_s = math.inf
        self._changed_s = -math.inf
        self._unfinished: set[asyncio.Task[Any]] = set()
        self.last: Outcome | None = None
        """What the last finished request came to."""

    @property
    def snapshot(self) -> Snapshot:
        """The text as it is now."""
        return self._document.snapshot()

    def excluded(self, exclusions: Exclusions) -> str | None:
        """Why the document is neither read nor sent, if that is so."""
        return exclusions.reason(self.path, self.snapshot.uri)

    @property
    def is_asked(self) -> bool:
        """Whether a request waits for its answer, or work for one has begun."""
        return self._run is not None

    @property
    def running(self) -> int:
        """Tasks that are not over yet, those on their way out included."""
        return len(self._unfinished)

    def change(self, changes: Sequence[Change], version: int, services: Services | None = None) -> None:
        """Carry out edits. A request that runs is for an older text and is settled without an answer.

        With `services`, work begins for the request that the client is about to make, where that can be told.
        """
        self._document.apply(changes, version)
        self._supersede(CHANGED)
        now = time.monotonic()
        self._keys_apart_s, self._changed_s = now - self._changed_s, now
        asked, self._asked = self._asked, None
        if services is None or asked is None or services.settings.drafts:
            return  # drafts are for those who ask
        snapshot = self._document.snapshot()
        if (place := next_place(asked, changes, snapshot)) is not None:
            self._begin(snapshot, Ask(place, automatic=True), services, None)

    def forget(self) -> None:
        """Let go of what was offered and of what runs: it was for other settings."""
        self._supersede(RECONFIGURED)
        self._memory = Memory()
        self._look_no_further()

    def close(self) -> None:
        """Settle what runs."""
        self._supersede(CLOSED)
        self._look_no_further()

    async def complete(self, ask: Ask, services: Services, watch: Watch | None = None) -> Outcome:
        """Answer for the text as it is now, in place of any request before this one.

        `watch` is called with each draft. Cancelling the caller stops the work.
        """
        snapshot = self._document.snapshot()
        run = self._run
        if run is None or not run.is_for(snapshot, ask, services):
            run = self._begin(snapshot, ask, services, watch)
        if ask.automatic and ask.selected is None:
            self._asked = Asked(snapshot, ask.position)
        try:
            outcome = await run.outcome
            # What ends it may have come between the answer and this caller's turn.
            self.last = run.ending or outcome
            if isinstance(self.last, Offer):
                self._shown(self.last, ask, services)
        except Exception:
            self.last = FAILED
            raise
        finally:
            run.stop(SUPERSEDED)
            if self._run is run:
                self._run = None
        return self.last

    def _shown(self, offer: Offer, ask: Ask, services: Services) -> None:
        """Foresee that the offer is taken, unless it is for an entry of a menu: these are walked through, not read."""
        if self._asked is not None:
            self._asked = self._asked._replace(offered=offer.suggestion)
        if self._ahead is None and ask.selected is None:
            self._ahead = ahead = _Ahead()
            ahead.work = self._started(self._look_ahead(ahead, offer, services))

    async def _look_ahead(self, ahead: _Ahead, offer: Offer, services: Services) -> Infill | Silence:
        services = services.of(offer.snapshot)
        following, place = taken(offer.snapshot, offer.suggestion)
        planned = self._plan(following, Ask(place, automatic=True), services)
        if isinstance(planned, Silence):
            return planned
        ahead.request = self._request(planned, services)
        return await _in_time(self._answer_of_engine(ahead.request, planned, services, None), services)

    def _look_no_further(self) -> None:
        if self._ahead is not None:
            self._ahead.work.cancel()
        self._ahead = None

    def _started(self, work: Coroutine[None, None, T]) -> asyncio.Task[T]:
        task = asyncio.create_task(work)
        self._unfinished.add(task)
        task.add_done_callback(self._unfinished.discard)
        return task

    def _begin(self, snapshot: Snapshot, ask: Ask, services: Services, watch: Watch | None) -> _Run:
        self._supersede(SUPERSEDED)
        key = _Key(snapshot, ask, services)
        self._run = _Run(key, self._started(self._answer(snapshot, ask, services, watch)))
        return self._run

    def _supersede(self, reason: Silence) -> None:
        if self._run is not None:
            self._run.stop(reason)
            self._run = None

    async def _answer(self, snapshot: Snapshot, ask: Ask, services: Services, watch: Watch | None) -> Outcome:
        services = services.of(snapshot)
        planned = self._plan(snapshot, ask, services)
        if isinstance(planned, Silence):
            return self._rest_of_an_offer(snapshot, ask, services) or planned
        if (declined := self._memory.declined(planned)) is not None:
            return declined
        # By hand more is asked for than is remembered: all of it, and what else is likely.
        if ask.automatic and (known := self._memory.recall(planned)) is not None:
            return Offer(known, snapshot, None)
        infill = await self._infill(planned, services, watch)
        if isinstance(infill, Silence):
            return infill
        text = worth_showing(infill, services.settings) if ask.automatic else infill.text
        if isinstance(text, Silence):
            return text
        first, *others = (suggest(planned, one, self._syntax) for one in (text, *infill.others))
        suggestions = distinct(one for one in (first, *others) if isinstance(one, Suggestion))
        if not ask.automatic:
            suggestions = without_scraps(planned, suggestions, self._syntax)
        if isinstance(first, Silence) and not suggestions:
            return first
        for one in reversed(suggestions):
            self._memory.keep(planned, one)
        return Offer(suggestions[0], snapshot, infill, tuple(suggestions[1:]))

    def _rest_of_an_offer(self, snapshot: Snapshot, ask: Ask, services: Services) -> Offer | None:
        """What is left of one that was begun, at a place where nothing new is offered unasked, as behind a `;`."""
        if not ask.automatic or services.snoozed is not None:
            return None
        planned = self._plan(snapshot, ask._replace(automatic=False), services)
        if isinstance(planned, Silence):
            return None
        goes_on = self._memory.goes_on(planned)
        known = self._memory.recall(planned)  # which tells the memory what was taken whole, too
        return Offer(known, snapshot, None) if goes_on and known is not None else None

    def _plan(self, snapshot: Snapshot, ask: Ask, services: Services) -> Plan | Silence:
        settings = services.settings
        if ask.automatic and services.snoozed is not None:
            return services.snoozed
        if not settings.enabled:
            return Silence(f"Completions are switched off for {snapshot.language_id or 'files without a language'}.")
        if (reason := self.excluded(services.exclusions)) is not None:
            return Silence(reason)
        options = PlanningOptions(multi_line=settings.multi_line, in_comments=settings.in_comments)
        point, chosen = snapshot.point(ask.position), ask.selected
        selected = chosen and SelectedCompletion(snapshot.point(chosen.start), snapshot.point(chosen.end), chosen.text)
        return plan(snapshot, self._syntax, point, automatic=ask.automatic, options=options, selected=selected)

    async def _infill(self, planned: Plan, services: Services, watch: Watch | None) -> Infill | Silence:
        return await _in_time(self._foreseen_or_asked(planned, services, watch), services)

    async def _foreseen_or_asked(self, planned: Plan, services: Services, watch: Watch | None) -> Infill | Silence:
        request = self._request(planned, services)
        if self._ahead is not None and self._ahead.request == request:
            ahead, self._ahead = self._ahead, None
            if isinstance(foreseen := await ahead.work, Infill):
                return foreseen
        self._look_no_further()
        pause_s = services.settings.debounce_ms / 1000
        if planned.automatic and self._keys_apart_s < pause_s:
            await asyncio.sleep(pause_s)
        return await self._answer_of_engine(request, planned, services, watch)

    def _request(self, planned: Plan, services: Services) -> InfillRequest:
        settings = services.settings
        return InfillRequest(
            prefix=planned.prefix,
            suffix=planned.asked_suffix,
            path=self.path.as_posix() if self.path is not None else "",
            language=planned.snapshot.language_id or next(iter(planned.language.ids), ""),
            # Two windows on one file are two documents: the newer request of one must not end the other's.
            document=f"{os.getpid()}:{planned.snapshot.uri}",
            extent=planned.extent,
            max_new_tokens=settings.max_new_tokens,
            max_denoising_steps=settings.max_denoising_steps,
            entropy_bound=settings.entropy_bound,
            time_budget_ms=settings.time_budget_ms,
            decoding=None if settings.decoding == "auto" else settings.decoding,
            others=0 if planned.automatic else OTHERS,
            copied=copied(planned, services.others(planned.snapshot)),
        )

    async def _answer_of_engine(
        self, request: InfillRequest, planned: Plan, services: Services, watch: Watch | None
    ) -> Infill | Silence:
        request = msgspec.structs.replace(request, drafts=watch is not None)
        try:
            async with aclosing(services.backend.infill(request)) as events:
                async for event in events:
                    if isinstance(event, Infill):
                        return SUPERSEDED if event.stop_reason == "superseded" else event
                    if watch is not None:
                        watch(planned, event)
        except EngineError as error:
            return EngineTrouble(str(error))
        return EngineTrouble("The engine ended without an answer.")


async def _in_time(work: Awaitable[Infill | Silence], services: Services) -> Infill | Silence:
    """What work comes to, unless it takes longer than the engine may: then it is cancelled."""
    limit_s = services.settings.engine.answer_timeout_s
    try:
        async with asyncio.timeout(limit_s):
            return await work
    except TimeoutError:
        return EngineTrouble(f"The engine did not answer within {limit_s:g} s.")


class _Ahead:
    """What the engine is asked while an offer is read, for the case that it is taken."""

    request: InfillRequest | None = None
    """None until it has been worked out, and where there is nothing to ask."""
    work: asyncio.Task[Infill | Silence]


class _Key(NamedTuple):
    """What a run is for."""

    snapshot: Snapshot
    ask: Ask
    services: Services


class _Run:
    """One request's task, and the outcome that its caller waits for: whichever comes first, answer or `stop`."""

    def __init__(self, key: _Key, task: asyncio.Task[Outcome]) -> None:
        self._key: _Key | None = key
        self.outcome: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        self.ending: Silence | None = None
        """Why it was stopped, if it was."""
        self._task = task
        self._task.add_done_callback(self._finish)

    def is_for(self, snapshot: Snapshot, ask: Ask, services: Services) -> bool:
        """Whether this is the work that such a request needs, begun before it came; true for one request at most."""
        key, self._key = self._key, None
        return key is not None and key.snapshot is snapshot and (key.ask, key.services) == (ask, services)

    def stop(self, reason: Silence) -> None:
        """Settle the outcome now if it is open, and cancel the work; its cleanup is not waited for."""
        self.ending = reason
        if not self.outcome.done():
            self.outcome.set_result(reason)
        elif not self.outcome.cancelled() and (error := self.outcome.exception()) is not None:
            log.debug("Work ended before its request came: %s", error)
        self._task.cancel()

    def _finish(self, task: asyncio.Task[Outcome]) -> None:
        error = None if task.cancelled() else task.exception()
        if error is None:
            if not self.outcome.done():
                self.outcome.set_result(GIVEN_UP if task.cancelled() else task.result())
        elif self.outcome.done():
            log.error("Work that was given up failed: %s", error, exc_info=error)
        else:
            self.outcome.set_exception(error)
