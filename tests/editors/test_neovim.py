"""What the Neovim plugin does beyond the scenarios of all editors, in the oldest and the newest version."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from desk import Desk
from driver import until
from driver_neovim import DRAFT, PLUGIN, PROGRAMS, Neovim, lua
from engines import Scripted
from neovim_desk import HEAD, RESULT, offered

from dg_lsp import schema

SCRIPTED = [*Scripted.server]
DOC = (PLUGIN / "doc" / "dg_lsp.txt").read_text(encoding="utf-8")


def headless(name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a Neovim without a screen and without configuration."""
    program = PROGRAMS[name]()
    assert program is not None
    command = [str(program), "--headless", "-u", "NONE", "--cmd", f"set runtimepath^={PLUGIN}", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def messages(neovim: Neovim) -> list[str]:
    """What `:messages` shows."""
    return str(neovim.call("exec", "messages", True)).split("\n")


@pytest.mark.parametrize("spec", sorted((PLUGIN / "tests").glob("*_spec.lua")), ids=lambda path: path.stem)
def test_pure_functions(name: str, spec: Path) -> None:
    done = headless(name, "-c", f"luafile {spec}")
    assert (done.returncode, done.stderr) == (0, "")


def test_luacheck_finds_nothing() -> None:
    if (luacheck := shutil.which("luacheck")) is None:
        pytest.skip("luacheck is not here")
    done = subprocess.run([luacheck, "--quiet", "."], cwd=PLUGIN, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_the_manual_has_unique_tags_and_every_reference_leads_somewhere(name: str, tmp_path: Path) -> None:
    (tmp_path / "dg_lsp.txt").write_text(DOC)
    done = headless(name, "-c", f"helptags {tmp_path}", "-c", "qall!")
    assert done.stderr.strip() == ""
    tags = {line.split("\t")[0] for line in (tmp_path / "tags").read_text().split("\n")}
    assert set(re.findall(r"\|(:?[Dd]g_?[Ll]sp[\w:-]*)\|", DOC)) <= tags


def test_the_manual_names_every_subcommand_and_no_other(neovim: Neovim) -> None:
    known = set(neovim.lua("return vim.tbl_keys(require('dg_lsp.commands').subcommands)"))
    assert set(re.findall(r"\*:DgLsp-(\w+)\*", DOC)) == known


def test_the_manual_shows_the_defaults(neovim: Neovim) -> None:
    (shown,) = re.findall(r"require\('dg_lsp'\)\.setup\((\{\n.*?\n    \})\)", DOC, re.DOTALL)
    assert neovim.lua(f"return vim.deep_equal({shown}, require('dg_lsp.config').defaults)")


def test_the_manual_has_every_setting_in_the_server_s_words() -> None:
    (described,) = re.findall(r"names it\.\n\n(.*?)\n\n====", DOC, re.DOTALL)
    entries = {
        match[1]: " ".join(match[2].split())
        for match in re.finditer(r"^(\S+)\s+(.*(?:\n\s+.*)*)", described, re.MULTILINE)
    }
    assert entries == {name: " ".join(part["description"].split()) for name, part in _settings(schema.schema())}


def _settings(part: dict[str, object], path: str = "") -> Iterator[tuple[str, dict[str, str]]]:
    properties = part.get("properties")
    assert isinstance(properties, dict)
    for name, inner in properties.items():
        if "properties" in inner:
            yield from _settings(inner, f"{path}{name}.")
        else:
            yield f"{path}{name}", inner


def test_nothing_shows_while_an_entry_of_the_menu_is_selected(desk: Desk, neovim: Neovim) -> None:
    desk.open(f"{HEAD}|\n    wide, wind\n")
    offered(desk)
    desk.editor.type("wi")
    desk.editor.wait_for_ghost("dth * height")
    neovim.keys("C-n")
    until(lambda: neovim.call("call_function", "pumvisible", []), "no menu")
    desk.editor.wait_for_no_ghost()
    neovim.keys("C-e")
    desk.editor.wait_for_ghost("dth * height")


def test_ctrl_c_hides_it_as_escape_does(desk: Desk, neovim: Neovim) -> None:
    offered(desk)
    neovim.keys("C-c")
    until(lambda: neovim.mode() == "n", "Insert mode does not end")
    desk.editor.wait_for_no_ghost()


@pytest.mark.parametrize(
    ("mapping", "pressed"),
    [
        ("inoremap <Tab> plain", "plain"),
        ("imap <Tab> <C-R>='again'<CR>", "again"),
        ("inoremap <expr> <Tab> 'ex' .. 'pr'", "expr"),
        ("inoremap <expr> <Tab> 0 ? '<C-N>' : 'ke<Left><Right>y'", "key"),
        ("inoremap <expr> <Tab> 0 < 1 ? 'less' : ''", "less"),
        ("lua vim.keymap.set('i', '<Tab>', function() return 'lua<Left>' end, {expr = true})", "lua"),
        ("lua vim.keymap.set('i', '<Tab>', function() vim.api.nvim_put({'call'}, 'c', false, true) end)", "call"),
    ],
)
def test_a_key_is_the_mapping_that_it_was_where_nothing_shows(
    desk: Desk, neovim: Neovim, mapping: str, pressed: str
) -> None:
    neovim.command(mapping)
    try:
        desk.editor.accept()
        desk.editor.wait_for_text(HEAD + pressed + "\n")
        desk.go_to(HEAD + pressed)
        desk.editor.type("; ")
        offered(desk)
        desk.editor.accept()
        desk.editor.wait_for_text(f"{HEAD}{pressed}; return {RESULT}\n")
    finally:
        neovim.command("iunmap <Tab>")


@pytest.mark.parametrize(("key", "text"), [("Tab", "the "), ("C-]", "the")])
def test_a_key_expands_abbreviations_where_nothing_shows(desk: Desk, neovim: Neovim, key: str, text: str) -> None:
    neovim.command("iabbrev <buffer> teh the")
    desk.type("teh")
    neovim.keys(key)
    desk.editor.wait_for_text(f"{HEAD}{text}\n")


def test_accepted_lines_are_in_no_closed_fold(desk: Desk, neovim: Neovim) -> None:
    desk.open("def total(items):\n   |\n")
    desk.type(" ")
    total = desk.editor.wait_for_ghost()
    neovim.command("setlocal foldmethod=indent foldlevel=0")
    desk.editor.accept()
    desk.editor.wait_for_text(f"def total(items):\n    {total}\n")
    desk.shows(f"def total(items):\n    {total}\n~")
    neovim.command("setlocal foldmethod< foldlevel<")


def test_each_accepted_part_is_one_step_of_undo(desk: Desk) -> None:
    offered(desk)
    desk.editor.accept_word()
    desk.editor.wait_for_ghost(" * height")
    desk.editor.accept_word()
    desk.editor.wait_for_ghost(" height")
    desk.editor.accept()
    desk.editor.wait_for_text(f"{HEAD}return {RESULT}\n")
    for text in ("width *", "width", ""):
        desk.editor.undo()
        desk.editor.wait_for_text(f"{HEAD}return {text}\n")


def test_what_is_typed_after_accepting_is_another_step_of_undo(desk: Desk) -> None:
    offered(desk)
    desk.editor.accept()
    desk.editor.type("  # area")
    desk.editor.wait_for_text(f"{HEAD}return {RESULT}  # area\n")
    desk.editor.undo()
    desk.editor.wait_for_text(f"{HEAD}return {RESULT}\n")


def test_another_server_in_the_buffer_changes_nothing(desk: Desk, neovim: Neovim) -> None:
    neovim.lua(f"""
        other = vim.lsp.start_client({{ name = 'other', cmd = {lua(SCRIPTED)} }})
        vim.lsp.buf_attach_client(0, other)""")
    attached = "return vim.lsp.get_client_by_id(other).initialized == true"
    until(lambda: neovim.lua(attached), "the other server does not come")
    offered(desk)
    desk.editor.accept()
    desk.editor.wait_for_text(f"{HEAD}return {RESULT}\n")
    neovim.lua("vim.lsp.stop_client(other)")


def test_settled_and_unsettled_parts_of_a_draft_differ(desk: Desk, neovim: Neovim) -> None:
    neovim.command("DgLsp drafts on")
    desk.editor.type("draft = ")
    until(lambda: all(neovim.shown(frozenset({group})) for group in DRAFT), "one of the two never shows")
    assert neovim.shown(DRAFT).startswith(neovim.shown(frozenset({"DgLspDraftSettled"})))
    desk.editor.wait_for_ghost("[width, height]")
    neovim.command("DgLsp drafts off")


def test_subcommands_and_their_arguments_are_completed(desk: Desk, neovim: Neovim) -> None:
    def completed(line: str) -> list[str]:
        found: list[str] = neovim.call("call_function", "getcompletion", [line, "cmdline"])
        return found

    assert set(completed("DgLsp ")) == set(neovim.lua("return vim.tbl_keys(require('dg_lsp.commands').subcommands)"))
    assert completed("DgLsp sn") == ["snooze"]
    assert completed("DgLsp drafts o") == ["on", "off"]
    assert "small" in completed("DgLsp model ")
    assert completed("DgLsp status ") == []


def test_commands_tell_what_they_did(desk: Desk, neovim: Neovim) -> None:
    offered(desk)
    desk.editor.dismiss()
    for command, told in (
        ("DgLsp steps 3", ""),
        ("DgLsp steps", "at most 3 denoising steps"),
        ("DgLsp steps default", ""),
        ("DgLsp steps", "the model's own"),
        ("DgLsp status", "dg ready"),
        ("DgLsp explain", "offered"),
        ("DgLsp steps many", "not a whole number"),
        ("DgLsp nonsense", "not a subcommand"),
    ):
        neovim.normal()
        neovim.command("messages clear")
        neovim.type(f":{command}\n")
        until(lambda told=told: told in "\n".join(messages(neovim)), lambda: f"{messages(neovim)}")  # type: ignore[misc]
    neovim.command("messages clear")


def test_asking_from_normal_mode_begins_insert_mode(desk: Desk, neovim: Neovim) -> None:
    desk.open(f"{HEAD}return |\n")
    desk.editor.snooze(5)
    neovim.normal()
    neovim.call("win_set_cursor", 0, [2, 0])
    neovim.keys("$")
    neovim.type(":DgLsp trigger\n")
    until(lambda: neovim.mode() == "i", "Insert mode does not begin")
    desk.editor.snooze(0)


def test_settings_chosen_later_reach_the_server_that_runs(desk: Desk, neovim: Neovim) -> None:
    neovim.lua("require('dg_lsp').setup({ settings = { enabled = false } })")
    desk.editor.wait_for_status("off")
    neovim.lua("require('dg_lsp').setup({ settings = { enabled = true } })")
    desk.editor.wait_for_status("ready")


def test_toggling_is_the_server_s_own_switch(desk: Desk, neovim: Neovim) -> None:
    neovim.command("DgLsp toggle")
    desk.editor.wait_for_status("off")
    neovim.command("DgLsp toggle")
    desk.editor.wait_for_status("ready")
    offered(desk)


def test_the_log_names_a_refused_setting(desk: Desk, neovim: Neovim) -> None:
    desk.editor.configure(nonsense=True)
    desk.editor.wait_for_status("error")
    until(lambda: "nonsense" in neovim.lua("return table.concat(require('dg_lsp.client').log())"), "no word of it")
    desk.editor.configure(nonsense=None)
    desk.editor.wait_for_status("ready")
    neovim.normal()
    neovim.command("DgLsp log")
    desk.shows("nonsense is not a setting")
    neovim.command("close")


def test_the_doctor_is_that_of_the_server_and_the_model_that_are_chosen(desk: Desk, neovim: Neovim) -> None:
    desk.editor.configure(engine={"model": "/nowhere/at/all"})
    neovim.normal()
    neovim.command("DgLsp doctor")
    report = until(lambda: text if "tree-sitter" in (text := neovim.text()) else "", lambda: neovim.text())
    until(lambda: "/nowhere/at/all" in neovim.text(), lambda: neovim.text())
    assert "python" in report.lower()
    neovim.command("bwipeout!")
    desk.editor.configure(engine={"model": ""})


def test_an_unknown_option_is_refused_by_name(neovim: Neovim) -> None:
    for options, complaint in (
        ("{ colour = 1 }", "colour is not an option"),
        ("{ keys = { jump = 'x' } }", "keys.jump is not a key"),
        ("{ display = 'elsewhere' }", "display must be"),
        ("{ cmd = 'dg-lsp' }", "cmd must be a table"),
    ):
        assert complaint in neovim.lua(f"return select(2, pcall(require('dg_lsp').setup, {options}))")


def test_asked_by_hand_each_press_shows_the_next_of_several_completions(desk: Desk) -> None:
    desk.shows_the_next_by_hand()


def test_the_health_check_finds_nothing_wrong(desk: Desk, neovim: Neovim) -> None:
    neovim.normal()
    neovim.command("checkhealth dg_lsp")
    report = until(lambda: text if "keys" in (text := neovim.text()) else "", lambda: neovim.text())
    assert "dg ready" in report
    assert "<Tab>" in report
    assert not re.search(r"ERROR|WARNING", report), report
    neovim.command("bwipeout")


def test_a_server_that_ends_is_told_of_once_and_stops_nobody(desk: Desk, neovim: Neovim) -> None:
    offered(desk)
    neovim.command("messages clear")
    os.kill(neovim.server_pid(), signal.SIGKILL)
    try:
        desk.editor.wait_for_status("error")
        desk.editor.wait_for_no_ghost()
        desk.editor.type("1 + 1")
        desk.editor.wait_for_text(f"{HEAD}return 1 + 1\n")
        told = [line for line in messages(neovim) if line.strip()]
        assert len(told) == 1
        assert "signal 9" in told[0]
        neovim.command("DgLsp status")
        assert ":DgLsp restart brings it back" in "\n".join(messages(neovim))
    finally:
        neovim.restart_server()
    desk.editor.wait_for_status("ready")
    neovim.command("messages clear")
