"""Protocol types to the server's own values and back. The one place besides `server` that knows lsprotocol.

Nothing here writes into an argument, and nothing raises: a position is rounded (`Snapshot.point`), an address without a
file has no path.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, cast
from urllib.parse import urlsplit
from urllib.request import url2pathname

from lsprotocol import types

from dg_engine.api import Draft
from dg_lsp import models
from dg_lsp.document import Change, Document, Encoding, Point, Position, Snapshot
from dg_lsp.indentation import indentation_of
from dg_lsp.lines import content
from dg_lsp.planning import Plan, word_before
from dg_lsp.postprocess import Suggestion
from dg_lsp.session import Ask, Offer, Selected
from dg_lsp.status import Status

EXPLAIN = "dg.explain"
"""The command that says why nothing was offered."""

DRAFT = "dg/draft"
"""The notification that tells of a draft, to clients whose settings ask for it."""

STATUS = "dg/status"
"""The notification that tells of the server's state, to clients with the experimental capability `dg.status`."""

FALLBACK_TRIGGERS = (".", "(", "=", ":", ",")
"""After these a client without in-line completion asks by itself; after word characters it does anyway."""

LABEL_LENGTH = 80


def encoding(capabilities: types.ServerCapabilities) -> Encoding:
    """The units of positions that were agreed on."""
    return cast("Encoding", str(getattr(capabilities.position_encoding, "value", capabilities.position_encoding)))


def offers_inline_completion(capabilities: types.ClientCapabilities) -> bool:
    """Whether the client says that it shows in-line completions."""
    document = capabilities.text_document
    return document is not None and document.inline_completion is not None


def adjusts_indentation(capabilities: types.ClientCapabilities) -> bool:
    """Whether the client moves the lines of a menu's entry to the indentation of the cursor's line, and cannot but."""
    document = capabilities.text_document
    completion = document.completion if document is not None else None
    options = completion.completion_item if completion is not None else None
    support = options.insert_text_mode_support if options is not None else None
    return support is not None and list(support.value_set) == [types.InsertTextMode.AdjustIndentation]


def shows_status(capabilities: types.ClientCapabilities) -> bool:
    """Whether the client says that it shows the server's state, by `experimental: {dg: {status: true}}`."""
    match capabilities.experimental:
        case {"dg": {"status": True}}:
            return True
        case _:
            return False


def path_of(uri: str) -> Path | None:
    """The file behind a `file:` address; None for anything else, such as an untitled buffer."""
    try:
        parts = urlsplit(uri)
        if parts.scheme != "file":
            return None
        path = url2pathname(parts.path)
        return None if "\0" in path else Path(path)
    except ValueError:
        return None


def folders(given: Iterable[types.WorkspaceFolder] | None, root_uri: str | None) -> list[Path]:
    """The directories of the workspace, from folders or from the one root of older clients."""
    uris = [folder.uri for folder in given] if given is not None else [root_uri or ""]
    return [path for uri in uris if (path := path_of(uri)) is not None]


def document(item: types.TextDocumentItem, units: Encoding) -> Document:
    """The mirror of a newly opened buffer."""
    return Document(item.uri, item.language_id, item.version, item.text, units)


def changes(events: Sequence[types.TextDocumentContentChangeEvent]) -> list[Change]:
    """Edits in the client's units, in their order."""
    return [_change(event) for event in events]


def _change(event: types.TextDocumentContentChangeEvent) -> Change:
    if isinstance(event, types.TextDocumentContentChangePartial):
        return Change(position(event.range.start), position(event.range.end), event.text)
    return Change(None, None, event.text)


def position(value: types.Position) -> Position:
    """A place in the client's units."""
    return Position(value.line, value.character)


def inline_ask(params: types.InlineCompletionParams) -> Ask:
    """What an in-line completion request asks for."""
    automatic = params.context.trigger_kind != types.InlineCompletionTriggerKind.Invoked
    return Ask(position(params.position), automatic, _selected(params.context.selected_completion_info))


def fallback_ask(params: types.CompletionParams) -> Ask:
    """What an ordinary completion request asks for."""
    context = params.context
    automatic = context is not None and context.trigger_kind != types.CompletionTriggerKind.Invoked
    return Ask(position(params.position), automatic)


def _selected(info: types.SelectedCompletionInfo | None) -> Selected | None:
    if info is None:
        return None
    return Selected(position(info.range.start), position(info.range.end), info.text)


def inline_list(offer: Offer) -> types.InlineCompletionList:
    """The offer as ghost text, and what may be meant instead."""
    items = [
        types.InlineCompletionItem(insert_text=one.text, range=_range(offer.snapshot, one.start, one.end))
        for one in (offer.suggestion, *offer.others)
    ]
    return types.InlineCompletionList(items=items)


def completion_list(offer: Offer, *, adjusted: bool = False) -> types.CompletionList:
    """The offer as an entry of a completion menu, and one for each that may be meant instead.

    Args:
        offer: the offer.
        adjusted: whether the client puts the indentation of the cursor's line before each line but the first.
    """
    suggestions = (offer.suggestion, *offer.others)
    first, *others = (_entry(offer.snapshot, one, adjusted=adjusted) for one in suggestions)
    for number, other in enumerate(others):
        other.sort_text = f"{first.label}{number}"  # menus sort by the alphabet otherwise
    return types.CompletionList(is_incomplete=True, items=[first, *others])


def _entry(snapshot: Snapshot, suggestion: Suggestion, *, adjusted: bool) -> types.CompletionItem:
    """It takes in the word before it, because menus hide entries that do not begin with the word at the cursor."""
    line = content(snapshot.lines[suggestion.start.row])
    head = word_before(line[: suggestion.start.column])
    start = Point(suggestion.start.row, suggestion.start.column - len(head))
    text = head + suggestion.text
    written = text.replace("\n" + indentation_of(line[: start.column]), "\n") if adjusted else text
    return types.CompletionItem(
        label=_label(text),
        kind=types.CompletionItemKind.Text,
        detail="dg",
        filter_text=text,
        insert_text_format=types.InsertTextFormat.PlainText,
        insert_text_mode=types.InsertTextMode.AdjustIndentation if adjusted else types.InsertTextMode.AsIs,
        text_edit=types.TextEdit(range=_range(snapshot, start, suggestion.end), new_text=written),
    )


def draft_note(planned: Plan, draft: Draft) -> dict[str, Any]:
    """Parameters of `dg/draft`: where the completion will stand, and what it looks like after a step."""
    snapshot = planned.snapshot
    place = snapshot.position(planned.point)
    return {
        "textDocument": {"uri": snapshot.uri, "version": snapshot.version},
        "position": {"line": place.line, "character": place.character},
        "step": draft.step,
        "milliseconds": draft.milliseconds,
        "pieces": [{"text": piece.text, "settled": piece.settled} for piece in draft.pieces],
    }


def status_note(status: Status, model: str) -> dict[str, Any]:
    """Parameters of `dg/status`."""
    return {**status._asdict(), "model": models.name(model)}


def _label(text: str) -> str:
    first, *more = text.strip().split("\n")
    short = first[:LABEL_LENGTH]
    return f"{short}…" if more or short != first else short


def _range(snapshot: Snapshot, start: Point, end: Point) -> types.Range:
    return types.Range(start=_position(snapshot, start), end=_position(snapshot, end))


def _position(snapshot: Snapshot, point: Point) -> types.Position:
    place = snapshot.position(point)
    return types.Position(line=place.line, character=place.character)
