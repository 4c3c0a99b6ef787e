"""The loop over `static_canvas.static_step`: holes in, states out, the step captured as a CUDA graph. Token ids only.

The host copies a request into fixed buffers, launches a step, waits for one small report and launches the next before
it hands the report on, so that its own work is hidden behind the device's. It does not launch a step before it knows
that the step is wanted: reading the report costs far less than a step that nobody wanted would delay what comes next.

Without CUDA the same loop runs the step as it is. `infill.fill` is its readable twin.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain

import torch
from torch import Tensor

from dg_engine.canvas import Belief
from dg_engine.hardware import is_nearly_full
from dg_engine.infill import Filling, Hole, confident, next_length
from dg_engine.model import DiffusionGemma
from dg_engine.policies import Denoising, StableAndConfident
from dg_engine.prefix_cache import PrefixCache
from dg_engine.static_canvas import REASONS, Rules, Shape, State, blank_places, random_numbers, signed, static_step
from dg_kernels.launching import served

CANVAS_BUCKETS = (64, 128, 256)
"""Lengths of canvases; every one has its own graphs."""
SHORTEST_PREFIX = 1024
"""Places for a prefix: this, or so many times four that it fits."""
KEPT = 4
"""Canvases that are kept, while there is room, with their graphs and places, for later requests of their shape."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """One hole to fill."""

    cache: PrefixCache
    """The encoded prefix, a batch of one."""
    suffix: Tensor
    """[S] pinned token ids behind the hole."""
    hole: Hole
    plan: Denoising
    seed: int


def can_capture(model: DiffusionGemma) -> bool:
    """Whether a step of this model can be a CUDA graph.

    Where rows choose among experts, only a kernel leaves it on the device how many rows each of them got.
    """
    chosen = model.config.top_k_experts < model.config.num_experts
    weights = [layer.experts.parameters() for layer in model.decoder.layers]  # type: ignore[union-attr]
    embedding = model.decoder.embed_tokens.weight
    return model.device.type == "cuda" and (not chosen or served(embedding, *chain.from_iterable(weights)))


def canvas_bucket(row: Row) -> int | None:
    """The shortest canvas that holds the hole at its longest, or the longest canvas; None if the hole does not fit."""
    pinned = len(row.suffix)
    if row.hole.initial + pinned > CANVAS_BUCKETS[-1]:
        return None
    return next((slots for slots in CANVAS_BUCKETS if slots >= row.hole.longest + pinned), CANVAS_BUCKETS[-1])


def prefix_places(tokens: int) -> int:
    """Places in which a prefix of so many tokens lies."""
    places = SHORTEST_PREFIX
    while places < tokens:
        places *= 4
    return places


class DeviceLoop:
    """Fills holes with canvases of fixed shapes. Not thread-safe: one worker owns it."""

    def __init__(self, model: DiffusionGemma) -> None:
        self._model = model
        self._idle: list[_Canvases] = []
        self._graphs = Graphs() if can_capture(model) else None

    def fill(self, rows: Sequence[Row], *, deadline: float | None = None) -> Iterator[tuple[Filling, ...]]:
        """Yield the state of every row after each step, until all have a stop reason; a row that has one stays.

        Args:
            rows: the holes, refined side by side; they share nothing but the time.
            deadline: `time.perf_counter()` seconds after which all rows stop with what is certain.

        Raises:
            ValueError: there is no row, or one that no canvas holds.
        """
        canvases = self._taken(_shape(rows), rows)
        running, states = list(range(len(rows))), dict[int, Filling]()
        try:
            canvases.launch()
            while running:
                report = canvases.report()
                late = deadline is not None and time.perf_counter() >= deadline
                states |= {row: _filling(report[row], late=late) for row in running}
                running = [row for row in running if states[row].stop_reason is None]
                if running:
                    canvases.launch()
                yield tuple(states[row] for row in range(len(rows)))
        finally:
            kept = 1 if is_nearly_full(self._model.device) else KEPT
            self._idle = [*self._idle, canvases][-kept:]

    def _taken(self, shape: Shape, rows: Sequence[Row]) -> _Canvases:
        """Canvases with these rows in them that no other loop is using: two requests may take turns step by step."""
        canvases = next((one for one in reversed(self._idle) if one.shape == shape), None)
        if canvases is None:
            canvases = _Canvases(self._model, shape, rows, self._graphs)
        else:
            self._idle.remove(canvases)
        canvases.admit(rows)
        return canvases


class _Canvases:
    """The buffers of one shape and the step over them.

    A graph knows addresses, not tensors. So the model's weights, `_seen`, `_rules` and `_state` stay where they were
    when it was captured, for as long as it lives: they are written with `copy_` and never replaced. The keys of a
    prefix are copied into `_seen` once per request, because the room of a document's own cache moves as it grows.
    """

    def __init__(self, model: DiffusionGemma, shape: Shape, rows: Sequence[Row], graphs: Graphs | None) -> None:
        self.shape = shape
        self._model = model
        self._seen = blank_places(model, shape)
        self._rules, self._state = _rules(model, shape, rows), _first_state(model, shape, rows)
        self._report = _HostCopy(self._state.report)
        self._step = self._advance if graphs is None else graphs.captured(self._advance)

    def admit(self, rows: Sequence[Row]) -> None:
        """Replace what the canvases held; launched steps are finished first, because the device works in order."""
        _write(self._rules, _rules(self._model, self.shape, rows))
        _write(self._state, _first_state(self._model, self.shape, rows))
        for number, row in enumerate(rows):
            self._place(number, row.cache)

    def launch(self) -> None:
        """Begin a step of all rows, and the copy of its report."""
        self._step()
        self._report.begin()

    def report(self) -> Tensor:
        """`State.report` of the step launched last, on the host, to be read before the next launch."""
        return self._report.wait()

    def _advance(self) -> None:
        _write(self._state, static_step(self._model, self.shape, self._seen, self._rules, self._state))

    def _place(self, row: int, cache: PrefixCache) -> None:
        for layer, seen in enumerate(self._seen):
            kept = min(cache.length, seen.keys.shape[2] - self.shape.canvas)
            known = cache.keys[layer].shape[2]
            last = slice(known - kept, known)
            seen.keys[row, :, :kept] = cache.keys[layer][0, :, last]
            seen.values[row, :, :kept] = cache.values[layer][0, :, last]


class Graphs:
    """Captures work on the current CUDA device.

    All graphs compute in the same memory: they run one after the other, and what is to outlast one lies in buffers.
    """

    def __init__(self) -> None:
        self._memory = torch.cuda.graph_pool_handle()

    def captured(self, work: Callable[[], None]) -> Callable[[], None]:
        """What repeats the work as one graph, at the addresses that it uses now.

        Args:
            work: never looks at what it computes; it is run a few times.
        """
        # Libraries allocate their workspaces and choose their kernels in the first runs; a capture must not.
        stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(2):
                work()
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self._memory):
            work()
        return graph.replay


class _HostCopy:
    """A copy on the host of a tensor on the device, made behind the work launched before."""

    def __init__(self, source: Tensor) -> None:
        self._source = source
        on_cuda = source.is_cuda
        self._copy = torch.empty(source.shape, dtype=source.dtype, pin_memory=on_cuda)
        self._made = torch.cuda.Event() if on_cuda else None  # type: ignore[no-untyped-call]

    def begin(self) -> None:
        self._copy.copy_(self._source, non_blocking=True)
        if self._made is not None:
            self._made.record()

    def wait(self) -> Tensor:
        if self._made is not None:
            self._made.synchronize()
        return self._copy


def _shape(rows: Sequence[Row]) -> Shape:
    buckets = [canvas_bucket(row) for row in rows]
    if not rows or None in buckets:
        raise ValueError(f"a batch needs rows, and in each hole and suffix together at most {CANVAS_BUCKETS[-1]} slots")
    longest = max(row.cache.length for row in rows)
    return Shape(len(rows), max(slots for slots in buckets if slots is not None), prefix_places(longest))


def _rules(model: DiffusionGemma, shape: Shape, rows: Sequence[Row]) -> Rules:
    def each(numbers: list[int] | list[float], dtype: torch.dtype = torch.long) -> Tensor:
        return torch.tensor(numbers, dtype=dtype, device=model.device)

    plans, holes = [row.plan for row in rows], [row.hole for row in rows]
    stopping = [plan.stopping if isinstance(plan.stopping, StableAndConfident) else None for plan in plans]
    anything = torch.ones(model.config.vocab_size, dtype=torch.bool, device=model.device)
    allowed = [anything if hole.first_allowed is None else hole.first_allowed for hole in holes]
    return Rules(
        seed=each([signed(row.seed) for row in rows]),
        prefix=each([row.cache.length for row in rows]),
        suffix=each([len(row.suffix) for row in rows]),
        longer=torch.stack([each(_longer(row, shape.canvas)) for row in rows]),
        ends=torch.stack([hole.ends for hole in holes]),
        first_allowed=torch.stack(allowed),
        filler=each([hole.filler for hole in holes]),
        filler_bias=each([hole.filler_bias for hole in holes], torch.float32),
        steps=each([plan.max_denoising_steps for plan in plans]),
        t_min=each([plan.temperature.t_min for plan in plans], torch.float64),
        t_max=each([plan.temperature.t_max for plan in plans], torch.float64),
        entropy_bound=each([plan.acceptance.entropy_bound for plan in plans], torch.float32),
        stability=each([rule.stability_threshold if rule else 0 for rule in stopping]),
        # No mean is below minus infinity: that is `NeverStop`.
        confidence=each([rule.confidence_threshold if rule else -torch.inf for rule in stopping], torch.float64),
    )


def _longer(row: Row, canvas: int) -> list[int]:
    longest = min(row.hole.longest, canvas - len(row.suffix))
    return [max(length, next_length(length, longest)) for length in range(canvas + 1)]


def _first_state(model: DiffusionGemma, shape: Shape, rows: Sequence[Row]) -> State:
    seeds = torch.tensor([signed(row.seed) for row in rows], device=model.device)
    _, tokens = random_numbers(seeds, torch.full_like(seeds, -1), shape.canvas, model.config.vocab_size)
    signal = torch.zeros_like(model.embed(tokens))
    for number, row in enumerate(rows):
        pinned = slice(row.hole.initial, row.hole.initial + len(row.suffix))
        tokens[number, pinned] = row.suffix
        tokens[number, pinned.stop :] = 0
        if row.hole.pinned_signal:
            signal[number, pinned] = model.embed(row.suffix)
    count = torch.zeros_like(seeds)
    return State(
        tokens=tokens,
        signal=signal,
        hole=torch.tensor([row.hole.initial for row in rows], device=model.device),
        step=count,
        judged=torch.full_like(tokens, -1),
        unchanged=count.clone(),
        reason=count.clone(),
        report=torch.zeros(shape.batch, 4 + 4 * shape.canvas, device=model.device),
    )


def _write(buffers: Sequence[Tensor], values: Sequence[Tensor]) -> None:
    for buffer, value in zip(buffers, values, strict=True):
        buffer.copy_(value)


def _filling(report: Tensor, *, late: bool) -> Filling:
    """What `State.report` says of one row, in the words of `infill`."""
    head, slots = report[:4].long().tolist(), report[4:].clone().view(4, -1)
    reason, step, end, hole = head
    draft, accepted, confidence, entropy = slots[:, :hole]
    belief = Belief(draft.long(), confidence, entropy, accepted.bool())
    if late and REASONS[reason] != "converged":
        return Filling(belief, confident(belief, end), step, "time_budget")
    return Filling(belief, end, step, REASONS[reason])
