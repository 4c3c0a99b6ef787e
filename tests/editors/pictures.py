"""The pictures in the documents, made anew by `make pictures`: real editors, the real engine, the model that ships."""

from __future__ import annotations

import io
import os
import tempfile
from pathlib import Path

import pictures_vscode
from desk import SERVER, Desk, launch
from driver_neovim import Neovim
from engines import UNSURE
from rich.console import Console
from rich.text import Text
from terminal import COLUMNS

from dg_engine.testing import health_of
from dg_lsp.demo import svg_of

PICTURES = Path(__file__).parents[2] / ".github"
ROWS = 24


def main() -> None:
    """Make all of them."""
    pictures_vscode.main(PICTURES)
    with tempfile.TemporaryDirectory(prefix="dg", ignore_cleanup_errors=True) as base:
        os.environ["XDG_RUNTIME_DIR"] = f"{base}/run"
        editor = launch("Neovim 0.12", Path(base), SERVER, minProbability=0, minScore=UNSURE, multiLine="never")
        assert isinstance(editor, Neovim)
        try:
            terminal(editor, PICTURES / "neovim.svg")
        finally:
            editor.close()
            os.kill(health_of("").pid, 15)


def terminal(editor: Neovim, path: Path) -> None:
    """Ghost text in a terminal, its coloured screen drawn as SVG."""
    Desk(editor, "job_queue").open(pictures_vscode.TEXT)
    editor.command("cd %:h")  # the status line names the file, and not where this machine keeps it
    editor.type(pictures_vscode.TYPED)
    editor.wait_for_ghost()
    with tempfile.TemporaryDirectory() as directory:
        screen = editor.capture(Path(directory) / "screen").read_text(encoding="utf-8")
    console = Console(record=True, width=COLUMNS, file=io.StringIO())
    console.print(Text.from_ansi("\n".join(screen.split("\n")[-ROWS - 2 :])))
    path.write_text(svg_of(console, editor.name), encoding="utf-8")


if __name__ == "__main__":
    main()
