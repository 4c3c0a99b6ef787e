"""From sources to what the trainer reads, in stages: fetch, choose, mix, learn a vocabulary, encode.

Every stage leaves what it has finished on disk beside a digest of what it was made from, and takes it from there the
next time. So a build can be killed at any moment; started again it goes on, and ends in the same bytes.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

import msgspec

from dg_engine import __version__
from dg_engine.errors import EngineError
from dg_engine.tokenizer import Tokenizer
from dg_engine.training.corpus import (
    Manifest,
    ProjectRecord,
    Refused,
    Settings,
    digest,
    read_manifest,
    shard_file,
    write_json,
)
from dg_engine.training.decontamination import Benchmarks, digests
from dg_engine.training.downloads import fetch_wheels
from dg_engine.training.encoded import EncodedSplit, Shard, encode_split, save_split
from dg_engine.training.gathering import Progress, Report, gather
from dg_engine.training.mixture import PYTHON_ALONE, Mixture, kept_shares
from dg_engine.training.projects import Split
from dg_engine.training.selection import MAX_PROJECT_BYTES, MAX_TEST_SHARE, Rules
from dg_engine.training.sources import Source
from dg_engine.training.tokenizer_training import save_tokenizer, train_tokenizer


@dataclass(frozen=True, kw_only=True, slots=True)
class Recipe:
    """What a corpus is made of."""

    sources: Sequence[Source]
    vocabulary: int
    """Tokens to learn."""
    tokenizer: Path | None = None
    """A checkpoint whose vocabulary is taken instead: what is to be trained further must keep its own."""
    shares: Mapping[str, float] = field(default_factory=lambda: PYTHON_ALONE)
    """Of each language in the training split's bytes; files in others are not looked at."""
    benchmarks: Sequence[Path] = ()
    """Files of benchmarks whose solutions the training split must not hold."""
    max_project_bytes: int = MAX_PROJECT_BYTES

    def settings(self) -> Settings:
        """All but the sources, as JSON holds it."""
        return {
            "max_project_bytes": self.max_project_bytes,
            "max_test_share": MAX_TEST_SHARE,
            "benchmarks": sorted(path.name for path in self.benchmarks),
            "shares": dict(self.shares),
            "vocabulary": self.vocabulary,
            "tokenizer": "" if self.tokenizer is None else self.tokenizer.name,
        }


class Prepared(NamedTuple):
    """What a run reads."""

    tokenizer: Tokenizer
    train: EncodedSplit
    validation: EncodedSplit
    digest: str
    """SHA-256 of the `tokenizer.json`."""


# What the vocabulary was learnt from, as a digest.
_VOCABULARY = "vocabulary.json"


def prepare(directory: Path, recipe: Recipe, report: Report) -> Manifest:
    """Make whatever of a corpus is missing.

    Raises:
        EngineError: there is nothing to learn from, or a source, a benchmark or a vocabulary cannot be read.
    """
    fetched, missing = _fetch(recipe.sources, directory / "wheels", report)
    benchmarks = Benchmarks.read(recipe.benchmarks)
    rules = Rules(languages=frozenset(recipe.shares), max_bytes=recipe.max_project_bytes, benchmarks=benchmarks)
    ruled = [recipe.max_project_bytes, sorted(recipe.shares), digests(recipe.benchmarks)]
    gathered = gather(directory, fetched, rules, ruled, report)
    projects = [one.project for one in gathered if one.project is not None]
    sizes = sum(
        (Counter(one.bytes) for one in gathered if one.project and one.project.split == "train"), Counter[str]()
    )
    mixture = Mixture(kept_shares(sizes, recipe.shares))
    if recipe.tokenizer is None:
        _learn_vocabulary(directory, projects, mixture, recipe.vocabulary, report)
    else:
        (directory / _VOCABULARY).unlink(missing_ok=True)
        save_tokenizer(Tokenizer.load(recipe.tokenizer).backend, directory)
    manifest = Manifest(
        settings=recipe.settings(),
        projects=_encode(directory, projects, mixture, report),
        refused=[*missing, *(Refused(name=one.name, reason=one.refused) for one in gathered if one.refused)],
        tokenizer=_tokenizer_digest(directory),
        kept=dict(mixture.kept),
    )
    write_json(directory / "manifest.json", manifest)
    return manifest


