"""A fine-tuning on disk: the files that it was begun with and how the model did before, until it is done.

A run that was stopped continues on those files, however the user's repository has changed since. What is here is the
user's own text, so it is removed when the run ends.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, TypeVar

import msgspec
import numpy as np
from numpy.typing import NDArray

from dg_engine.engine import Engine
from dg_engine.errors import MALFORMED, EngineError
from dg_engine.evaluation.cases import draw_cases
from dg_engine.evaluation.harness import run
from dg_engine.evaluation.systems import ordered
from dg_engine.tokenizer import Tokenizer
from dg_engine.training.corpus import write_json
from dg_engine.training.encoded import EncodedSplit, encode_split, save_split
from dg_engine.training.repository import Repository
from dg_engine.training.sources import Document

DIRECTORY = "run"
"""Within the directory of the result."""

_OPTIONS = "options.json"
_BEFORE = "before.json"
_HELD_OUT = "held_out_documents.json"
_PARTS = ("train", "held_out")
"""Of a repository."""
_MALFORMED = (OSError, *MALFORMED)

_Kind = TypeVar("_Kind")


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """What a run cannot change once it has begun."""

    repository: str
    model: str
    weights: str
    """`adapters.fingerprint` of the model."""
    rank: int
    """0 where all weights are learnt."""
    alpha: float
    diffusion: bool
    exclude: tuple[str, ...]
    cases: int
    seed: int


class Material(NamedTuple):
    """What a run reads."""

    train: EncodedSplit
    held_out: EncodedSplit
    documents: list[Document]
    """The held-out files."""


class Measured(msgspec.Struct, frozen=True, kw_only=True):
    """How a model filled the rests of lines in held-out files, by the checkpoint's own decoding; a number a case."""

    paths: list[str]
    exact: list[float]
    similarity: list[float]


def open_run(
    directory: Path, options: Options, read: Callable[[], Repository], tokenizer: Tokenizer, *, header: bool
) -> Material:
    """Continue the run in a directory, or begin it there.

    Args:
        directory: of the run.
        options: of this call.
        read: the repository, if it is needed.
        tokenizer: of the model.
        header: whether the model is told the paths of files.

    Raises:
        EngineError: the run there has other options, what is there is no run, or the repository is too small.
    """
    if not directory.exists():
        _begin(directory, options, read(), tokenizer, header=header)
    try:
        begun = _decoded(directory / _OPTIONS, Options)
    except _MALFORMED as error:
        raise EngineError(f"{directory}: is no run of a fine-tuning ({error}); give another --out") from error
    for name in Options.__struct_fields__:
        found, asked = getattr(begun, name), getattr(options, name)
        if found != asked:
            raise EngineError(
                f"{directory}: an unfinished run was begun there with another {name} ({found!r}, not {asked!r}); "
                "give the same again to continue it, or another --out, or delete it"
            )
    train, held_out = (EncodedSplit.load(directory / f"{name}.safetensors") for name in _PARTS)
    return Material(train, held_out, _read(directory / _HELD_OUT, list[Document]))


def measure(engine: Engine, documents: list[Document], count: int) -> Measured:
    """Fill so many rests of lines, always the same ones."""
    cases = [case for case in draw_cases(documents, count) if case.kind == "line"]
    outcomes = list(run(engine, cases, ordered(engine.config)[:1]))
    return Measured(
        paths=[case.path for case in cases],
        exact=[outcome.scores.exact for outcome in outcomes],
        similarity=[outcome.scores.similarity for outcome in outcomes],
    )


def measured_before(directory: Path, measure_now: Callable[[], Measured]) -> Measured:
    """How the model did when the run began; measured once."""
    path = directory / _BEFORE
    if not path.exists():
        write_json(path, measure_now())
    return _read(path, Measured)


def _begin(directory: Path, options: Options, repository: Repository, tokenizer: Tokenizer, *, header: bool) -> None:
    """Write everything beside its place and rename it, so that a run that is there is whole."""
    partial = directory.with_name(f"{directory.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    encoded = {name: _encoded(getattr(repository, name), options, tokenizer, header=header) for name in _PARTS}
    # The repository may be one that nobody else on this machine can read.
    partial.mkdir(mode=0o700, parents=True)
    try:
        for name, arrays in encoded.items():
            save_split(arrays, partial / f"{name}.safetensors")
        write_json(partial / _HELD_OUT, repository.held_out)
        write_json(partial / _OPTIONS, options)
        partial.rename(directory)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _encoded(
    documents: list[Document], options: Options, tokenizer: Tokenizer, *, header: bool
) -> dict[str, NDArray[np.generic]]:
    shown = documents if header else [document._replace(path="") for document in documents]
    arrays = encode_split(shown, tokenizer)
    if not len(EncodedSplit(arrays)):
        raise EngineError(f"{options.repository}: its files are too short to learn from")
    return arrays


def _read(path: Path, kind: type[_Kind]) -> _Kind:
    try:
        return _decoded(path, kind)
    except _MALFORMED as error:
        raise EngineError(f"{path}: {error}; delete {path.parent} to begin anew") from error


def _decoded(path: Path, kind: type[_Kind]) -> _Kind:
    return msgspec.json.decode(path.read_bytes(), type=kind)
