"""The watched completion: each draft in the place of the one before."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from dg_engine.exclusion import Exclusions
from dg_lsp.document import Document, Position
from dg_lsp.scripted import Rule, Script, ScriptedBackend
from dg_lsp.session import Ask, Offer, Services, Session
from dg_lsp.settings import Settings
from dg_lsp.terminal import Watched


@pytest.mark.asyncio
async def test_every_draft_is_drawn_settled_text_apart_from_noise_between_what_surrounds_it() -> None:
    document = Document("file:///a.py", "python", 0, "def add(a, b):\n    return ()\n", "utf-32")
    screen = io.StringIO()
    display = Watched(Console(file=screen, force_terminal=True, color_system="standard", width=80))
    services = Services(Settings(), ScriptedBackend(Script((Rule("return (", "a + b", steps=5),))), Exclusions())
    with display.frame():
        ask = Ask(Position(1, 12), automatic=False)
        outcome = await Session(document, None).complete(ask, services, display.watch)
        assert isinstance(outcome, Offer)
        display.show(outcome, 12.0)
    drawn = screen.getvalue()
    frames = [f"\x1b[1;32m{'a + b'[:n]}\x1b[0m\x1b[2;35m{'·' * (5 - n)}\x1b[0m)" for n in range(1, 5)]
    places = [drawn.find(frame) for frame in frames]
    assert -1 not in places
    assert places == sorted(places)
    assert "    return (\x1b[1;32ma + b\x1b[0m)" in drawn
    assert "5 steps" in drawn
    assert "12 ms in all" in drawn
