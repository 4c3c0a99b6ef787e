"""What writes into a folder has it for itself: a second command says so and touches nothing."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from dg_engine.cli import main
from dg_engine.testing import tiny_checkpoint
from dg_engine.training.alone import alone_in


@pytest.fixture
def words(tmp_path: Path, library_corpus: Path) -> dict[str, list[str]]:
    """The commands that write into a folder, without the folder."""
    code = tmp_path / "code"
    code.mkdir()
    (code / "LICENSE").write_text("MIT", encoding="utf-8")
    return {
        "build": ["corpus", "build", str(code), "--directory"],
        "train": ["train", "--corpus", str(library_corpus), "--minutes", "0.01", "--mode", "eager", "--run"],
        "finetune": ["finetune", str(code), "--model", str(tiny_checkpoint(tmp_path / "base")), "--out"],
    }


@pytest.mark.parametrize("command", ["build", "train", "finetune"])
def test_a_second_command_is_refused_the_folder_of_one_that_is_at_work(
    command: str, words: dict[str, list[str]], tmp_path: Path
) -> None:
    place = tmp_path / "place"
    with alone_in(place):
        refused = CliRunner().invoke(main, [*words[command], str(place)])
    assert (refused.exit_code, refused.output.splitlines()[-1]) == (
        1,
        f"Error: {place}: another process is at work there; wait for it, or choose another",
    )
    assert list(place.iterdir()) == []
    with alone_in(place):
        """It is free again."""
