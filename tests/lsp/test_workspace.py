"""Workspaces: which backend is in use, when it is started, and which rules hold."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from datetime import datetime, timedelta, tzinfo
from pathlib import Path

import pytest

from dg_engine.api import Draft, Infill, InfillRequest
from dg_engine.errors import EngineUnavailable
from dg_lsp import workspace
from dg_lsp.backends import Backend, BackendClosed, Report
from dg_lsp.document import Change, Document, Position
from dg_lsp.planning import Silence
from dg_lsp.session import CHANGED, RECONFIGURED, Ask, EngineTrouble, Offer
from dg_lsp.settings import Settings
from dg_lsp.workspace import UNCONFIGURED, UNKNOWN, Workspace

TEXT = "def add(first, second):\n    return "
END = Position(1, 11)


class Recorder:
    """A backend that counts."""

    def __init__(self, settings: Settings) -> None:
        self.model = settings.engine.model
        self.started = 0
        self.closed = 0
        self.ended = asyncio.Event()

    async def start(self, report: Report) -> None:
        self.started += 1

    async def restart(self) -> None:
        raise EngineUnavailable("no card")

    async def close(self) -> None:
        self.closed += 1

    async def infill(self, request: InfillRequest) -> AsyncGenerator[Draft | Infill, None]:
        raise EngineUnavailable("no card")
        yield  # a generator, though it never yields


class Case:
    """A workspace and the backends that it has made."""

    def __init__(self) -> None:
        self.kind = Recorder
        self.made: list[Recorder] = []
        self.states: list[str] = []
        self.workspace = Workspace(self.make, lambda status: self.states.append(status.state))

    def make(self, settings: Settings) -> Backend:
        self.made.append(self.kind(settings))
        return self.made[-1]

    def open(self, uri: str = "file:///a.py") -> None:
        self.workspace.open(Document(uri, "python", 1, TEXT, "utf-16"), None)


@pytest.mark.asyncio
async def test_the_engine_is_started_once_when_settings_are_known_and_a_document_is_open() -> None:
    case = Case()
    case.open()
    await asyncio.sleep(0)
    assert case.made[0].started == 0
    await case.workspace.configure(None)
    case.open("file:///b.py")
    await asyncio.sleep(0)
    assert case.made[0].started == 1


@pytest.mark.asyncio
async def test_no_engine_is_started_while_completions_are_switched_off() -> None:
    case = Case()
    case.open()
    await case.workspace.configure({"enabled": False})
    await asyncio.sleep(0)
    assert case.made[-1].started == 0


@pytest.mark.asyncio
async def test_other_engine_settings_replace_the_backend_and_the_same_ones_do_not() -> None:
    case = Case()
    case.open()
    case.workspace.initialize({"engine": {"model": "a"}})
    await case.workspace.configure({"debounceMs": 5})
    assert [backend.model for backend in case.made] == ["", "a"]
    await case.workspace.configure({"engine": {"model": "b"}})
    await asyncio.sleep(0)
    assert [backend.model for backend in case.made] == ["", "a", "b"]
    assert [backend.closed for backend in case.made] == [0, 1, 0]
    assert case.made[-1].started == 1


@pytest.mark.asyncio
async def test_an_engine_that_is_replaced_while_it_starts_is_no_error(caplog: pytest.LogCaptureFixture) -> None:
    class Starting(Recorder):
        async def start(self, report: Report) -> None:
            self.started += 1
            await self.ended.wait()
            raise BackendClosed

        async def close(self) -> None:
            self.ended.set()

    case = Case()
    case.kind = Starting
    case.open()
    await case.workspace.configure({"engine": {"model": "a"}})
    await asyncio.sleep(0)
    assert case.made[-1].started == 1
    await case.workspace.configure({"engine": {"model": "b"}})
    await asyncio.sleep(0)
    assert "error" not in case.states
    assert not caplog.records


@pytest.mark.asyncio
async def test_wrong_settings_leave_settings_and_backend_as_they_were(caplog: pytest.LogCaptureFixture) -> None:
    case = Case()
    await case.workspace.configure({"debounceMs": 5})
    await case.workspace.configure({"debounceMs": 7, "engine": {"modle": "b"}})
    assert case.workspace.settings.debounce_ms == 5
    assert len(case.made) == 1
    assert "dg.engine.modle is not a setting" in caplog.text
    assert case.states[-1] == "error"
    await case.workspace.configure({"debounceMs": 7})
    assert case.states[-1] != "error"


@pytest.mark.asyncio
async def test_wrong_options_at_the_start_stay_an_error() -> None:
    case = Case()
    case.workspace.initialize({"debounce": 7})
    await case.workspace.configure(None)
    assert case.states[-1] == "error"


class Held(Recorder):
    """A backend that answers with its model's name, the one named "held" not before its end."""

    async def close(self) -> None:
        self.ended.set()

    async def infill(self, request: InfillRequest) -> AsyncGenerator[Draft | Infill, None]:
        self.started += 1
        if self.model == "held":
            await self.ended.wait()
        yield Infill(
            text=self.model,
            tokens=1,
            steps=1,
            milliseconds=0.0,
            score=-1.0,
            stop_reason="converged",
            prefix_tokens=1,
            cached_tokens=0,
        )


