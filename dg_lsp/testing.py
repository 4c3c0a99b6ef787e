"""Help for tests: source with its cursor drawn in, `"def f(a|): pass"`, and an engine's answers."""

from __future__ import annotations

from typing import NamedTuple

from dg_engine.api import Head, Infill, StopReason
from dg_lsp.document import Document, Encoding, Point, Position, Snapshot

CURSOR = "|"


class Marked(NamedTuple):
    """A document and the place of the mark that was drawn into it."""

    document: Document
    point: Point

    @property
    def snapshot(self) -> Snapshot:
        """The document's current version."""
        return self.document.snapshot()

    @property
    def position(self) -> Position:
        """The mark in the client's units."""
        return self.snapshot.position(self.point)


def marked(
    source: str, language_id: str = "python", *, uri: str = "file:///sample", encoding: Encoding = "utf-16"
) -> Marked:
    """Open `source` without its one `|`, and say where that was.

    Raises ValueError unless the source holds exactly one mark.
    """
    if source.count(CURSOR) != 1:
        raise ValueError(f"the source needs exactly one {CURSOR!r}, not {source.count(CURSOR)}")
    before, after = source.split(CURSOR)
    document = Document(uri, language_id, 1, before + after, encoding)
    return Marked(document, end_of(before))


def end_of(text: str) -> Point:
    """The point at the end of `text`."""
    rows = Document("", "", 0, text, "utf-32").snapshot().lines
    return Point(len(rows) - 1, len(rows[len(rows) - 1]))


def answered(
    text: str,
    *others: str,
    score: float | None = None,
    heads: tuple[Head, ...] = (),
    stop_reason: StopReason = "converged",
) -> Infill:
    """What an engine answers."""
    return Infill(
        text=text,
        tokens=3,
        steps=2,
        milliseconds=1,
        score=score,
        stop_reason=stop_reason,
        prefix_tokens=9,
        cached_tokens=0,
        others=others,
        heads=heads,
    )


def rated(text: str, *probabilities: float | None) -> tuple[Head, ...]:
    """The heads of a text, one for each line that is not blank."""
    lines = text.split("\n")
    ends = [len("\n".join(lines[: number + 1])) for number, line in enumerate(lines) if line.strip()]
    return tuple(
        Head(characters=end, tokens=3, score=-1.0, probability=probability)
        for end, probability in zip(ends, probabilities, strict=True)
    )
