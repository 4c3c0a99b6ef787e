"""Which files of a project become documents."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Generator, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath

from dg_engine.training.decontamination import Benchmarks
from dg_engine.training.duplicates import Duplicates, Sketch, sketch
from dg_engine.training.hygiene import MAX_BYTES, path_fault, text_fault
from dg_engine.training.languages import language_of, language_of_headers
from dg_engine.training.metadata import restricted_folders
from dg_engine.training.sources import Document, unit_digest
from dg_engine.training.trees import UNREADABLE, Tree

MAX_PROJECT_BYTES = 3_500_000
"""Of one project, so that no house style dominates: the largest would otherwise be a sixth of everything."""
MAX_TEST_SHARE = 0.25
"""Of a project's bytes that may be tests, which repeat themselves."""

BEYOND = "beyond the project's share"
"""Why a file is left out, read or unread, once its project has enough."""

_TEST_DATA = frozenset(("bad_coding", "cjkencodings", "fixtures", "snapshots", "test_data", "testdata"))
_TEST_FOLDERS = frozenset(("__tests__", "spec", "test", "testing", "tests"))
_TEST_NAME = re.compile(r"test_.*|.*(?:_test|[.-](?:test|spec))\.\w+|.*Tests?\.java|conftest\.py")


@dataclass(frozen=True, kw_only=True, slots=True)
class Rules:
    """What holds for the files of every project."""

    languages: frozenset[str]
    """Names of `languages.LANGUAGES`; files in others are not looked at."""
    max_bytes: int = MAX_PROJECT_BYTES
    benchmarks: Benchmarks = field(default_factory=Benchmarks)
    """What the training split must not hold."""


class Selection:
    """The documents of one project, one at a time: no more than one file is in memory."""

    def __init__(self, project: str, tree: Tree, known: Duplicates, rules: Rules) -> None:
        self._project, self._tree, self._known, self._rules = project, tree, known, rules
        self._sizes = tree.sizes()
        self._headers = language_of_headers(self._sizes)
        self._restricted = restricted_folders(tree)
        self.sketches: list[Sketch] = []
        """Of the documents so far."""
        self.dropped: defaultdict[str, list[str]] = defaultdict(list)
        """Paths of files that are no documents, by the reason."""

    def documents(self) -> Iterator[Document]:
        """The files that are fit, new and within the project's share.

        They come in an order as if random but always the same, tests last, so that a project that is too large gives
        an even part of itself.
        """
        ordered = sorted(self._candidates(), key=unit_digest)
        limit = self._rules.max_bytes
        used = yield from self._within((path for path in ordered if not is_test(path)), limit)
        allowed = int(used * MAX_TEST_SHARE / (1 - MAX_TEST_SHARE))
        yield from self._within((path for path in ordered if is_test(path)), min(allowed, limit - used))

    def _within(self, paths: Iterable[str], limit: int) -> Generator[Document, None, int]:
        """The documents of the first files that have at most so many bytes together; returns the bytes."""
        used, full = 0, False
        for path in paths:
            full = full or used + self._sizes[path] > limit
            if full:
                self.dropped[BEYOND].append(path)
            elif document := self._fit(path):
                used += self._sizes[path]
                yield document
        return used

    def _candidates(self) -> Iterator[str]:
        for path, size in self._sizes.items():
            if language_of(path, self._headers) in self._rules.languages:
                if fault := path_fault(path) or _place_fault(path, size) or self._folder_fault(path):
                    self.dropped[fault].append(path)
                else:
                    yield path

    def _folder_fault(self, path: str) -> str:
        folders = map(PurePosixPath.as_posix, PurePosixPath(path).parents)
        return "" if self._restricted.isdisjoint(folders) else "licence of its folder"

    def _fit(self, path: str) -> Document | None:
        """The document of a file, unless it has a fault."""
        try:
            raw = self._tree.read(path)
            text = raw.decode("utf-8").removeprefix("\ufeff").replace("\r\n", "\n")
        except UNREADABLE:
            self.dropped["unreadable"].append(path)
            return None
        language = language_of(path, self._headers)
        if fault := text_fault(text, language) or self._likeness(text):
            self.dropped[fault].append(path)
            return None
        return Document(self._project, path, text, language)

    def _likeness(self, text: str) -> str:
        """What a text is too much like, if anything; if nothing, it is known from now on."""
        if self._rules.benchmarks.leak_into(text):
            return "benchmark"
        sketched = sketch(text)
        if fault := self._known.fault_of(sketched):
            return fault
        self.sketches.append(sketched)
        return ""


def is_test(path: str) -> bool:
    """Whether a file is a test, by where it lies and what it is called."""
    pure = PurePosixPath(path)
    return bool(_TEST_FOLDERS.intersection(pure.parts[:-1])) or _TEST_NAME.fullmatch(pure.name) is not None


def is_test_data(path: str) -> bool:
    """Whether a file is what tests read, deliberately broken or huge. A folder `data` is that below tests alone."""
    folders = set(PurePosixPath(path).parts[:-1])
    return bool(_TEST_DATA & folders) or ("data" in folders and bool(_TEST_FOLDERS & folders))


def _place_fault(path: str, size: int) -> str:
    if is_test_data(path):
        return "test data"
    return "too long" if size > MAX_BYTES else ""


def totals(dropped: Mapping[str, list[str]]) -> dict[str, int]:
    """How many files were left out for each reason."""
    return {reason: len(paths) for reason, paths in sorted(dropped.items())}
