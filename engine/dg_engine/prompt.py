"""How a file's text before the cursor becomes the encoder's tokens: one rule for training and for use."""

from __future__ import annotations

from pathlib import PurePosixPath

from dg_engine.tokenizer import Tokenizer

PATH_PARTS = 3
"""Trailing components of the path that the model is told: `http/client.py` says more than the user's home directory."""
PATH_TOKENS = 64
"""Of which the last are told: a byte-level vocabulary makes two hundred of a long name in another script."""
CUT_STEP = 128
"""Tokens by which a long prefix is cut at a time, so that the cut, and with it the prefix cache, stays while typing."""

MOST_CHARACTERS = 32
"""Characters per token beyond which a text is cut before it is tokenised; source code has three."""
CUT_CHARACTERS = 4096


def encode_prefix(tokenizer: Tokenizer, path: str, text: str, max_tokens: int) -> list[int]:
    """`<bos>`, the path behind `<|file|>` if there is one, and the end of the text, in at most `max_tokens` ids.

    A text that is too long loses its start, up to the beginning of a line where there is one within a step.
    """
    return encode_behind(tokenizer, encode_header(tokenizer, path), text, max_tokens)


def encode_behind(tokenizer: Tokenizer, header: list[int], text: str, max_tokens: int) -> list[int]:
    """The same behind any header, which stays whole."""
    tokens = tokenizer.encode(_recent(text, max_tokens))
    return header + tokens[_cut(tokenizer, tokens, max_tokens - len(header)) :]


def encode_suffix(tokenizer: Tokenizer, suffix: str, tokens: int) -> list[int]:
    """The first so many tokens of the text behind the cursor; few tokens are longer than 16 characters."""
    return tokenizer.encode(suffix[: 16 * tokens])[:tokens]


def encode_header(tokenizer: Tokenizer, path: str) -> list[int]:
    """What stands before a file's text: `<bos>` alone, or with `<|file|>`, the last parts of the path and a newline."""
    bos = tokenizer.special_id("<bos>")
    if not path:
        return [bos]
    told = tokenizer.encode(short_path(path)[-MOST_CHARACTERS * PATH_TOKENS :])[-PATH_TOKENS:]
    return [bos, tokenizer.special_id("<|file|>"), *told, *tokenizer.encode("\n")]


def short_path(path: str) -> str:
    """The last parts of a path, with slashes."""
    return "/".join(PurePosixPath(path.replace("\\", "/")).parts[-PATH_PARTS:])


def _recent(text: str, max_tokens: int) -> str:
    """The end of a text that is far too long, cut in large steps: nobody tokenises megabytes to keep 512 tokens."""
    excess = len(text) - MOST_CHARACTERS * max_tokens
    return text if excess <= 0 else text[-(-excess // CUT_CHARACTERS) * CUT_CHARACTERS :]


def _cut(tokenizer: Tokenizer, tokens: list[int], budget: int) -> int:
    excess = len(tokens) - budget
    if excess <= 0:
        return 0
    start = -(-excess // CUT_STEP) * CUT_STEP
    newline = tokenizer.with_newline
    window = range(start, min(start + CUT_STEP, len(tokens)))
    return next((index for index in window if newline[tokens[index]]), min(start, len(tokens) - 1))
