"""Neovim and the server: who starts it, as what it knows a buffer, and what if it is not there."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from desk import Desk, Shared, launch, present
from driver import Launch, until
from driver_neovim import PLUGIN, Neovim, lua, start
from engines import Scripted
from neovim_desk import HEAD, RESULT, offered

SCRIPTED = [*Scripted.server]


@pytest.mark.parametrize("command", ["saveas! saved.py", "file named.py", "file written.py | write!"])
def test_a_buffer_that_has_got_another_name_is_served(desk: Desk, neovim: Neovim, command: str) -> None:
    neovim.normal()
    neovim.command(f"silent {command}")
    desk.go_to(HEAD)
    offered(desk)


@pytest.mark.parametrize("command", ["terminal", "enew | file Tree | setlocal buftype=nofile"])
def test_what_is_no_file_is_not_served(desk: Desk, neovim: Neovim, command: str) -> None:
    offered(desk)
    neovim.normal()
    neovim.command(command)
    neovim.lua("turned = false; vim.schedule(function() vim.schedule(function() turned = true end) end)")
    until(lambda: neovim.lua("return turned"), "the loop does not turn")
    try:
        assert neovim.lua("return require('dg_lsp.client').of(vim.api.nvim_get_current_buf()) == nil")
    finally:
        neovim.command("stopinsert | bwipeout!")


def test_a_file_that_is_saved_at_every_key_is_offered_completions(desk: Desk, neovim: Neovim) -> None:
    neovim.command("augroup saved | autocmd! TextChangedI * silent update | augroup END")
    try:
        offered(desk)
    finally:
        neovim.command("autocmd! saved")


def test_in_replace_mode_nothing_shows(desk: Desk, neovim: Neovim) -> None:
    offered(desk)
    neovim.keys("Insert")
    desk.editor.wait_for_no_ghost()
    neovim.keys("Insert")
    desk.editor.wait_for_ghost(RESULT)


def test_a_pause_holds_for_every_project(desk: Desk, neovim: Neovim) -> None:
    for name in ("one", "two"):
        (desk.workspace / name / ".git").mkdir(parents=True, exist_ok=True)
        desk.open(f"{HEAD}|\n", name=f"{name}/area.py")
        offered(desk)
    neovim.snooze(5)
    (desk.workspace / "three" / ".git").mkdir(parents=True, exist_ok=True)
    for name in ("one", "two", "three"):
        desk.open(f"{HEAD}|\n", name=f"{name}/other.py")
        desk.editor.wait_for_status("snoozed")
        desk.editor.type("return ")
        desk.stays_quiet()
    neovim.snooze(0)
    offered(desk)


def test_a_file_without_a_type_is_served(desk: Desk, neovim: Neovim) -> None:
    desk.open(HEAD + "|\n", name="notes")
    assert neovim.call("eval", "&filetype") == ""
    offered(desk)


def test_another_language_is_told(desk: Desk, neovim: Neovim) -> None:
    desk.editor.configure(languages={"toml": False})
    neovim.normal()
    neovim.command("set filetype=toml")
    desk.go_to(HEAD)
    desk.editor.type("return ")
    desk.stays_quiet()
    desk.editor.configure(languages=None)


def test_asking_from_normal_mode_shows_an_answer_in_insert_mode(desk: Desk, neovim: Neovim) -> None:
    desk.open(f"{HEAD}print(size = |)\n")
    desk.editor.snooze(5)
    neovim.normal()
    neovim.type("l:DgLsp trigger\n")
    desk.editor.wait_for_ghost("width")
    assert neovim.mode() == "i"
    desk.editor.snooze(0)


@pytest.mark.parametrize("elsewhere", ["normal! v", "terminal"])
def test_asking_where_insert_mode_does_not_come_is_tried_once(desk: Desk, neovim: Neovim, elsewhere: str) -> None:
    neovim.normal()
    neovim.command(elsewhere)
    neovim.lua("""
        tries, schedule = 0, vim.schedule
        vim.schedule = function(callback)
          tries = tries + 1
          schedule(callback)
        end
        require('dg_lsp').trigger()""")
    try:
        assert max(neovim.lua("return tries") for _ in range(50)) <= 1
    finally:
        neovim.lua("vim.schedule = schedule")
        neovim.command("stopinsert")
        if elsewhere == "terminal":
            neovim.command("bwipeout!")


@pytest.fixture
def home() -> Iterator[Path]:
    """A directory for a Neovim with an init.lua of its own; its path is short, because sockets lie below it."""
    with tempfile.TemporaryDirectory(prefix="dg", ignore_cleanup_errors=True) as base:
        yield Path(base)


@contextlib.contextmanager
def with_init(name: str, home: Path, init: str, plugin: Path = PLUGIN) -> Iterator[Neovim]:
    """Neovim with the plugin, or a part of it, and this init.lua."""
    present(name)
    (home / "work").mkdir()
    (home / "home").mkdir()
    environment = {"XDG_RUNTIME_DIR": str(home)}
    given = Launch(server=SCRIPTED, home=home / "home", workspace=home / "work", environment=environment)
    neovim = start(name, given, f"vim.opt.runtimepath:prepend({lua(str(plugin))})\n{init}")
    try:
        yield neovim
    finally:
        neovim.close()


def test_a_server_that_is_not_there_is_told_of_once(name: str, home: Path) -> None:
    with with_init(name, home, "require('dg_lsp').setup({ cmd = { 'no-such-server' } })") as neovim:

        def told() -> list[str]:
            return [line for line in str(neovim.call("exec", "messages", True)).split("\n") if line.strip()]

        for file in ("a.py", "b.py"):
            neovim.command(f"silent edit {file}")
        assert told() == ["dg-lsp: The server was not found. See :checkhealth dg_lsp."]
        for command in ("status", "explain"):
            neovim.command("messages clear")
            neovim.command(f"DgLsp {command}")
            (line,) = told()
            assert "The server was not found." in line
        neovim.lua("require('dg_lsp').setup({ cmd = ... })", SCRIPTED)
        neovim.command("messages clear")
        neovim.restart_server()
        assert told() == []


@pytest.mark.parametrize(
    "given", ["root_markers = { 'here' }", "root_dir = function(_, found) found(vim.fn.getcwd() .. '/inner') end"]
)
def test_what_the_user_has_configured_for_neovim_s_own_client_holds(home: Path, given: str) -> None:
    init = f"""
        vim.lsp.config('dg_lsp', {{ cmd = {lua(SCRIPTED)}, {given}, before_init = function(params)
          before = params.initializationOptions
        end }})
        require('dg_lsp').setup({{ settings = {{ drafts = true }} }})"""
    with with_init("Neovim 0.12", home, init) as neovim:
        inner = neovim.workspace / "inner"
        inner.mkdir()
        (inner / "here").touch()
        (inner / "plan.py").write_text(HEAD + "\n")
        neovim.open(inner / "plan.py")
        neovim.lua("require('dg_lsp').configure({ enabled = true })")
        neovim.restart_server()
        assert neovim.lua("return require('dg_lsp.client').of(0).config.root_dir") == str(inner)
        assert neovim.lua("return before") == {"drafts": True, "enabled": True}


def core_ghost(neovim: Neovim) -> str:
    """What Neovim's own client shows."""
    return neovim.shown(frozenset({"ComplHint"}), "nvim.lsp.inline_completion")