@pytest.mark.asyncio
@pytest.mark.parametrize("edited", [False, True], ids=["the same text", "an edit meanwhile"])
async def test_a_request_that_other_settings_overtake_is_answered_by_these(edited: bool) -> None:
    case = Case()
    case.kind = Held
    await case.workspace.configure({"engine": {"model": "held"}, "minScore": -9})
    case.open()
    asking = asyncio.create_task(case.workspace.complete("file:///a.py", Ask(END, automatic=True)))
    async with asyncio.timeout(60):
        while case.made[-1].started < 2:
            await asyncio.sleep(0)
    await case.workspace.configure({"engine": {"model": "first"}, "minScore": -9})
    if edited:
        case.workspace.change("file:///a.py", [Change(END, END, "s")], 2)
    outcome = await asking
    if edited:
        assert outcome == RECONFIGURED
    else:
        assert isinstance(outcome, Offer)
        assert outcome.suggestion.text == "first"


@pytest.mark.asyncio
async def test_changed_globs_hold_from_then_on(tmp_path: Path) -> None:
    case = Case()
    case.workspace.set_folders([tmp_path])
    path = tmp_path / "a.py"
    assert case.workspace.exclusions.reason(path, path.as_uri()) is None
    await case.workspace.configure({"exclude": ["*.py"]})
    assert case.workspace.exclusions.reason(path, path.as_uri()) is not None


@pytest.mark.asyncio
async def test_edits_that_cannot_be_carried_out_close_the_document(monkeypatch: pytest.MonkeyPatch) -> None:
    case = Case()
    case.open()

    def broken(*_: object) -> None:
        raise RuntimeError("a fault")

    monkeypatch.setattr(Document, "apply", broken)
    case.workspace.change("file:///a.py", [Change(None, None, "x")], 2)
    ask = Ask(Position(0, 0), automatic=False)
    assert await case.workspace.complete("file:///a.py", ask) == UNKNOWN


@pytest.mark.asyncio
async def test_explanations_tell_an_engine_that_failed_from_nothing_to_offer() -> None:
    case = Case()
    case.open()
    await case.workspace.configure(None)
    assert case.workspace.explain("file:///a.py").state == "nothing"
    outcome = await case.workspace.complete("file:///a.py", Ask(END, automatic=False))
    assert isinstance(outcome, Silence)
    assert case.workspace.explain("file:///a.py") == ("failed", "no card")
    assert await case.workspace.restart() == "no card"


@pytest.mark.asyncio
async def test_snoozing_silences_automatic_requests_alone_and_ends_when_told() -> None:
    case = Case()
    await case.workspace.configure(None)
    case.open()
    until = case.workspace.snooze(5)
    assert until is not None
    asked = [await case.workspace.complete("file:///a.py", Ask(END, automatic=auto)) for auto in (True, False)]
    assert asked[0] == Silence(f"Automatic completions are snoozed until {until:%H:%M}.")
    assert asked[1] == EngineTrouble("no card")
    assert case.workspace.snooze(0) is None
    again = await case.workspace.complete("file:///a.py", Ask(END, automatic=True))
    assert again == EngineTrouble("no card")
    assert "snoozed" in case.states


