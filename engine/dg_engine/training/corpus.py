"""The documents that a model is trained and judged on, and the manifest that says where each came from.

A corpus directory holds `wheels/`, one `documents-<split>.jsonl` a split, and `manifest.json`. It is made in two
stages, each of which is not repeated when its result is there: fetching, and choosing.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from hashlib import sha256
from pathlib import Path

import msgspec

from dg_engine.errors import EngineError
from dg_engine.training.downloads import fetch_wheels
from dg_engine.training.duplicates import Duplicates, benchmark_windows, windows
from dg_engine.training.hygiene import path_fault, text_fault
from dg_engine.training.licences import LicenceRefused
from dg_engine.training.projects import NAMES, SPLITS, Split
from dg_engine.training.sources import Document, Project, open_wheel, read_documents, standard_library

MAX_PROJECT_BYTES = 3_500_000
"""Of one project, so that no house style dominates: the largest would otherwise be a sixth of everything."""
MAX_TEST_SHARE = 0.25
"""Of a project's bytes that may be tests, which repeat themselves."""

Report = Callable[[str], None]
Settings = dict[str, int | float | list[str]]


class ProjectRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One project in the manifest."""

    name: str
    version: str
    licence: str
    split: Split
    files: int
    bytes: int
    dropped: dict[str, int]
    sha256: str
    """Of the concatenated texts that were kept."""
    tokens: int = 0
    """Of the corpus's own vocabulary, once it is learnt."""


class Refused(msgspec.Struct, frozen=True, kw_only=True):
    """A project that is not in the corpus, and why."""

    name: str
    reason: str


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """What a corpus consists of."""

    settings: Settings
    projects: list[ProjectRecord]
    refused: list[Refused]

    def of(self, split: Split) -> list[ProjectRecord]:
        """The projects of a split."""
        return [record for record in self.projects if record.split == split]


def build_corpus(directory: Path, benchmarks: Iterable[Path], report: Report) -> Manifest:
    """Fetch, choose and write the documents of every split.

    Args:
        directory: where everything goes; made if it is not there.
        benchmarks: HumanEval-Infilling files whose solutions the training split must not contain.
        report: told one line per project.

    Raises:
        EngineError: nothing could be fetched, or a file is malformed.
    """
    paths = sorted(benchmarks)
    settings = corpus_settings(paths)
    manifest_path = directory / "manifest.json"
    if manifest_path.exists():
        manifest = read_manifest(directory)
        if manifest.settings == settings:
            report("the corpus is there already")
            return manifest
    projects, refused = _projects(directory / "wheels", report)
    if not any(project.split == "train" for project in projects):
        raise EngineError("no project could be fetched: is the package index reachable?")
    records = _choose(projects, directory, benchmark_windows(paths), report)
    manifest = Manifest(settings=settings, projects=records, refused=refused)
    write_json(manifest_path, manifest)
    return manifest


def corpus_settings(benchmarks: Iterable[Path]) -> Settings:
    """What a corpus was made with: another value means another corpus."""
    return {
        "max_project_bytes": MAX_PROJECT_BYTES,
        "max_test_share": MAX_TEST_SHARE,
        "benchmarks": sorted(path.name for path in benchmarks),
    }


def read_manifest(directory: Path) -> Manifest:
    """The manifest of a corpus.

    Raises:
        EngineError: there is none, or it is malformed.
    """
    try:
        return msgspec.json.decode((directory / "manifest.json").read_bytes(), type=Manifest)
    except (OSError, msgspec.DecodeError) as error:
        raise EngineError(f"{directory}/manifest.json: {error}; run `dg-engine corpus` first") from error


def documents(directory: Path, split: Split) -> Iterator[Document]:
    """The documents of a split, in their order on disk."""
    with (directory / f"documents-{split}.jsonl").open("rb") as lines:
        for line in lines:
            yield msgspec.json.decode(line, type=Document)


