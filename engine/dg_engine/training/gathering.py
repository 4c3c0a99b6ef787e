"""The first stage of a corpus: the documents of every project, each project finished once and for all.

A project's record carries a key: a digest of its source, of the rules and of the record before it, since what
counts as a duplicate depends on all that came before. A build that was killed finds the records and goes on from there.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

import msgspec

from dg_engine import __version__
from dg_engine.errors import MALFORMED
from dg_engine.training.corpus import ProjectRecord, digest, project_file, sha256_of, write_json
from dg_engine.training.decontamination import Benchmarks
from dg_engine.training.duplicates import Duplicates, Sketch
from dg_engine.training.licences import LicenceRefused
from dg_engine.training.selection import Rules, Selection, totals
from dg_engine.training.sources import Source, about, open_source, stamp


class Progress(NamedTuple):
    """How far a build is."""

    stage: str
    done: int
    total: int
    note: str
    """What was done last, for people."""


Report = Callable[[Progress], None]


class Gathered(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a project, as it is written beside its documents."""

    key: str
    name: str
    project: ProjectRecord | None = None
    """None for a project that was refused."""
    refused: str = ""
    bytes: dict[str, int] = {}
    """Of the documents in each language."""
    dropped: dict[str, list[str]] = {}
    """Paths of the files that are no documents, by the reason."""


def gather(
    directory: Path, sources: Sequence[Source], rules: Rules, settings: object, report: Report
) -> list[Gathered]:
    """Choose the documents of all projects, in the order given, and write them below `projects`.

    Args:
        directory: of the corpus.
        sources: held-out projects first: a file that is in two splits stays out of training.
        rules: what makes a document.
        settings: all that the rules were made from, as JSON holds it.
        report: told of every project.
    """
    known = Duplicates()
    gathered: list[Gathered] = []
    # What parses depends on the interpreter too.
    key = digest([__version__, sys.version_info[:2], settings])
    for done, source in enumerate(sources, start=1):
        key = digest([key, source.name, source.kind, source.split, stamp(source)])
        place = project_file(directory, source.split, source.name, ".json")
        record = _finished(place, key, known)
        if record is None:
            record = _choose(source, key, place, known, rules)
            write_json(place, record)
        gathered.append(record)
        report(Progress("choosing", done, len(sources), f"{source.name}: {_outcome(record)}"))
    return gathered


def _finished(place: Path, key: str, known: Duplicates) -> Gathered | None:
    """The record of a project that was gathered before, its documents known again; None if anything of it is gone or
    is not what it was."""
    try:
        record = msgspec.json.decode(place.read_bytes(), type=Gathered)
        if record.key != key:
            return None
        if record.project is not None:
            if sha256_of(_beside(place, ".jsonl")) != record.project.sha256:
                return None
            for sketched in msgspec.msgpack.decode(_beside(place, ".sketches").read_bytes(), type=list[Sketch]):
                known.remember(sketched)
    except (OSError, *MALFORMED):
        return None
    return record


def _choose(source: Source, key: str, place: Path, known: Duplicates, rules: Rules) -> Gathered:
    place.parent.mkdir(parents=True, exist_ok=True)
    place.unlink(missing_ok=True)
    if source.split != "train":
        rules = replace(rules, benchmarks=Benchmarks())
    try:
        with open_source(source) as tree:
            version, licence = about(source, tree)
            selection = Selection(source.name, tree, known, rules)
            sizes, written = _write_documents(selection, place)
    except LicenceRefused as error:
        return Gathered(key=key, name=source.name, refused=str(error))
    _beside(place, ".sketches").write_bytes(msgspec.msgpack.encode(selection.sketches))
    project = ProjectRecord(
        name=source.name,
        version=version,
        licence=licence,
        split=source.split,
        source=source.kind,
        files=len(selection.sketches),
        bytes=sum(sizes.values()),
        dropped=totals(selection.dropped),
        sha256=written,
    )
    return Gathered(key=key, name=source.name, project=project, bytes=sizes, dropped=selection.dropped)


def _write_documents(selection: Selection, place: Path) -> tuple[dict[str, int], str]:
    """Write a project's documents one by one; returns their bytes in each language and the file's digest."""
    sizes: Counter[str] = Counter()
    written = sha256()
    partial = _beside(place, ".partial")
    with partial.open("wb") as lines:
        for document in selection.documents():
            line = msgspec.json.encode(document) + b"\n"
            lines.write(line)
            written.update(line)
            sizes[document.language] += len(document.text.encode())
    partial.replace(_beside(place, ".jsonl"))
    return dict(sorted(sizes.items())), written.hexdigest()


def _beside(place: Path, suffix: str) -> Path:
    return place.with_name(place.name.removesuffix(".json") + suffix)


def _outcome(record: Gathered) -> str:
    if record.project is None:
        return f"left out, {record.refused}"
    return f"{record.project.files} files, {record.project.licence}"
