"""Learning a byte-level BPE vocabulary for code.

Pieces that merges never cross: a line break with all the indentation behind it; a word with at most one space or
underscore before it; one digit; up to four signs; quotes; a run of blanks. Newline and indentation as one token make
the start of a line cheap, and a token never spans two lines, so a hole can begin and end at any of them.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

SPECIAL_TOKENS = ("<pad>", "<eos>", "<bos>", "<|file|>")
"""Ids 0 to 3, the first three as `ModelConfig` expects them."""

PIECES = (
    r"\r?\n[ \t]*",
    r" ?__\p{L}+__",
    r"[ _]?\p{L}+",
    r" ?\p{N}",
    r" ?(?:\"{3}|'{3}|[\"'])",
    r" ?[^\s\p{L}\p{N}_\"']{1,4}",
    r"_+",
    r"[ \t]+",
    r"\s",
)


def train_tokenizer(texts: Iterable[str], vocab_size: int) -> Tokenizer:
    """Learn a vocabulary of `vocab_size` tokens, all 256 bytes and the special tokens among them; of fewer where no
    more can be joined of what the texts repeat."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex("|".join(PIECES)), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def save_tokenizer(tokenizer: Tokenizer, directory: Path) -> None:
    """Write `tokenizer.json`, and the `tokenizer_config.json` by which transformers' AutoTokenizer opens it.

    Raises:
        OSError: it cannot be written; `Tokenizer.save` would raise a bare `Exception`.
    """
    directory.mkdir(parents=True, exist_ok=True)
    partial = directory / "tokenizer.partial"
    partial.write_bytes(tokenizer.to_str(pretty=True).encode())
    partial.replace(directory / "tokenizer.json")
    special = [token.content for token in tokenizer.get_added_tokens_decoder().values()]
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "pad_token": "<pad>",
        "eos_token": "<eos>",
        "bos_token": "<bos>",
        "additional_special_tokens": [token for token in special if token not in SPECIAL_TOKENS[:3]],
        "clean_up_tokenization_spaces": False,
    }
    (directory / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
