"""What a corpus directory holds, and the manifest that says where each document came from.

manifest.json            written last, so that what it names is whole
tokenizer.json           with its `tokenizer_config.json`
wheels/                  what the package index gave
projects/SPLIT/NAME.*    the chosen documents of a project, their sketches, and `.json` once it is finished
shards/SPLIT/NAME.safetensors   the same as tokens
"""

from __future__ import annotations

from collections.abc import Iterator
from hashlib import file_digest, sha256
from pathlib import Path

import msgspec

from dg_engine.errors import MALFORMED, EngineError
from dg_engine.training.projects import Split
from dg_engine.training.sources import Document, SourceKind

Settings = dict[str, int | float | str | list[str] | dict[str, float]]


class ProjectRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One project in the manifest."""

    name: str
    version: str
    licence: str
    split: Split
    files: int
    bytes: int
    dropped: dict[str, int]
    """How many files were left out for each reason; their names are in the project's own record."""
    sha256: str
    """Of the file of its documents."""
    tokens: int = 0
    """Of the documents that are long enough to learn from."""
    source: SourceKind = "index"
    languages: dict[str, int] = {}
    """Tokens in each language."""
    shard: str = ""
    """What its shard was made from, as a digest."""


class Refused(msgspec.Struct, frozen=True, kw_only=True):
    """A project that is not in the corpus, and why."""

    name: str
    reason: str


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """What a corpus consists of."""

    settings: Settings
    projects: list[ProjectRecord]
    refused: list[Refused]
    tokenizer: str = ""
    """SHA-256 of `tokenizer.json`."""
    kept: dict[str, float] = {}
    """The share of each language's training documents that is in the shards; below 1 where there was too much of it."""

    def of(self, split: Split) -> list[ProjectRecord]:
        """The projects of a split."""
        return [record for record in self.projects if record.split == split]


def read_manifest(directory: Path) -> Manifest:
    """The manifest of a corpus.

    Raises:
        EngineError: there is none, or it is malformed.
    """
    try:
        return msgspec.json.decode((directory / "manifest.json").read_bytes(), type=Manifest)
    except (OSError, *MALFORMED) as error:
        raise EngineError(f"{directory}/manifest.json: {error}; run `dg-engine corpus build` first") from error


def documents(directory: Path, split: Split) -> Iterator[Document]:
    """The documents of a split, in the order of the manifest.

    Raises:
        EngineError: there is no corpus, or its documents are of another build than its manifest.
        OSError: a file of it is missing.
    """
    for record in read_manifest(directory).of(split):
        path = project_file(directory, split, record.name, ".jsonl")
        if sha256_of(path) != record.sha256:
            raise EngineError(f"{path}: is of another build than the manifest; run `dg-engine corpus build` to its end")
        yield from read_documents(path)


def read_documents(path: Path) -> Iterator[Document]:
    """The documents in a file of one JSON array a line."""
    with path.open("rb") as lines:
        for line in lines:
            yield msgspec.json.decode(line, type=Document)


def sha256_of(path: Path) -> str:
    """Of a file's content, as records hold it."""
    with path.open("rb") as file:
        return file_digest(file, "sha256").hexdigest()


def project_file(directory: Path, split: Split, name: str, suffix: str) -> Path:
    """Where a file of a project lies."""
    return directory / "projects" / split / f"{name}{suffix}"


def shard_file(directory: Path, split: Split, name: str) -> Path:
    """Where the tokens of a project lie."""
    return directory / "shards" / split / f"{name}.safetensors"


def write_json(path: Path, value: object) -> None:
    """Write indented JSON beside its place and rename it, so that nobody reads half of it."""
    partial = path.with_suffix(".partial")
    partial.write_bytes(msgspec.json.format(msgspec.json.encode(value), indent=2) + b"\n")
    partial.replace(path)


def digest(value: object) -> str:
    """The SHA-256 of anything that JSON can hold."""
    return sha256(msgspec.json.encode(value, order="sorted")).hexdigest()
