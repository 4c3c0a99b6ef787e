"""What the Vim plugin does beyond the scenarios of all editors."""

from __future__ import annotations

import json
import re
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from desk import SCRIPT, SERVER, Desk, launch
from driver import until
from driver_vim import EDITORS, PLUGIN, Vim

HEAD = "def area(width, height):\n    "
RESULT = "width * height"
TOTAL = "result = 0\n    for item in items:\n        result += item\n    return result"
RULES = [
    {"after": "tabbed():\n\t", "text": "a = [\t# b\n\t\tc]"},
    {"after": "f(g(", "text": "x), y)"},
    {"after": "p(q[", "text": "é]) + 1"},
]
README = (PLUGIN / "README.md").read_text(encoding="utf-8")

pytestmark = pytest.mark.skipif(
    (missing := EDITORS[Vim.name].missing()) is not None, reason=f"Vim is not here ({missing}): make editors"
)


@pytest.fixture(scope="module")
def vim() -> Iterator[Vim]:
    """Vim with the scripted engine, which has more to say here."""
    with tempfile.TemporaryDirectory(prefix="dg", ignore_cleanup_errors=True) as base:
        script = Path(base) / "script.json"
        known = json.loads(SCRIPT.read_text(encoding="utf-8"))
        script.write_text(json.dumps({**known, "rules": [*known["rules"], *RULES]}), encoding="utf-8")
        editor = launch(Vim.name, Path(base), [*SERVER, "--backend", "scripted", "--script", str(script)])
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


class Sent(NamedTuple):
    """A text as the server has been told of it."""

    language: str
    text: str


class Told:
    """What Vim tells the server, from its log of what goes over channels."""

    def __init__(self, log: Path) -> None:
        self._log = log

    def messages(self) -> Iterator[Any]:
        """All of it, in its order."""
        data = self._log.read_bytes()
        for head in re.finditer(rb"SEND on \d+\(in\): 'Content-Length: (\d+)\r\n.*?\r\n\r\n", data, re.DOTALL):
            yield json.loads(data[head.end() : head.end() + int(head[1])])

    def texts(self) -> dict[str, Sent]:
        """The texts that the server has, by the name of their file."""
        texts: dict[str, Sent] = {}
        for message in self.messages():
            document = message.get("params", {}).get("textDocument", {})
            name = document.get("uri", "").rpartition("/")[2]
            match message.get("method"):
                case "textDocument/didOpen":
                    assert name not in texts
                    texts[name] = Sent(document["languageId"], document["text"])
                case "textDocument/didClose":
                    del texts[name]
                case "textDocument/didChange":
                    for change in message["params"]["contentChanges"]:
                        texts[name] = texts[name]._replace(text=_changed(texts[name].text, change))
        return texts

    def until_it_is(self, name: str, language: str, text: str) -> None:
        """Wait until the server has this text, and no other."""
        wanted = {name: Sent(language, text)}
        until(lambda: self.texts() == wanted, lambda: f"the server has {self.texts()}, not {wanted}")


def _changed(text: str, change: dict[str, Any]) -> str:
    if "range" not in change:
        return str(change["text"])
    lines = text.splitlines(keepends=True)
    start, end = change["range"]["start"], change["range"]["end"]
    assert start["character"] == end["character"] == 0
    return "".join([*lines[: start["line"]], change["text"], *lines[end["line"] :]])


@pytest.fixture
def told(vim: Vim, tmp_path: Path) -> Iterator[Told]:
    """The server's side, from when no file was open on."""
    vim.normal()
    vim.command("%bwipeout!")
    log = tmp_path / "channels"
    vim.command(f"call ch_logfile('{log}', 'w')")
    yield Told(log)
    vim.command("call ch_logfile('')")


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


def test_the_lines_below_are_their_own_again_where_ghost_lines_have_gone(desk: Desk) -> None:
    head, tail = "def total(items):\n    ", "\n\n\nz = 1\ny = 2\n"
    desk.open(f"{head[:-1]}|{tail}")
    desk.type(" ")
    desk.editor.wait_for_ghost(TOTAL)
    desk.shows(f"{head}{TOTAL}{tail}~")
    desk.type("r")
    desk.editor.wait_for_ghost(TOTAL[1:])
    desk.shows(f"{head}{TOTAL}{tail}~")
    desk.type("q")
    desk.editor.wait_for_no_ghost()
    desk.shows(f"{head}rq{tail}~")


def test_what_is_undone_shows_no_ghost_text(desk: Desk, vim: Vim) -> None:
    """Vim keeps with a line what was drawn in it, and brings both back."""
    head = "def total(items):\n    "
    desk.open(f"{head[:-1]}|\n\nz = 1\n")
    desk.type(" ")
    vim.wait_for_ghost(TOTAL)
    vim.accept()
    vim.wait_for_text(f"{head}{TOTAL}\n\nz = 1\n")
    vim.normal()
    for keys in ("u", "C-r", "u", "u"):
        vim.keys(keys)
    desk.shows(f"{head[:-1]}\n\nz = 1\n~")


