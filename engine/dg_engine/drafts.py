"""What is shown of tokens: the pieces of a draft, the text of an answer, and of a text that comes in blocks."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from operator import itemgetter

from dg_engine.api import Piece
from dg_engine.infill import Filling
from dg_engine.tokenizer import REPLACEMENT, Tokenizer


def pieces(tokenizer: Tokenizer, state: Filling, had: str = "") -> tuple[Piece, ...]:
    """The draft's text in runs of accepted and not accepted tokens, less what the user already has."""
    accepted = state.belief.accepted[: state.end].tolist()
    found, transcript, left = list[Piece](), Transcript(tokenizer), len(state.tokens)
    for settled, run in groupby(zip(state.tokens, accepted, strict=True), key=itemgetter(1)):
        tokens = [token for token, _ in run]
        left -= len(tokens)
        text, whole = without(had, transcript.more(tokens, last=not left))
        had = "" if whole else had
        if text:
            found.append(Piece(text, settled=settled))
    return tuple(found)


def without(cut: str, text: str) -> tuple[str, bool]:
    """The text after `cut`, which it must begin with; (text, False) where it does not."""
    return (text[len(cut) :], True) if text.startswith(cut) else (text, False)


def answer_text(tokenizer: Tokenizer, cut: str, tokens: Sequence[int], overlap: int = 0) -> str:
    """What tokens write behind `cut`, up to the first bytes that are no character; empty where they begin otherwise.

    The last `overlap` characters belong to the suffix and are left out.
    """
    written = tokenizer.decode([*tokens])
    text, whole = without(cut, written[: len(written) - overlap].split(REPLACEMENT, 1)[0])
    return text if whole else ""


class Transcript:
    """The text of tokens that come in parts; the bytes of a character may be in two of them."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._pending = list[int]()

    def more(self, tokens: Sequence[int], *, last: bool) -> str:
        """The text of what came, without special tokens; an unfinished character at its end waits for the next part."""
        special = self._tokenizer.special
        self._pending += [token for token in tokens if not special[token]]
        held = 0 if last else self._unfinished()
        ready = self._pending[: len(self._pending) - held]
        self._pending = self._pending[len(ready) :]
        return self._tokenizer.decode(ready)

    def _unfinished(self) -> int:
        """Tokens at the end that form no character yet; a character has at most four."""
        for held in range(min(3, len(self._pending)) + 1):
            if not self._tokenizer.decode(self._pending[: len(self._pending) - held]).endswith(REPLACEMENT):
                return held
        return 0