def load_prepared(directory: Path) -> Prepared:
    """Open what `prepare` made.

    Raises:
        EngineError: something is missing, malformed, or of another build than the manifest.
    """
    manifest = read_manifest(directory)
    tokenizer = Tokenizer.load(directory)
    if manifest.tokenizer != _tokenizer_digest(directory):
        raise EngineError(
            f"{directory}: has another vocabulary than its manifest; run `dg-engine corpus build` to its end"
        )
    train, validation = _open(directory, manifest, "train"), _open(directory, manifest, "validation")
    return Prepared(tokenizer, train, validation, manifest.tokenizer)


def _open(directory: Path, manifest: Manifest, split: Split) -> EncodedSplit:
    return EncodedSplit(
        *(Shard.open(shard_file(directory, split, one.name), one.shard) for one in manifest.of(split) if one.tokens)
    )


def _fetch(sources: Sequence[Source], wheels: Path, report: Report) -> tuple[list[Source], list[Refused]]:
    """The sources with a wheel for each name in the package index, and those that it does not have."""
    names = [source.name for source in sources if source.kind == "index"]
    found: dict[str, Path] = {}
    missing = []
    for done, one in enumerate(fetch_wheels(names, wheels), start=1):
        if one.wheel is None:
            missing.append(Refused(name=one.name, reason=one.reason))
        else:
            found[one.name] = one.wheel
        report(Progress("fetching", done, len(names), f"{one.name}: {one.wheel.name if one.wheel else one.reason}"))
    there = [one._replace(path=found.get(one.name, one.path)) for one in sources]
    return [one for one in there if one.kind != "index" or one.path is not None], missing


def _learn_vocabulary(
    directory: Path, projects: Sequence[ProjectRecord], mixture: Mixture, size: int, report: Report
) -> None:
    """Have the vocabulary of the training split in `tokenizer.json`."""
    training = [one for one in projects if one.split == "train"]
    made_from = directory / _VOCABULARY
    key = digest([__version__, size, mixture.kept, [[one.name, one.sha256] for one in training]])
    if (directory / "tokenizer.json").exists() and made_from.exists() and json.loads(made_from.read_bytes()) == key:
        report(Progress("vocabulary", 1, 1, f"{size:,} tokens, there already"))
        return
    report(Progress("vocabulary", 0, 1, f"learning {size:,} tokens"))
    made_from.unlink(missing_ok=True)
    texts = (one.text for project in training for one in mixture.documents(directory, project))
    save_tokenizer(train_tokenizer(texts, size), directory)
    write_json(made_from, key)
    report(Progress("vocabulary", 1, 1, f"{size:,} tokens"))


def _encode(
    directory: Path, projects: Sequence[ProjectRecord], mixture: Mixture, report: Report
) -> list[ProjectRecord]:
    """Have a shard of every project; returns the records with their numbers of tokens."""
    tokenizer = Tokenizer.load(directory)
    vocabulary = _tokenizer_digest(directory)
    records = []
    for done, project in enumerate(projects, start=1):
        path = shard_file(directory, project.split, project.name)
        kept = mixture.kept if project.split == "train" else None
        key = digest([__version__, project.name, project.sha256, vocabulary, kept])
        shard = _shard_there(path, key)
        if shard is None:
            save_split(encode_split(mixture.documents(directory, project), tokenizer), path, key)
            shard = Shard.open(path, key)
        languages = shard.tokens_by_language()
        records.append(msgspec.structs.replace(project, tokens=sum(languages.values()), languages=languages, shard=key))
        report(Progress("encoding", done, len(projects), f"{project.name}: {records[-1].tokens:,} tokens"))
    return records


def _shard_there(path: Path, key: str) -> Shard | None:
    try:
        return Shard.open(path, key)
    except EngineError:
        return None


def _tokenizer_digest(directory: Path) -> str:
    return sha256((directory / "tokenizer.json").read_bytes()).hexdigest()