@pytest.mark.parametrize("command", ["terminal", "enew | file Tree | setlocal buftype=nofile"])
def test_what_is_no_file_is_not_served(told: Told, desk: Desk, vim: Vim, command: str) -> None:
    vim.command(command)
    vim.command("call append(0, 'secret')" if "Tree" in command else "stopinsert")
    told.until_it_is(desk.file.name, "python", f"{HEAD}\n")
    vim.command("bwipeout!")


def test_a_file_that_is_saved_at_every_key_is_offered_completions(desk: Desk, vim: Vim) -> None:
    vim.command("autocmd dg_lsp TextChangedI * silent update")
    vim.configure(drafts=True)
    vim.type("return ")
    vim.wait_for_ghost(RESULT)
    vim.normal()
    vim.command("autocmd! dg_lsp TextChangedI * silent update")
    vim.configure(drafts=None)


def test_tabs_of_ghost_text_are_as_wide_as_they_will_be(desk: Desk, vim: Vim) -> None:
    vim.normal()
    vim.command("setlocal noexpandtab tabstop=4 shiftwidth=8")
    desk.open("def tabbed():\n\t|\n")
    vim.trigger()
    vim.wait_for_ghost("a = [\t# b\n\t\tc]")
    desk.shows("def tabbed():\n    a = [   # b\n        c]\n~")


def test_where_columns_cannot_be_told_nothing_is_served_and_the_remedy_is_told(tmp_path: Path) -> None:
    told = tmp_path / "told"
    commands = [f"set runtimepath^={PLUGIN}", "runtime plugin/dg_lsp.vim", "edit a.py", f"redir! > {told}"]
    commands += ["messages", "redir END", "qall!"]
    arguments = [argument for command in commands for argument in ("-c", command)]
    run = ["vim", "-N", "-u", "NONE", "-es", "--cmd", "set encoding=latin1", *arguments]
    subprocess.run(run, check=False, timeout=60, cwd=tmp_path)
    assert 'Put "set encoding=utf-8" into your vimrc' in told.read_text(encoding="utf-8")


def test_a_file_that_is_read_again_from_the_disk_is_known_as_it_is_there(told: Told, desk: Desk, vim: Vim) -> None:
    vim.normal()
    text = "import os\n" * 3 + HEAD + "return width\n"
    desk.file.write_text(text)
    vim.command("set autoread | checktime")
    vim.wait_for_text(text)
    told.until_it_is(desk.file.name, "python", text)


@pytest.mark.parametrize(
    ("commands", "text"),
    [
        (["normal! ggdG", "normal! p"], f"\n{HEAD}\n"),
        (["normal! ggdG", "normal! P", "normal! Gdd"], f"{HEAD}\n"),
        (["%delete", "put", "undo"], f"{HEAD}\n"),
        (["2delete", "normal! dd", "normal! P"], "def area(width, height):\n\n"),
    ],
)
def test_a_buffer_that_is_emptied_and_filled_is_known(
    told: Told, desk: Desk, vim: Vim, commands: list[str], text: str
) -> None:
    vim.normal()
    for command in commands:
        vim.command(command)
        vim.command("redraw")
    vim.wait_for_text(text)
    told.until_it_is(desk.file.name, "python", text)


def test_what_was_not_told_before_a_text_was_dropped_is_no_change_of_the_next(told: Told, desk: Desk, vim: Vim) -> None:
    vim.normal()
    vim.command("call append(0, 'a') | edit! | redraw")
    vim.command("call append('$', 'd') | redraw")
    told.until_it_is(desk.file.name, "python", f"{HEAD}\nd\n")


@pytest.mark.parametrize(
    ("command", "name", "language"),
    [
        ("saveas renamed.py", "renamed.py", "python"),
        ("file renamed.py", "renamed.py", "python"),
        ("set filetype=toml", "", "toml"),
    ],
)
def test_another_name_or_language_is_told_at_once(
    told: Told, desk: Desk, vim: Vim, command: str, name: str, language: str
) -> None:
    vim.normal()
    vim.command(command)
    told.until_it_is(name or desk.file.name, language, f"{HEAD}\n")
    desk.go_to(HEAD)
    desk.type("return ")
    vim.wait_for_ghost(RESULT)
    (desk.workspace / "renamed.py").unlink(missing_ok=True)


def test_the_language_of_a_modeline_is_told(told: Told, desk: Desk, vim: Vim) -> None:
    text = "x = 1\n# vim: filetype=python\n"
    (desk.workspace / "script").write_text(text)
    vim.normal()
    vim.command("%bwipeout! | set modeline | edit script")
    told.until_it_is("script", "python", text)


@pytest.mark.parametrize(("before", "after", "whole"), [("f(g", "))", "f(g(x), y)"), ("p(q", "])", "p(q[é]) + 1")])
def test_what_is_replaced_shows_once(desk: Desk, vim: Vim, before: str, after: str, whole: str) -> None:
    desk.open(f"{HEAD}{before}|{after}\n")
    vim.configure(decoding="causal")
    desk.type(whole[len(before)])
    vim.wait_for_ghost()
    desk.shows(f"{HEAD}{whole}\n~")
    vim.accept()
    desk.holds(f"{HEAD}{whole}\n")
    vim.configure(decoding="auto")


