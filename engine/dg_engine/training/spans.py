"""Where holes are cut while training: the mix of spans that a cursor will ask for, always at token boundaries.

The mix follows AST-FIM (arXiv 2506.00204) and SAFIM (arXiv 2403.04814) for syntactic spans and Bavarian et al. (arXiv
2207.14255) for random ones.
"""

from __future__ import annotations

from typing import Literal, NamedTuple, get_args

import numpy as np
from numpy.typing import NDArray

from dg_engine.infill import SPARE
from dg_engine.tokenizer import Tokenizer
from dg_engine.training.syntax import KINDS, Nodes

SpanKind = Literal["line", "node", "lines", "random", "empty", "end"]
SPAN_KINDS: tuple[SpanKind, ...] = get_args(SpanKind)
SHARES = (0.35, 0.25, 0.15, 0.15, 0.05, 0.05)
"""Of each `SpanKind`. `end` is a hole with nothing behind it, as at the end of a file."""

NODE_SHARES = (8, 7, 5, 5)
"""Weights of `syntax.KINDS`."""

BUCKETS = (8, 16, 24, 32, 48, 64)
"""Slots with which sampling may begin."""

# Half of all cursors stand where people pause to type: behind an opening sign, a dot, a comma, a name, or indentation.
_TYPED_AT = ("(", "[", "{", ".", ",", "=", ":", " ")


class Hole(NamedTuple):
    """One hole in a document, in its token numbers."""

    start: int
    """The first token of the span; all before it are the prefix."""
    end: int
    """The token behind the span; equal to `start` for a hole that should stay empty."""
    slots: int
    """Slots of the hole: the span, then filler."""
    suffix: int
    """Pinned tokens behind the hole."""
    kind: SpanKind


class Vocabulary(NamedTuple):
    """What a batch must know of the tokens."""

    newline: NDArray[np.bool_]
    """[V] it begins a line."""
    typed: NDArray[np.bool_]
    """[V] people type behind it."""

    @classmethod
    def of(cls, tokenizer: Tokenizer) -> Vocabulary:
        """Read them off the tokens' texts."""
        newline = tokenizer.with_newline.numpy()
        typed = [text.endswith(_TYPED_AT) or text.strip(" _").isalpha() for text in tokenizer.texts]
        return cls(newline, newline | np.array(typed))


class SpanSampler:
    """Draws holes in one chunk of a document."""

    def __init__(
        self,
        tokens: NDArray[np.int64],
        nodes: Nodes,
        chunk: tuple[int, int],
        vocabulary: Vocabulary,
        canvas: int,
        rng: np.random.Generator,
    ) -> None:
        """Prepare the places of a chunk.

        Args:
            tokens: [T] the whole document: spans and suffixes may reach beyond the chunk.
            nodes: its syntactic spans.
            chunk: first token, and the token behind the last; a hole starts behind the first one.
            vocabulary: of the tokenizer.
            canvas: slots of hole and suffix together.
            rng: all randomness.
        """
        first, last = chunk
        self._tokens, self._chunk, self._canvas, self._rng = tokens, chunk, canvas, rng
        self._longest = longest_hole(canvas)
        self._newlines = np.flatnonzero(vocabulary.newline[tokens])
        starts = np.arange(first + 1, last)
        self._typed = starts[vocabulary.typed[tokens[starts - 1]]]
        low, high = np.searchsorted(nodes.start, (first + 1, last))
        self._nodes = Nodes(nodes.start[low:high], nodes.length[low:high], nodes.kind[low:high])

    def draw(self) -> Hole:
        """One hole. A span too long for its canvas is drawn anew a few times, then cut."""
        kind = SPAN_KINDS[self._rng.choice(len(SPAN_KINDS), p=SHARES)]
        for _ in range(_TRIES):
            start, end = self._span(kind)
            if end - start <= self._longest:
                break
        end = min(end, start + self._longest)
        slots = self._slots(end - start)
        wanted = 0 if kind == "end" else self._suffix()
        room = min(self._canvas - slots, len(self._tokens) - end)
        return Hole(start, end, slots, min(wanted, room), kind)

    def _span(self, kind: SpanKind) -> tuple[int, int]:
        if kind == "empty":
            return (cursor := self._cursor()), cursor
        if kind == "node" and len(self._nodes.start):
            return self._node()
        if kind == "random":
            start = self._cursor()
            return start, min(start + self._log_uniform(), len(self._tokens))
        if kind == "lines" or (kind == "end" and self._rng.random() < 0.5):
            return self._several_lines()
        start = self._cursor()
        return start, self._line_end(start, 1)

    def _cursor(self) -> int:
        if len(self._typed) and self._rng.random() < 0.5:
            return int(self._rng.choice(self._typed))
        return int(self._rng.integers(self._chunk[0] + 1, self._chunk[1]))

    def _node(self) -> tuple[int, int]:
        weights = np.array(NODE_SHARES, dtype=float)
        present = np.bincount(self._nodes.kind, minlength=len(KINDS))
        each = np.divide(weights, present, out=np.zeros(len(KINDS)), where=present > 0)[self._nodes.kind]
        chosen = int(self._rng.choice(len(each), p=each / each.sum()))
        start = int(self._nodes.start[chosen])
        return start, start + int(self._nodes.length[chosen])

    def _several_lines(self) -> tuple[int, int]:
        """Two to six lines; two times in three from the first column of text, else from inside the first line."""
        start = self._cursor()
        if self._rng.random() < 2 / 3:
            before = self._newlines[np.searchsorted(self._newlines, start) - 1] if len(self._newlines) else 0
            if self._chunk[0] <= before < start:
                start = int(before) + 1
        return start, self._line_end(start, int(self._rng.integers(2, 7)))

    def _line_end(self, start: int, count: int) -> int:
        """The number of the `count`-th line break at or behind a token: it stays outside the span."""
        index = np.searchsorted(self._newlines, start) + count - 1
        return int(self._newlines[index]) if index < len(self._newlines) else len(self._tokens)

    def _log_uniform(self) -> int:
        return int(np.exp(self._rng.uniform(0.0, np.log(self._longest + 1))))

    def _slots(self, length: int) -> int:
        """Slots for a span: a bucket in which sampling may begin, or the few spare slots that it leaves later on."""
        draw = self._rng.random()
        if draw < _TIGHT:
            return min(self._longest, max(1, length + int(self._rng.integers(0, SPARE + 3))))
        fitting = [bucket for bucket in BUCKETS if length <= bucket <= self._longest]
        rank = 0 if draw < 0.7 else 1 if draw < 0.9 else int(self._rng.integers(len(fitting)))
        return fitting[min(rank, len(fitting) - 1)]

    def _suffix(self) -> int:
        return int(self._rng.integers(0, MAX_SUFFIX + 1)) if self._rng.random() < 0.2 else USUAL_SUFFIX


MAX_SUFFIX = 48
USUAL_SUFFIX = 32
"""Pinned tokens in four of five canvases; otherwise any number up to the maximum, so that it never becomes a cue."""

LEAST_SUFFIX = 16
"""A canvas keeps so much room behind its longest hole: no suffix must mean the end of the file."""

_TRIES = 4
# Of holes that are as short as sampling leaves them once it has removed certain filler.
_TIGHT = 0.3


def longest_hole(canvas: int) -> int:
    """Slots of the longest hole that a canvas of so many slots may have."""
    return max(bucket for bucket in BUCKETS if bucket <= max(BUCKETS[0], canvas - LEAST_SUFFIX))
