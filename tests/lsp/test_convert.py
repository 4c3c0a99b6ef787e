"""Protocol types to our own and back; workspaces; what the engine's settings reach."""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from lsprotocol import types

from dg_engine import launcher
from dg_engine.api import Health
from dg_engine.errors import EngineUnavailable
from dg_lsp import convert, logs
from dg_lsp.backends import launch_engine
from dg_lsp.document import Point, Position
from dg_lsp.postprocess import Suggestion
from dg_lsp.session import Offer
from dg_lsp.settings import EngineSettings
from dg_lsp.testing import marked


def offer(source: str, text: str, encoding: Any = "utf-16", end: int = 0) -> Offer:
    mark = marked(source, encoding=encoding)
    row, column = mark.point
    return Offer(Suggestion(text, Point(row, column), Point(row, column + end)), mark.snapshot, None)


@pytest.mark.parametrize(("encoding", "character"), [("utf-8", 6), ("utf-16", 3), ("utf-32", 2)])
def test_ranges_are_in_the_clients_units(encoding: str, character: int) -> None:
    (item,) = convert.inline_list(offer("é\U0001f600|x", "y", encoding, end=1)).items
    assert item.range == types.Range(types.Position(0, character), types.Position(0, character + 1))


@pytest.mark.parametrize(
    ("source", "text", "filtered", "label"),
    [
        ("value = su|", "m(x)", "sum(x)", "sum(x)"),
        ("value = |", "1", "1", "1"),
        ("def f():\n    |", "a = 1\n    return a", "a = 1\n    return a", "a = 1…"),
        ("x = |", "y" * 200, "y" * 200, "y" * 80 + "…"),
        ("größ|", "e", "größe", "größe"),
    ],
)
def test_a_menu_entry_takes_in_the_word_before_it(source: str, text: str, filtered: str, label: str) -> None:
    (item,) = convert.completion_list(offer(source, text)).items
    assert (item.filter_text, item.label) == (filtered, label)
    assert isinstance(item.text_edit, types.TextEdit)
    assert item.text_edit.new_text == filtered


def test_the_lines_of_a_menu_entry_are_written_as_they_are_or_without_what_the_client_adds() -> None:
    several = offer("class A:\n    def f(self):|", "\n        if a:\n            return 1\n\n    b = 2")
    (item,) = convert.completion_list(several).items
    assert isinstance(item.text_edit, types.TextEdit)
    assert item.text_edit.new_text == several.suggestion.text
    assert item.insert_text_mode == types.InsertTextMode.AsIs
    (item,) = convert.completion_list(several, adjusted=True).items
    assert isinstance(item.text_edit, types.TextEdit)
    assert item.text_edit.new_text == "\n    if a:\n        return 1\n\nb = 2"
    assert item.insert_text_mode == types.InsertTextMode.AdjustIndentation


@pytest.mark.parametrize(("modes", "adjusts"), [(None, False), ([], False), ([1], False), ([1, 2], False), ([2], True)])
def test_only_a_client_that_says_so_is_taken_to_move_lines(modes: list[int] | None, *, adjusts: bool) -> None:
    values = [types.InsertTextMode(mode) for mode in modes or []]
    support = None if modes is None else types.ClientCompletionItemInsertTextModeOptions(values)
    options = types.ClientCompletionItemOptions(insert_text_mode_support=support)
    document = types.TextDocumentClientCapabilities(
        completion=types.CompletionClientCapabilities(completion_item=options)
    )
    assert convert.adjusts_indentation(types.ClientCapabilities(text_document=document)) is adjusts
    assert not convert.adjusts_indentation(types.ClientCapabilities())


def test_what_may_be_meant_instead_comes_behind_in_ghost_text_and_menus_that_sort_by_the_alphabet() -> None:
    first = offer("value = su|", "m(x)")
    several = first._replace(others=tuple(first.suggestion._replace(text=text) for text in ("b()", "a()")))
    shown = [item.insert_text for item in convert.inline_list(several).items]
    assert shown == ["m(x)", "b()", "a()"]
    entries = convert.completion_list(several).items
    assert [entry.label for entry in entries] == ["sum(x)", "sub()", "sua()"]
    assert sorted(entries, key=lambda entry: entry.sort_text or entry.label) == entries


