"""The real process as real editors speak to it: their capabilities, their encodings, their fallbacks."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import NamedTuple

import pytest
import pytest_lsp
from lsprotocol import types
from pytest_lsp import ClientServerConfig, LanguageClient

from dg_lsp import convert

LAST = "    '\U0001f600é'; return "
TEXT = f"def add(a, b):\n{LAST}"
URI = "file:///no/such/place/a.py"

Units = types.PositionEncodingKind


def capabilities(*encodings: types.PositionEncodingKind, inline: bool, pull: bool = True) -> types.ClientCapabilities:
    shown = types.InlineCompletionClientCapabilities(dynamic_registration=False) if inline else None
    return types.ClientCapabilities(
        general=types.GeneralClientCapabilities(position_encodings=list(encodings)) if encodings else None,
        text_document=types.TextDocumentClientCapabilities(inline_completion=shown),
        workspace=types.WorkspaceClientCapabilities(configuration=pull, workspace_folders=pull),
        window=types.WindowClientCapabilities(work_done_progress=pull),
    )


class Preset(NamedTuple):
    """What one client tells the server, and the units that follow from it."""

    capabilities: types.ClientCapabilities
    units: str


# As each client was heard to introduce itself.
PRESETS = {
    "VS Code 1.139": Preset(capabilities(Units.Utf16, inline=True), "utf-16"),
    "Neovim 0.12": Preset(capabilities(Units.Utf8, Units.Utf16, Units.Utf32, inline=True), "utf-8"),
    "eglot 1.17 with in-line completion": Preset(capabilities(Units.Utf32, Units.Utf8, inline=True), "utf-32"),
    "eglot 1.9": Preset(capabilities(inline=False, pull=False), "utf-16"),
    "Helix 25": Preset(capabilities(Units.Utf8, Units.Utf32, Units.Utf16, inline=False), "utf-8"),
}
INLINE = [name for name, preset in PRESETS.items() if convert.offers_inline_completion(preset.capabilities)]
FALLBACK = [name for name in PRESETS if name not in INLINE]

SCRIPT = str(Path(__file__).with_name("script.json"))


@pytest_lsp.fixture(  # type: ignore[untyped-decorator]  # pytest-lsp leaves it without types
    config=ClientServerConfig([sys.executable, "-m", "dg_lsp", "--backend", "scripted", "--script", SCRIPT])
)
async def editor(lsp_client: LanguageClient) -> AsyncIterator[None]:
    yield
    assert lsp_client.messages == []  # nothing was ever shown as a popup
    await lsp_client.shutdown_session()


async def opened(editor: LanguageClient, name: str) -> types.ServerCapabilities:
    """Introduce the client and open the document; what the server can do."""
    info = types.ClientInfo(name)
    params = types.InitializeParams(capabilities=PRESETS[name].capabilities, client_info=info)
    result = await editor.initialize_session(params)
    item = types.TextDocumentItem(uri=URI, language_id="python", version=1, text=TEXT)
    editor.text_document_did_open(types.DidOpenTextDocumentParams(item))
    return result.capabilities


def cursor(name: str) -> types.Position:
    """Right behind the last line of the text, in the client's units."""
    size = {"utf-8": len(LAST.encode()), "utf-16": len(LAST.encode("utf-16-le")) // 2, "utf-32": len(LAST)}
    return types.Position(1, size[PRESETS[name].units])


@pytest.mark.asyncio
@pytest.mark.parametrize("name", INLINE)
async def test_ghost_text_comes_at_the_cursor_in_the_clients_own_units(editor: LanguageClient, name: str) -> None:
    able = await opened(editor, name)
    assert able.inline_completion_provider == types.InlineCompletionOptions()
    assert able.completion_provider is None
    assert able.position_encoding == PRESETS[name].units
    kind = types.InlineCompletionTriggerKind.Invoked
    result = await editor.text_document_inline_completion_async(
        types.InlineCompletionParams(
            context=types.InlineCompletionContext(trigger_kind=kind),
            text_document=types.TextDocumentIdentifier(URI),
            position=cursor(name),
        )
    )
    assert isinstance(result, types.InlineCompletionList)
    (item,) = result.items
    assert item.insert_text == "a + b"
    assert item.range == types.Range(cursor(name), cursor(name))


@pytest.mark.asyncio
@pytest.mark.parametrize("name", FALLBACK)
async def test_clients_without_ghost_text_get_a_menu_entry_that_takes_in_the_word_before_it(
    editor: LanguageClient, name: str
) -> None:
    able = await opened(editor, name)
    assert able.completion_provider is not None
    end = cursor(name)
    change = types.TextDocumentContentChangePartial(range=types.Range(end, end), text="su")
    document = types.VersionedTextDocumentIdentifier(version=2, uri=URI)
    editor.text_document_did_change(types.DidChangeTextDocumentParams(document, [change]))
    result = await editor.text_document_completion_async(
        types.CompletionParams(types.TextDocumentIdentifier(URI), types.Position(1, end.character + 2))
    )
    assert isinstance(result, types.CompletionList)
    assert result.is_incomplete
    (item,) = result.items
    assert isinstance(item.text_edit, types.TextEdit)
    assert item.filter_text == item.text_edit.new_text == item.label == "sum(a, b)"
    assert item.text_edit.range == types.Range(end, types.Position(1, end.character + 2))


@pytest.mark.asyncio
async def test_clients_with_ghost_text_get_no_menu_entry_even_if_they_ask(editor: LanguageClient) -> None:
    name = "VS Code 1.139"
    await opened(editor, name)
    params = types.CompletionParams(types.TextDocumentIdentifier(URI), cursor(name))
    assert await editor.text_document_completion_async(params) is None