@pytest.mark.asyncio
async def test_a_snooze_ends_by_itself() -> None:
    case = Case()
    case.workspace.snooze(1e-9)
    async with asyncio.timeout(60):
        while case.states != ["snoozed", "idle"]:
            await asyncio.sleep(0)


@pytest.mark.asyncio
async def test_a_snooze_ends_on_time_though_the_machine_slept(monkeypatch: pytest.MonkeyPatch) -> None:
    case = Case()
    await case.workspace.configure(None)
    case.open()
    case.workspace.snooze(5)

    class AfterSleep(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> AfterSleep:
            return super().now(tz) + timedelta(minutes=5)

    monkeypatch.setattr(workspace, "datetime", AfterSleep)
    outcome = await case.workspace.complete("file:///a.py", Ask(END, automatic=True))
    assert outcome == EngineTrouble("no card")
    assert case.states.count("snoozed") == 1


@pytest.mark.asyncio
async def test_a_request_waits_for_the_settings() -> None:
    case = Case()
    case.open()
    asked = asyncio.create_task(case.workspace.complete("file:///a.py", Ask(END, automatic=False)))
    await asyncio.sleep(0)
    await case.workspace.configure({"enabled": False})
    assert await asked == Silence("Completions are switched off for python.")


@pytest.mark.asyncio
@pytest.mark.parametrize("ending", ["edited", "closed", "never"])
async def test_a_request_that_waits_for_the_settings_is_answered_in_any_case(
    ending: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = Case()
    case.open()
    if ending == "never":
        monkeypatch.setattr(workspace, "SETTINGS_S", 0)
    asked = asyncio.create_task(case.workspace.complete("file:///a.py", Ask(END, automatic=False)))
    await asyncio.sleep(0)
    if ending == "edited":
        case.workspace.change("file:///a.py", [Change(None, None, "x")], 2)
    elif ending == "closed":
        case.workspace.close("file:///a.py")
    if ending != "never":
        await case.workspace.configure(None)
    assert await asked == (UNCONFIGURED if ending == "never" else CHANGED)


@pytest.mark.asyncio
async def test_settings_that_the_client_does_not_tell_once_more_stay_in_force() -> None:
    case = Case()
    await case.workspace.configure({"debounceMs": 5})
    await case.workspace.configure(None)
    assert case.workspace.settings.debounce_ms == 5
    await case.workspace.configure({})
    assert case.workspace.settings == Settings()


@pytest.mark.asyncio
async def test_an_engine_that_does_not_answer_is_told_as_an_error() -> None:
    class Hung(Recorder):
        async def infill(self, request: InfillRequest) -> AsyncGenerator[Draft | Infill, None]:
            await asyncio.Event().wait()
            raise EngineUnavailable("no card")
            yield  # a generator, though it never yields

    case = Case()
    case.kind = Hung
    await case.workspace.configure({"engine": {"answerTimeoutS": 0.1}})
    case.open()
    assert isinstance(await case.workspace.complete("file:///a.py", Ask(END, automatic=False)), EngineTrouble)
    assert case.states[-1] == "error"


@pytest.mark.asyncio
async def test_a_later_snooze_takes_the_place_of_an_earlier_one() -> None:
    case = Case()
    await case.workspace.configure(None)
    case.workspace.snooze(1e-9)
    later = case.workspace.snooze(60)
    await asyncio.sleep(0)
    case.open()
    outcome = await case.workspace.complete("file:///a.py", Ask(END, automatic=True))
    assert later is not None
    assert isinstance(outcome, Silence)
    assert f"{later:%H:%M}" in outcome.reason


@pytest.mark.asyncio
async def test_a_language_is_asked_for_with_its_own_settings() -> None:
    case = Case()
    case.open()
    await case.workspace.configure({"languages": {"python": {"enabled": False}}})
    outcome = await case.workspace.complete("file:///a.py", Ask(END, automatic=True))
    assert outcome == Silence("Completions are switched off for python.")