@pytest.mark.parametrize("alone", [True, False], ids=["lsp file alone", "display = core"])
def test_neovim_s_own_client_shows_it_too(home: Path, alone: bool) -> None:
    folder = home / "rtp"
    shutil.copytree(PLUGIN / "lsp", folder / "lsp")
    if alone:
        init = f"""
            vim.lsp.config('dg_lsp', {{ cmd = {lua(SCRIPTED)} }})
            vim.lsp.enable('dg_lsp')
            vim.keymap.set('i', '<Tab>', function()
              return vim.lsp.inline_completion.get() and '' or '<Tab>'
            end, {{ expr = true }})"""
    else:
        init = f"""
            require('dg_lsp').setup({{ cmd = {lua(SCRIPTED)}, display = 'core' }})"""
    with with_init("Neovim 0.12", home, init, folder if alone else PLUGIN) as neovim:
        desk = Desk(neovim, "core")
        desk.file.write_text(HEAD + "\n")
        neovim.command(f"edit {desk.file}")
        until(lambda: neovim.lua("return #vim.lsp.get_clients({ name = 'dg_lsp' })") == 1, "the server does not come")
        desk.go_to(HEAD)
        neovim.type("return ")
        until(lambda: core_ghost(neovim) == RESULT, lambda: f"{core_ghost(neovim)!r}\n{neovim.screen()}")
        assert neovim.ghost() == ""
        neovim.accept()
        desk.holds(f"{HEAD}return {RESULT}\n")


def test_one_that_crashed_is_another_for_the_next_test(name: str, home: Path) -> None:
    shared = Shared(lambda: launch(name, home, SCRIPTED))
    try:
        first = shared.running()
        assert shared.running() is first
        assert isinstance(first, Neovim)
        os.kill(first.call("call_function", "getpid", []), signal.SIGSEGV)
        until(lambda: not first.is_running(), "it does not end")
        desk = Desk(shared.running(), "crash")
        desk.open(HEAD + "|\n")
        offered(desk)
    finally:
        shared.close()
