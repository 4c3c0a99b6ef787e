"""What the Vim plugin does beyond the scenarios of all editors."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from desk import SCRIPT, SERVER, Desk, launch
from driver_vim import EDITORS, PLUGIN, Vim

HEAD = "def area(width, height):\n    "
README = (PLUGIN / "README.md").read_text(encoding="utf-8")

pytestmark = pytest.mark.skipif(
    (missing := EDITORS[Vim.name].missing()) is not None, reason=f"Vim is not here ({missing}): make editors"
)


@pytest.fixture(scope="module")
def vim() -> Iterator[Vim]:
    """Vim with the scripted engine."""
    with tempfile.TemporaryDirectory(prefix="dg", ignore_cleanup_errors=True) as base:
        editor = launch(Vim.name, Path(base), [*SERVER, "--backend", "scripted", "--script", str(SCRIPT)])
        assert isinstance(editor, Vim)
        try:
            yield editor
        finally:
            editor.close()


@pytest.fixture
def desk(vim: Vim, request: pytest.FixtureRequest) -> Desk:
    """Vim and a file of the test's own, before a statement."""
    desk = Desk(vim, request.node.originalname)
    desk.open(HEAD + "|\n")
    return desk


def accepting_words_leaves(desk: Desk, whole: str, *rests: str) -> None:
    """The ghost text is `whole`, and behind each word that is accepted the next of the rests."""
    desk.editor.wait_for_ghost(whole)
    for rest in rests:
        desk.editor.accept_word()
        desk.editor.wait_for_ghost(rest)


def test_each_accepted_part_is_one_step_of_undo(desk: Desk) -> None:
    desk.editor.type("return ")
    accepting_words_leaves(desk, "width * height", " * height", " height")
    for text in ("width", ""):
        desk.editor.undo()
        desk.editor.wait_for_text(f"{HEAD}return {text}\n")


def test_asked_by_hand_each_press_shows_the_next_of_several_completions(desk: Desk) -> None:
    desk.shows_the_next_by_hand()


def test_letters_of_any_script_are_parts_of_words(desk: Desk) -> None:
    desk.editor.type("name = ")
    accepting_words_leaves(desk, "größe_2 + maß(x)", " + maß(x)", " maß(x)")


def test_a_key_that_is_mapped_already_is_left_alone(vim: Vim) -> None:
    vim.command("inoremap <Tab> mine")
    try:
        vim.command("unlet g:loaded_dg_lsp")
        vim.command(f"source {PLUGIN / 'plugin' / 'dg_lsp.vim'}")
        assert vim.evaluate("maparg('<Tab>', 'i')") == "mine"
    finally:
        vim.command("imap <Tab> <Plug>(dg-lsp-accept)")


def test_the_page_names_the_keys_the_subcommands_and_no_others(vim: Vim) -> None:
    keys = dict(re.findall(r"^\| `(<.*?>)` \| `(<Plug>.*?)` \|", README, re.MULTILINE))
    assert len(keys) == 5
    for key, target in keys.items():
        assert vim.evaluate(f"maparg('{key}', 'i')") == target
    (listed,) = re.findall(r"`:DgLsp` takes (.*?); `", README, re.DOTALL)
    subcommands = {words.split()[0] for words in re.findall(r"`([^`]+)`", listed)}
    assert subcommands == set(vim.evaluate("getcompletion('DgLsp ', 'cmdline')"))


def test_an_unknown_subcommand_says_so(vim: Vim) -> None:
    assert "nonsense is not a subcommand" in vim.evaluate("execute('DgLsp nonsense')")