@pytest.mark.parametrize(("key", "text"), [("Tab", "the "), ("C-]", "the")])
def test_a_key_expands_abbreviations_where_nothing_shows(desk: Desk, vim: Vim, key: str, text: str) -> None:
    vim.command("iabbrev <buffer> teh the")
    desk.type("teh")
    vim.keys(key)
    vim.wait_for_text(f"{HEAD}{text}\n")


def test_accepted_lines_are_in_no_closed_fold(desk: Desk, vim: Vim) -> None:
    desk.open("def total(items):\n   |\n")
    desk.type(" ")
    vim.wait_for_ghost(TOTAL)
    vim.command("setlocal foldmethod=indent foldlevel=0")
    vim.accept()
    vim.wait_for_text(f"def total(items):\n    {TOTAL}\n")
    desk.shows(f"def total(items):\n    {TOTAL}\n~")
    vim.command("setlocal foldmethod< foldlevel<")


def test_a_pause_that_is_refused_is_not_told_as_one(desk: Desk, vim: Vim) -> None:
    vim.normal()
    vim.command("messages clear")
    vim.snooze(-5)
    told = until(lambda: vim.evaluate("execute('messages')").strip(), "nothing is told")
    assert told == "dg-lsp: dg.snooze takes a number of minutes, 0 to end the pause."


@pytest.mark.parametrize(("key", "mode"), [("C-c", "n"), ("IC", "R")], ids=["CTRL-C", "Insert"])
def test_where_insert_mode_ends_without_an_event_nothing_shows(desk: Desk, vim: Vim, key: str, mode: str) -> None:
    desk.editor.type("return ")
    desk.editor.wait_for_ghost(RESULT)
    vim.keys(key)
    until(lambda: vim.mode() == mode, f"mode {mode} does not begin")
    desk.editor.wait_for_no_ghost()


def test_lines_that_are_moved_before_others_were_told_are_told(told: Told, desk: Desk, vim: Vim) -> None:
    desk.open("a\nb\n|", name="move.py")
    vim.normal()
    vim.evaluate(r"""[execute("normal! 1GOfoo\<CR>x\<Esc>"), execute('1move $'), listener_flush()]""")
    desk.editor.wait_for_text("x\na\nb\nfoo\n")
    until(lambda: told.texts()["move.py"].text == "x\na\nb\nfoo\n", lambda: f"the server has {told.texts()}")


def test_what_is_asked_by_hand_while_another_request_runs_shows_its_drafts_and_is_cancelled(
    told: Told, desk: Desk, vim: Vim
) -> None:
    vim.configure(drafts=True)
    try:
        desk.open(HEAD + "|\n", name="hand.py")
        desk.editor.type("draft = ")
        until(desk.editor.draft, "no draft")
        desk.editor.trigger()
        asked = until(
            lambda: [m for m in told.messages() if m.get("params", {}).get("context")][1:], "not asked by hand"
        )
        until(desk.editor.draft, "no draft of what was asked by hand")
        vim.normal()
        until(lambda: {"id": asked[-1]["id"]} in [m.get("params") for m in told.messages()], "not cancelled")
    finally:
        vim.configure(drafts=None)


RUNNING = "job_info()->filter({_, one -> job_status(one) ==# 'run'})->map({_, one -> job_info(one).process})"


def test_a_server_that_hangs_is_ended_by_a_restart() -> None:
    with tempfile.TemporaryDirectory(prefix="dg", ignore_cleanup_errors=True) as base:
        vim = launch(Vim.name, Path(base), ["sleep", "600"])
        assert isinstance(vim, Vim)
        try:
            vim.type(":edit a.py\n")
            (hung,) = until(lambda: vim.evaluate(RUNNING), "no server is started")
            vim.command("DgLsp restart")
            until(lambda: hung not in vim.evaluate(RUNNING), "the server that hangs stays")
            assert len(vim.evaluate(RUNNING)) == 1
        finally:
            vim.close()


def test_a_server_that_is_not_there_is_told_of_once() -> None:
    with tempfile.TemporaryDirectory(prefix="dg", ignore_cleanup_errors=True) as base:
        vim = launch(Vim.name, Path(base), ["no-such-server"])
        assert isinstance(vim, Vim)

        def told() -> list[str]:
            return [line for line in vim.evaluate("execute('messages')").split("\n") if line.startswith("dg-lsp:")]

        try:
            for file in ("a.py", "b.py"):
                vim.type(f":edit {file}\n")
                until(lambda file=file: vim.evaluate("bufname()") == file, vim.screen)  # type: ignore[misc]
            assert vim.mode() == "n"
            missing = "dg-lsp: The server was not found. Put dg-lsp on the PATH, then :DgLsp restart."
            assert told() == [missing]
            for command in ("status", "explain", "snooze"):
                assert vim.evaluate(f"execute('DgLsp {command}')").strip() == missing
        finally:
            vim.close()
