"""From a corpus directory to what the trainer reads: vocabulary and encoded splits, each made once."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

from dg_engine.tokenizer import Tokenizer
from dg_engine.training.corpus import Manifest, build_corpus, documents
from dg_engine.training.encoded import EncodedSplit, encode_split, save_split
from dg_engine.training.projects import SPLITS
from dg_engine.training.tokenizer_training import save_tokenizer, train_tokenizer


class Prepared(NamedTuple):
    """What a run reads."""

    tokenizer: Tokenizer
    train: EncodedSplit
    validation: EncodedSplit


def prepare(directory: Path, vocab_size: int, benchmarks: Iterable[Path], report: Callable[[str], None]) -> Manifest:
    """Make whatever of the corpus is missing: documents, tokenizer, encoded splits.

    Raises:
        EngineError: nothing could be fetched, or a file is malformed.
    """
    manifest = build_corpus(directory, benchmarks, report)
    if not (directory / "tokenizer.json").exists():
        report(f"learning a vocabulary of {vocab_size} tokens")
        save_tokenizer(train_tokenizer((one.text for one in documents(directory, "train")), vocab_size), directory)
    tokenizer = Tokenizer.load(directory)
    for split in SPLITS:
        path = directory / f"{split}.safetensors"
        if not path.exists():
            arrays = encode_split(documents(directory, split), tokenizer, _every(split, report))
            save_split(arrays, path)
        report(f"{split}: {EncodedSplit.load(path).total_tokens:,} tokens")
    return manifest


def load_prepared(directory: Path) -> Prepared:
    """Open what `prepare` made.

    Raises:
        EngineError: something is missing or malformed.
    """
    train, validation = (EncodedSplit.load(directory / f"{split}.safetensors") for split in ("train", "validation"))
    return Prepared(Tokenizer.load(directory), train, validation)


def _every(split: str, report: Callable[[str], None]) -> Callable[[int], None]:
    return lambda done: report(f"{split}: {done} documents encoded") if done % 2560 == 0 else None
