"""The chat around a file: how a model that was trained to answer people is asked to continue one.

    <bos><|turn>user
    what is asked, and the text that comes behind the cursor's line<turn|>
    <|turn>model
    <|channel>thought
    <channel|>```python
    the text up to the cursor

The file is the beginning of the model's answer, so that the canvas continues it. The thought channel is empty: what the
model would think stands in no file. What changes while the user types comes last, and the rest of the cursor's line,
which changes too, is not shown but pinned, so that the prefix cache stays.
"""

from __future__ import annotations

from dg_engine.prompt import encode_suffix, short_path
from dg_engine.tokenizer import Tokenizer

CHAT_TOKENS = ("<|turn>", "<turn|>", "<|channel>", "<channel|>")
FENCE = "```"


def can_chat(tokenizer: Tokenizer) -> bool:
    """Whether the vocabulary has the tokens of a chat."""
    return all(tokenizer.backend.token_to_id(token) is not None for token in CHAT_TOKENS)


def encode_chat(tokenizer: Tokenizer, message: str) -> list[int]:
    """A chat up to where the model's answer begins. Text in the message that looks like a special token stays text.

    Raises:
        CheckpointError: the vocabulary has no tokens for it.
    """
    turn, end_turn, channel, end_channel = map(tokenizer.special_id, CHAT_TOKENS)
    encode = tokenizer.encode
    user = [turn, *encode(f"user\n{message.strip()}"), end_turn, *encode("\n")]
    model = [turn, *encode("model\n"), channel, *encode("thought\n"), end_channel]
    return [tokenizer.special_id("<bos>"), *user, *model]


def encode_file_chat(tokenizer: Tokenizer, path: str, language: str, suffix: str, max_shown: int) -> list[int]:
    """A chat up to where the text of a file begins, as the model's answer.

    Args:
        tokenizer: of a checkpoint that can chat.
        path: of the file; its last parts are told.
        language: for the code block, such as `python`; may be empty.
        suffix: the text behind the cursor.
        max_shown: tokens of it that are shown at most, in whole lines.
    """
    name = f" {short_path(path)}" if path else ""
    shown = _whole_lines(tokenizer, suffix.partition("\n")[2], max_shown)
    if shown:
        message = (
            f"Write the file{name} up to the text below, which is there already and follows yours.\n\n"
            f"{FENCE}{language}\n{shown}{FENCE}\n\n"
            "Answer with nothing but your text, in one code block."
        )
    else:
        message = f"Write the file{name}. Answer with nothing but its text, in one code block."
    return encode_chat(tokenizer, message) + tokenizer.encode(f"{FENCE}{language}\n")


def _whole_lines(tokenizer: Tokenizer, text: str, tokens: int) -> str:
    """The lines that so many tokens hold; a last line without an end counts if it is the text's last."""
    known = encode_suffix(tokenizer, text, tokens)
    shown = tokenizer.decode(known)
    if not text.startswith(shown) or len(shown) < len(text):
        shown = shown[: shown.rfind("\n") + 1]
    return shown if not shown or shown.endswith("\n") else shown + "\n"
