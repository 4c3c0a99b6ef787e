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

from dg_engine.errors import EngineError

SPECIAL_TOKENS = ("<pad>", "<eos>", "<bos>", "<|file|>", "<|suffix|>", "<|middle|>")
"""Ids 0 to 5, the first three as `ModelConfig` expects them. The last two frame the suffix for causal infill."""

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
    """Learn a vocabulary of exactly `vocab_size` tokens, all 256 bytes and the special tokens among them."""
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


def with_special_tokens(tokenizer: Tokenizer) -> Tokenizer:
    """The vocabulary of another checkpoint with those of our special tokens that it lacks.

    They take the places of the tokens that were learnt last, which are the rarest, so no other id changes and weights
    learnt with the vocabulary stay right.

    Raises:
        EngineError: it is no byte-level BPE vocabulary, or one of those tokens is part of another.
    """
    state = json.loads(tokenizer.to_str())
    missing = [token for token in SPECIAL_TOKENS if tokenizer.token_to_id(token) is None]
    try:
        vocabulary, merges, added = state["model"]["vocab"], state["model"]["merges"], state["added_tokens"]
        kept = len(merges) - len(missing)
        places = [vocabulary.pop("".join(merge)) for merge in merges[kept:]]
    except (KeyError, TypeError) as error:
        raise EngineError(f"the vocabulary cannot take {', '.join(missing)}: it was not learnt here") from error
    if any(part not in vocabulary for merge in merges[:kept] for part in merge):
        raise EngineError(f"the vocabulary cannot take {', '.join(missing)}: its last tokens are parts of others")
    for token, place in zip(missing, places, strict=True):
        vocabulary[token] = place
        added.append({**added[0], "id": place, "content": token})
    state["model"]["merges"] = merges[:kept]
    return Tokenizer.from_str(json.dumps(state))


def save_tokenizer(tokenizer: Tokenizer, directory: Path) -> None:
    """Write `tokenizer.json`, and the `tokenizer_config.json` by which transformers' AutoTokenizer opens it."""
    directory.mkdir(parents=True, exist_ok=True)
    partial = directory / "tokenizer.partial"
    tokenizer.save(str(partial))
    partial.replace(directory / "tokenizer.json")
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "pad_token": "<pad>",
        "eos_token": "<eos>",
        "bos_token": "<bos>",
        "additional_special_tokens": list(SPECIAL_TOKENS[3:]),
        "clean_up_tokenization_spaces": False,
    }
    (directory / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
