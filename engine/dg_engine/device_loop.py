"""The loop over `static_canvas.static_step`: holes in, states out, the step captured as a CUDA graph. Token ids only.

The host copies a request into fixed buffers, launches a step, waits for one small report and launches the next before
it hands the report on, so that its own work is hidden behind the device's. It does not launch a step before it knows
that the step is wanted: reading the report costs far less than a step that nobody wanted would delay what comes next.

Without CUDA the same loop runs the step as it is. `infill.fill` is its readable twin.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from dg_engine.captures import Graphs, HostCopy, can_capture, write
from dg_engine.chunks import Chunk, ChunkShape, chunk_bucket
from dg_engine.hardware import is_nearly_full
from dg_engine.infill import Choose, Filling, is_past, out_of_time
from dg_engine.model import DiffusionGemma, Encoded
from dg_engine.prefix_cache import PrefixCache, Seen
from dg_engine.rows import (
    CANVAS_BUCKETS,
    MOST_SLOTS,
    Row,
    filling_of,
    first_state,
    prefix_places,
    prefixes_of,
    rules_of,
    shape_of,
)
from dg_engine.static_canvas import Shape, State, blank_places, static_step

KEPT = 4
"""Sets of places that are kept, while there is room, with their graphs, for later requests behind such prefixes."""


class DeviceLoop:
    """Fills holes with canvases of fixed shapes. Not thread-safe: one worker owns it."""

    def __init__(self, model: DiffusionGemma) -> None:
        self._model = model
        self._idle: list[Places] = []
        self._graphs = Graphs() if can_capture(model) else None

    def fill(self, rows: Sequence[Row], *, deadline: float | None = None) -> Iterator[tuple[Filling, ...]]:
        """Yield the state of every row after each step, until all have a stop reason; a row that has one stays.

        Args:
            rows: the holes, refined side by side; they share nothing but the time and, where they have the same, a
                prefix.
            deadline: `time.perf_counter()` seconds after which all rows stop with what is certain.

        Raises:
            ValueError: there is no row, or one that no canvas holds.
        """
        shape = shape_of(rows)
        with self._lent(shape.prefix, prefixes_of(shape, rows)) as places:
            canvases = places.canvases(shape, rows)
            canvases.admit(rows)
            canvases.launch()
            states = canvases.states()
            yield from _followed(canvases, _in_time(states, deadline), deadline)

    def fill_chosen(
        self, rows: Sequence[Row], choose: Choose, *, deadline: float | None = None
    ) -> Iterator[tuple[Filling, ...]]:
        """As `infill.fill_chosen`, its readable twin, of rows behind one prefix that differ in their holes alone.

        The first step is made of at most MOST_SLOTS at once. Those that go on begin with what it left them.

        Raises:
            ValueError: as `fill`, or those that go on have more than MOST_SLOTS.
        """
        whole = shape_of(rows)._replace(prefixes=1)
        at_once = MOST_SLOTS // whole.canvas
        with self._lent(whole.prefix, prefixes_of(whole, rows)) as places:
            states, after = list[Filling](), list[State]()
            for first in range(0, len(rows), at_once):
                some = rows[first : first + at_once]
                canvases = places.canvases(whole.of(len(some)), some)
                canvases.admit(some)
                canvases.launch()
                states += canvases.states()
                after.append(canvases.copied())
            numbers = choose(states)
            if len(numbers) > at_once:
                raise ValueError(f"of canvases of {whole.canvas} at most {at_once} can go on, not {len(numbers)}")
            going, chosen = [rows[number] for number in numbers], [states[number] for number in numbers]
            canvases = places.canvases(whole.of(len(going)), going)
            canvases.resume(going, _rows_of(after, numbers))
            yield from _followed(canvases, _in_time(chosen, deadline), deadline)

    def encode(self, tokens: Tensor, cache: PrefixCache) -> Encoded:
        """As `DiffusionGemma.encode`, its readable twin, of one row [1, S] of which the last token alone is read.

        Raises:
            ValueError: there are no tokens, or more than the longest of CHUNK_BUCKETS.
        """
        count = tokens.shape[1]
        with self._lent(prefix_places(cache.length), [cache]) as places:
            chunk = places.chunk(ChunkShape(1, chunk_bucket(count), last=True))
            return Encoded(chunk.encode([tokens[0]], cache.length), places.added_to(cache, count))

    def hidden_behind(self, cache: PrefixCache, texts: Sequence[Tensor]) -> list[Tensor]:
        """As `causal.hidden_behind`, its readable twin, of texts in one pass, or in several where they are long.

        Raises:
            ValueError: as `encode`.
        """
        slots = chunk_bucket(max(map(len, texts)))
        at_once, found = MOST_SLOTS // slots, list[Tensor]()
        with self._lent(prefix_places(cache.length), [cache]) as places:
            for first in range(0, len(texts), at_once):
                some = texts[first : first + at_once]
                hidden = places.chunk(ChunkShape(len(some), slots, last=False)).encode(some, cache.length)
                found += [one[: len(text)] for one, text in zip(hidden, some, strict=True)]
        return found

    @contextmanager
    def _lent(self, prefix: int, caches: Sequence[PrefixCache]) -> Iterator[Places]:
        places = self.take(prefix, caches)
        try:
            yield places
        finally:
            self.give_back(places)

    def take(self, prefix: int, caches: Sequence[PrefixCache]) -> Places:
        """So many places for each of these prefixes, with them in it, that nobody else uses.

        Two requests may take turns step by step.
        """
        wanted = prefix, len(caches)
        places = next((one for one in reversed(self._idle) if one.sizes == wanted), None)
        if places is None:
            places = Places(self._model, *wanted, self._graphs)
        else:
            self._idle.remove(places)
        for number, cache in enumerate(caches):
            places.hold(number, cache)
        return places

    def give_back(self, places: Places) -> None:
        """They are kept for the next, while there is room."""
        kept = 1 if is_nearly_full(self._model.device) else KEPT
        self._idle = [*self._idle, places][-kept:]


class Places:
    """Places for the keys of prefixes and of the canvases behind them, and what was made to use them.

    A graph knows addresses, not tensors. So the model's weights, these places, and the rules and the state of canvases
    stay where they were when it was captured, for as long as it lives: they are written with `copy_` and never
    replaced. The keys of a prefix are copied once per request, because the room of a document's own cache moves as it
    grows. Canvases of any shape that are used one after the other have the same places.
    """

    def __init__(self, model: DiffusionGemma, prefix: int, prefixes: int, graphs: Graphs | None) -> None:
        self.sizes = prefix, prefixes
        self._model, self._graphs = model, graphs
        self._behind = MOST_SLOTS if prefixes == 1 else CANVAS_BUCKETS[-1]
        self._seen = blank_places(model, prefix, prefixes, self._behind)
        self._made: dict[Shape, Canvases] = {}
        self._chunks: dict[ChunkShape, Chunk] = {}

    def hold(self, number: int, cache: PrefixCache) -> None:
        """Copy a prefix, or the last of it that there are places for."""
        for layer, seen in enumerate(self._seen):
            kept = min(cache.length, seen.keys.shape[2] - self._behind)
            known = cache.keys[layer].shape[2]
            last = slice(known - kept, known)
            seen.keys[number, :, :kept] = cache.keys[layer][0, :, last]
            seen.values[number, :, :kept] = cache.values[layer][0, :, last]

    def canvases(self, shape: Shape, rows: Sequence[Row]) -> Canvases:
        """Those of a shape behind these prefixes; `rows` are of its kind, to make them with."""
        if shape not in self._made:
            seen = self._with_room(shape.behind)
            self._made[shape] = Canvases(self._model, shape, seen, rows, self._graphs)
        return self._made[shape]

    def chunk(self, shape: ChunkShape) -> Chunk:
        """For tokens that are encoded behind the one prefix."""
        if shape not in self._chunks:
            seen = self._with_room(shape.rows * shape.slots)
            self._chunks[shape] = Chunk(self._model, shape, seen, self._graphs)
        return self._chunks[shape]

    def added_to(self, cache: PrefixCache, count: int) -> PrefixCache:
        """The cache that is held, with the first tokens behind it."""
        cache = cache.with_room(count, self._model.reach)
        for layer, seen in enumerate(self._seen):
            own = seen.keys.shape[2] - self._behind
            added, behind = cache.seen(layer, count, cache.length), slice(own, own + count)
            added.keys.copy_(seen.keys[:, :, behind])
            added.values.copy_(seen.values[:, :, behind])
        return cache.grown(count)

    def _with_room(self, behind: int) -> list[Seen]:
        """What each layer sees, with so many places behind the prefixes."""
        seen = []
        for keys, values, _ in self._seen:
            used = slice(0, keys.shape[2] - self._behind + behind)
            seen.append(Seen(keys[:, :, used], values[:, :, used], room=True))
        return seen


class Canvases:
    """The buffers of one shape and the step over them."""

    def __init__(
        self, model: DiffusionGemma, shape: Shape, seen: list[Seen], rows: Sequence[Row], graphs: Graphs | None
    ) -> None:
        self._model, self._shape, self._seen = model, shape, seen
        self._rules, self._state = rules_of(model, shape, rows), first_state(model, shape, rows)
        self._report = HostCopy(self._state.report)
        self._step = self._advance if graphs is None else graphs.captured(self._advance)

    def admit(self, rows: Sequence[Row]) -> None:
        """Replace what the canvases held; launched steps are finished first, because the device works in order."""
        self.resume(rows, first_state(self._model, self._shape, rows))

    def resume(self, rows: Sequence[Row], state: State) -> None:
        """As `admit`, with what steps have made of the rows already."""
        write(self._rules, rules_of(self._model, self._shape, rows))
        write(self._state, state)

    def launch(self) -> None:
        """Begin a step of all rows, and the copy of its report."""
        self._step()
        self._report.begin()

    def states(self) -> list[Filling]:
        """What the step launched last made of each row; to be asked before the next launch."""
        return [filling_of(row) for row in self._report.wait()]

    def copied(self, row: int | None = None) -> State:
        """The state after the step launched last, of all rows or of one, as it stays when the next begins."""
        chosen = slice(None) if row is None else slice(row, row + 1)
        return State(*(part[chosen].clone() for part in self._state))

    def _advance(self) -> None:
        write(self._state, static_step(self._model, self._shape, self._seen, self._rules, self._state))


def _followed(canvases: Canvases, states: list[Filling], deadline: float | None) -> Iterator[tuple[Filling, ...]]:
    """Yield the states of all rows, and those after each further step, until all have a stop reason."""
    while True:
        running = [state.stop_reason is None for state in states]
        if any(running):
            canvases.launch()
        yield tuple(states)
        if not any(running):
            return
        later = _in_time(canvases.states(), deadline)
        states = [after if goes_on else state for goes_on, after, state in zip(running, later, states, strict=True)]


def _rows_of(states: Sequence[State], numbers: Sequence[int]) -> State:
    """Some rows, of which each state has the next."""
    where = torch.tensor(numbers, device=states[0].tokens.device)
    return State(*(torch.cat(parts).index_select(0, where) for parts in zip(*states, strict=True)))


def _in_time(states: list[Filling], deadline: float | None) -> list[Filling]:
    return [out_of_time(state) for state in states] if is_past(deadline) else states