@pytest.mark.parametrize(
    ("uri", "path"),
    [
        ("file:///a/b%20c.py", Path("/a/b c.py")),
        ("file:///a/%C3%A9.py", Path("/a/é.py")),
        ("untitled:1", None),
        ("git:/a", None),
        ("file://[", None),
        ("file:///a%00b.py", None),
        ("", None),
    ],
)
def test_only_file_addresses_have_a_path(uri: str, path: Path | None) -> None:
    assert convert.path_of(uri) == path


def test_folders_come_from_the_list_or_from_the_root_of_older_clients() -> None:
    listed = [types.WorkspaceFolder(uri="file:///a", name="a"), types.WorkspaceFolder(uri="vscode-vfs://b", name="b")]
    assert convert.folders(listed, "file:///c") == [Path("/a")]
    assert convert.folders(None, "file:///c") == [Path("/c")]
    assert convert.folders(None, None) == []


def test_no_argument_is_written_into() -> None:
    start, end = types.Position(0, 10**6), types.Position(10**6, 0)
    event = types.TextDocumentContentChangePartial(range=types.Range(start, end), text="x")
    before = copy.deepcopy(event)
    mark = marked("abc|")
    mark.document.apply(convert.changes([event]), 2)
    assert event == before


def test_a_change_without_a_range_replaces_the_whole_text() -> None:
    (change,) = convert.changes([types.TextDocumentContentChangeWholeDocument(text="new")])
    assert change == (None, None, "new")


def inline(kind: types.InlineCompletionTriggerKind, selected: types.SelectedCompletionInfo | None) -> Any:
    context = types.InlineCompletionContext(trigger_kind=kind, selected_completion_info=selected)
    document = types.TextDocumentIdentifier("file:///a")
    return types.InlineCompletionParams(context=context, text_document=document, position=types.Position(1, 2))


def test_a_request_carries_its_trigger_and_the_entry_selected_in_the_menu() -> None:
    invoked = convert.inline_ask(inline(types.InlineCompletionTriggerKind.Invoked, None))
    assert invoked == (Position(1, 2), False, None)
    place = types.Range(types.Position(1, 0), types.Position(1, 2))
    info = types.SelectedCompletionInfo(range=place, text="ab")
    automatic = convert.inline_ask(inline(types.InlineCompletionTriggerKind.Automatic, info))
    assert automatic.automatic
    assert automatic.selected == (Position(1, 0), Position(1, 2), "ab")


@pytest.mark.asyncio
async def test_every_setting_of_the_engine_reaches_its_launch(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[launcher.LaunchSpec] = []

    async def ensure(spec: launcher.LaunchSpec, report: Callable[[Health], None]) -> launcher.Engine:
        seen.append(spec)
        raise EngineUnavailable("seen")

    monkeypatch.setattr(launcher, "ensure_engine", ensure)
    settings = EngineSettings(address="unix:/s", token="t", autostart=False, model="m", idle_timeout_s=5)
    with pytest.raises(EngineUnavailable):
        await launch_engine(settings, lambda health: None)
    (spec,) = seen
    wanted = ("unix:/s", "t", False, "m", 5)
    assert (spec.address, spec.token, spec.autostart, spec.model, spec.idle_timeout_s) == wanted


def test_the_log_level_decides_what_the_client_is_told() -> None:
    told: list[tuple[int, str]] = []
    handler = logs.ClientHandler(lambda level, message: told.append((level, message)))
    logger = logging.getLogger(logs.LOGGER)
    logger.addHandler(handler)
    try:
        for level in ("error", "info"):
            logs.set_level(level)
            logging.getLogger("dg_lsp.session").info("heard at %s", level)
    finally:
        logger.removeHandler(handler)
        logger.setLevel(logging.NOTSET)
    assert told == [(logging.INFO, "heard at info")]
