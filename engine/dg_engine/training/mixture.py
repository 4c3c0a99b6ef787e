"""How much of each language is learnt from: where there is too much of one, a part of its documents is left aside."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from dg_engine.errors import EngineError
from dg_engine.training.corpus import ProjectRecord, project_file, read_documents
from dg_engine.training.languages import LANGUAGE_NAMES
from dg_engine.training.sources import Document, unit_digest

PYTHON_ALONE = {"python": 1.0}


def read_shares(texts: Iterable[str]) -> dict[str, float]:
    """Shares written as `LANGUAGE=WEIGHT`, made to sum to 1; Python alone where none is given.

    Raises:
        EngineError: a language is unknown, or a weight is no positive number.
    """
    weights: dict[str, float] = {}
    for text in texts:
        language, _, weight = text.partition("=")
        if language not in LANGUAGE_NAMES:
            raise EngineError(
                f"--share {text}: expected LANGUAGE=WEIGHT, the language one of {', '.join(LANGUAGE_NAMES)}"
            )
        try:
            weights[language] = float(weight)
        except ValueError as error:
            raise EngineError(f"--share {text}: {weight!r} is no number") from error
        if not 0 < weights[language] < float("inf"):
            raise EngineError(f"--share {text}: the weight must be above 0")
    total = sum(weights.values())
    return {language: weight / total for language, weight in sorted(weights.items())} or PYTHON_ALONE


def kept_shares(sizes: Mapping[str, int], shares: Mapping[str, float]) -> dict[str, float]:
    """The part of each language's documents that makes their bytes stand in the given proportion, as large as possible.

    Raises:
        EngineError: there is nothing in one of the languages.
    """
    if missing := [language for language in shares if not sizes.get(language)]:
        raise EngineError(
            f"no training file in {', '.join(missing)} was found: name more sources, or leave out its --share"
        )
    total = min(sizes[language] / share for language, share in shares.items())
    return {language: min(1.0, total * share / sizes[language]) for language, share in shares.items()}


class Mixture(NamedTuple):
    """Which of the chosen documents are learnt from."""

    kept: Mapping[str, float]
    """Of each language's training documents, by `kept_shares`."""

    def documents(self, directory: Path, project: ProjectRecord) -> Iterator[Document]:
        """A project's documents without those left aside: always the same ones. Other splits than `train` are whole."""
        for document in read_documents(project_file(directory, project.split, project.name, ".jsonl")):
            draw = unit_digest(f"{document.project}/{document.path}")
            if project.split != "train" or draw < self.kept[document.language]:
                yield document
