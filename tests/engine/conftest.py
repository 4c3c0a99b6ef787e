"""What several tests of the engine use."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from dg_engine.model import DiffusionGemma
from dg_engine.testing import tiny_model
from dg_engine.training.corpus_command import corpus


@pytest.fixture
def without_gradients() -> Iterator[None]:
    with torch.no_grad():
        yield


@pytest.fixture(scope="module")
def model() -> DiffusionGemma:
    """In fp64: in fp32 two loops round differently, and after some steps that may be another token."""
    return tiny_model().double()


@pytest.fixture(scope="session")
def library_corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A built corpus: one project to learn from, one to validate on, one held out."""
    directory = tmp_path_factory.mktemp("library")
    sources = [str(folder) for folder in _write_projects(directory)]
    splits = ["--validation", "some-validation", "--held-out", "some-held_out"]
    building = ["build", *sources, *splits, "--directory", str(directory / "corpus")]
    made = CliRunner().invoke(corpus, building, catch_exceptions=False)
    assert made.exit_code == 0
    assert "encoding 3/3" in made.output
    return directory / "corpus"


def _write_projects(directory: Path) -> list[Path]:
    """Three projects out of the standard library, enough to learn 4,096 tokens from."""
    library = sorted(Path(json.__file__).parents[1].glob("[a-t]*.py"))
    projects = {
        "python-standard-library": library[:80],
        "some-validation": library[80:84],
        "some-held_out": library[84:88],
    }
    for name, files in projects.items():
        (directory / name).mkdir()
        (directory / name / "LICENSE").write_text("PYTHON SOFTWARE FOUNDATION LICENSE VERSION 2\n", encoding="utf-8")
        for file in files:
            shutil.copyfile(file, directory / name / file.name)
    return [directory / name for name in projects]
