"""From a corpus directory to what the trainer reads: vocabulary and encoded splits, each made once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

import msgspec

from dg_engine.tokenizer import Tokenizer
from dg_engine.training.corpus import Manifest, build_corpus, documents, write_json
from dg_engine.training.encoded import EncodedSplit, encode_split, save_split
from dg_engine.training.projects import SPLITS
from dg_engine.training.sources import Document
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
    counts: Counter[str] = Counter()
    for split in SPLITS:
        path = directory / f"{split}.safetensors"
        if not path.exists():
            save_split(encode_split(documents(directory, split), tokenizer, _tally(counts, report)), path)
        report(f"{split}: {EncodedSplit.load(path).total_tokens:,} tokens")
    if counts:
        manifest = with_tokens(manifest, counts)
        write_json(directory / "manifest.json", manifest)
    return manifest


def load_prepared(directory: Path) -> Prepared:
    """Open what `prepare` made.

    Raises:
        EngineError: something is missing or malformed.
    """
    train, validation = (EncodedSplit.load(directory / f"{split}.safetensors") for split in ("train", "validation"))
    return Prepared(Tokenizer.load(directory), train, validation)


def with_tokens(manifest: Manifest, counts: Mapping[str, int]) -> Manifest:
    """The manifest with the projects' numbers of tokens; those that are not counted keep what they had."""
    records = [msgspec.structs.replace(one, tokens=counts.get(one.name, one.tokens)) for one in manifest.projects]
    return msgspec.structs.replace(manifest, projects=records)


def _tally(counts: Counter[str], report: Callable[[str], None]) -> Callable[[Document, int], None]:
    def counted(document: Document, tokens: int) -> None:
        if document.project not in counts:
            report(f"encoding {document.project}")
        counts[document.project] += tokens

    return counted