def write_json(path: Path, value: object) -> None:
    """Write indented JSON beside its place and rename it, so that nobody reads half of it."""
    partial = path.with_suffix(".partial")
    partial.write_bytes(msgspec.json.format(msgspec.json.encode(value), indent=2) + b"\n")
    partial.replace(path)


def choose(project: Project, known: Duplicates, forbidden: set[int]) -> tuple[list[Document], Counter[str]]:
    """The documents of a project that are fit, new and free of forbidden windows, and what the others lacked."""
    dropped: Counter[str] = Counter()
    fit: list[Document] = []
    for document in read_documents(project):
        fault = path_fault(document.path) or text_fault(document.text)
        if not fault and forbidden and not forbidden.isdisjoint(windows(document.text)):
            fault = "benchmark"
        if fault:
            dropped[fault] += 1
        else:
            fit.append(document)
    kept = []
    for document in _within_budget(fit, dropped):
        if fault := known.fault(document.text):
            dropped[fault] += 1
        else:
            kept.append(document)
    return kept, dropped


def _projects(wheels: Path, report: Report) -> tuple[list[Project], list[Refused]]:
    accepted: list[Project] = []
    refused: list[Refused] = []
    split_of = {name: split for split in SPLITS for name in NAMES[split]}
    for name, wheel, reason in fetch_wheels(list(split_of), wheels):
        if wheel is None:
            refused.append(Refused(name=name, reason=reason))
            continue
        try:
            accepted.append(open_wheel(name, split_of[name], wheel))
        except LicenceRefused as error:
            refused.append(Refused(name=name, reason=str(error)))
            report(f"{name}: left out, {error}")
    return [*accepted, standard_library()], refused


def _choose(projects: list[Project], directory: Path, forbidden: set[int], report: Report) -> list[ProjectRecord]:
    """Held-out projects first: a file that is in two splits stays out of training."""
    known = Duplicates()
    records = []
    for split in reversed(SPLITS):
        partial = directory / f"documents-{split}.partial"
        with partial.open("wb") as lines:
            for project in (one for one in projects if one.split == split):
                kept, dropped = choose(project, known, forbidden if split == "train" else set())
                lines.writelines(msgspec.json.encode(document) + b"\n" for document in kept)
                records.append(_record(project, kept, dropped))
                report(f"{project.name} {project.version}: {len(kept)} files, {project.licence}")
        partial.replace(directory / f"documents-{split}.jsonl")
    return records


def _record(project: Project, kept: list[Document], dropped: Counter[str]) -> ProjectRecord:
    texts = [document.text.encode() for document in kept]
    return ProjectRecord(
        name=project.name,
        version=project.version,
        licence=project.licence,
        split=project.split,
        files=len(kept),
        bytes=sum(map(len, texts)),
        dropped=dict(sorted(dropped.items())),
        sha256=sha256(b"".join(texts)).hexdigest(),
    )


def _within_budget(fit: list[Document], dropped: Counter[str]) -> list[Document]:
    """A random part of a project that is too large, tests last in line; always the same part."""
    tests = [document for document in fit if _is_test(document.path)]
    code = [document for document in fit if not _is_test(document.path)]
    rng = random.Random(0)  # noqa: S311  (a choice of files, not a secret)
    rng.shuffle(code)
    rng.shuffle(tests)
    kept = _first_bytes(code, MAX_PROJECT_BYTES)
    size = sum(len(document.text) for document in kept)
    allowed = min(MAX_PROJECT_BYTES - size, int(size * MAX_TEST_SHARE / (1 - MAX_TEST_SHARE)))
    kept += _first_bytes(tests, allowed)
    dropped["beyond the project's share"] += len(fit) - len(kept)
    return kept


def _first_bytes(candidates: list[Document], limit: int) -> list[Document]:
    kept, size = [], 0
    for document in candidates:
        size += len(document.text)
        if size > limit:
            break
        kept.append(document)
    return kept


def _is_test(path: str) -> bool:
    return any(part in ("test", "tests", "testing") or part.startswith("test_") for part in path.split("/"))
