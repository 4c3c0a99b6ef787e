"""Text to token ids and back, and the questions that infill asks of a vocabulary."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from functools import cached_property
from itertools import takewhile
from pathlib import Path
from typing import NamedTuple

import torch
from tokenizers import Tokenizer as Backend
from torch import Tensor

from dg_engine.errors import CheckpointError

REPLACEMENT = "\ufffd"
SPELT_TOKENS = 4
"""Tokens at most that are cut off to be spelt anew: each may cost a pass of the model."""


class Healed(NamedTuple):
    """Text cut back to a token boundary, and what was cut: the answer must begin with it."""

    kept: str
    cut: str
    allowed: Tensor | None
    """[V] booleans: the tokens that begin with `cut`; None when nothing was cut, or when several may spell it."""


class Tokenizer:
    """A checkpoint's `tokenizer.json`. Text that looks like a special token is encoded as the text it is."""

    def __init__(self, backend: Backend) -> None:
        self.backend = backend
        backend.encode_special_tokens = True
        self.vocab_size = backend.get_vocab_size()

    @classmethod
    def load(cls, directory: Path) -> Tokenizer:
        """Read `tokenizer.json`.

        Raises:
            CheckpointError: the file is missing or malformed.
        """
        path = directory / "tokenizer.json"
        if not path.exists():
            raise CheckpointError(f"{path}: expected a tokenizer here, found no such file")
        try:
            return cls(Backend.from_file(str(path)))
        except Exception as error:  # tokenizers raises nothing narrower
            raise CheckpointError(f"{path}: is not a readable tokenizer ({error})") from error

    def encode(self, text: str) -> list[int]:
        """Token ids of the text, with nothing added. Lone surrogates, which UTF-8 cannot hold, become `?`."""
        return list(self.backend.encode(_storable(text), add_special_tokens=False).ids)

    def decode(self, tokens: list[int]) -> str:
        """Text of the token ids; bytes that form no character become U+FFFD."""
        return str(self.backend.decode(tokens, skip_special_tokens=False))

    def special_id(self, token: str) -> int:
        """The id of a special token.

        Raises:
            CheckpointError: the vocabulary has no such token.
        """
        found = self.backend.token_to_id(token)
        if found is None:
            raise CheckpointError(f"the tokenizer has no {token!r}, which this checkpoint's prompts need")
        return int(found)

    def heal(self, text: str) -> Healed:
        """Cut the text back so that its last token can still grow ("token healing"), into one that begins with the cut.

        A model sees text cut where tokens end, and a user stops typing anywhere: after `foo(` the likely next token may
        be the `()` that already began. The last pre-token is cut if some token continues it, or else the last token.
        Indentation stays: the user chose it.
        """
        text = _storable(text)
        piece = self._last_piece(text)
        for cut in (piece, self.decode(self.encode(piece)[-1:])):
            if cut and _is_clean(cut) and text.endswith(cut) and len(found := self.completing(cut)):
                return Healed(text[: len(text) - len(cut)], cut, self._mask(found))
        return Healed(text, "", None)

    def heal_by_spelling(self, text: str) -> Healed:
        """Cut the last pre-token off the text, for tokens of any number to spell it (`Spelling`).

        Of a long one only the last tokens are cut. Indentation stays.
        """
        text = _storable(text)
        piece = self._last_piece(text)
        last = [self.texts[token] for token in reversed(self.encode(piece)[-SPELT_TOKENS:])]
        cut = "".join(reversed([*takewhile(_is_clean, last)]))
        if "\n" in piece and not cut.strip():
            return Healed(text, "", None)
        return Healed(text.removesuffix(cut), cut, None)

    def completing(self, text: str) -> Tensor:
        """[N] the tokens that begin with a text of at least one character."""
        texts, tokens = self._sorted
        return tokens[bisect_left(texts, text) : bisect_left(texts, text + chr(0x10FFFF))]

    def beginning(self, text: str) -> Tensor:
        """[N] the tokens that a text begins with, and goes on behind."""
        texts, tokens = self._sorted
        heads = [text[:end] for end in range(1, len(text))]
        return torch.cat([tokens[:0], *(tokens[bisect_left(texts, one) : bisect_right(texts, one)] for one in heads)])

    @cached_property
    def texts(self) -> list[str]:
        """The text of every token by itself."""
        return [self.decode([token]) for token in range(self.vocab_size)]

    @cached_property
    def special(self) -> Tensor:
        """[V] booleans: tokens that stand for no text."""
        mask = torch.zeros(self.vocab_size, dtype=torch.bool)
        for token, added in self.backend.get_added_tokens_decoder().items():
            mask[token] = added.special
        return mask

    @cached_property
    def with_newline(self) -> Tensor:
        """[V] booleans: tokens whose text has a line break in it."""
        return self.containing("\n") | self.containing("\r")

    def containing(self, text: str) -> Tensor:
        """[V] booleans: tokens in whose text there is this."""
        return torch.tensor([text in one for one in self.texts])

    @cached_property
    def _sorted(self) -> tuple[list[str], Tensor]:
        """The texts of all tokens but special ones, ascending, and [N] the tokens."""
        special = self.special.tolist()
        pairs = sorted((text, token) for token, text in enumerate(self.texts) if not special[token])
        return [text for text, _ in pairs], torch.tensor([token for _, token in pairs], dtype=torch.long)

    def _last_piece(self, text: str) -> str:
        """The last pre-token of a text."""
        tail = text[-_TAIL:]
        # Not by the pre-tokenizer alone: Gemma's, which is given normalised text, finds no blank there to split at.
        found = self.backend.encode(tail, add_special_tokens=False)
        return tail[found.offsets[found.word_ids.index(found.word_ids[-1])][0] :] if found.ids else ""

    def _mask(self, tokens: Tensor) -> Tensor:
        mask = torch.zeros(self.vocab_size, dtype=torch.bool)
        mask[tokens] = True
        return mask


# Characters at the end of a text that are tokenised again to find its last token; no token is near as long.
_TAIL = 64


def _is_clean(text: str) -> bool:
    """Whether it is what a token adds to a line: whole characters, no line break."""
    return not {REPLACEMENT, "\n"} & set(text)


def _storable(text: str) -> str:
    return text.encode("utf-8", "replace").decode("utf-8")
