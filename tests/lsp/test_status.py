"""The state that clients show: one at a time, told when it changes and only then."""

from __future__ import annotations

from contextlib import aclosing
from datetime import datetime

import pytest

from dg_engine.api import Draft, Infill, InfillRequest
from dg_engine.errors import EngineError, EngineUnavailable
from dg_lsp.backends import Loading
from dg_lsp.scripted import Rule, Script, ScriptedBackend
from dg_lsp.status import REMEDY, Monitor, MonitoredBackend, Status

REQUEST = InfillRequest(prefix="return ", suffix="")


def monitored(*rules: Rule, **script: object) -> tuple[MonitoredBackend, list[Status], Monitor]:
    told: list[Status] = []
    monitor = Monitor(told.append, working_after_s=0)
    return MonitoredBackend(ScriptedBackend(Script(rules=rules, **script)), monitor), told, monitor  # type: ignore[arg-type]


async def answered(backend: MonitoredBackend) -> None:
    async with aclosing(backend.infill(REQUEST)) as events:
        async for event in events:
            if isinstance(event, Infill):
                # As a session does: it does not wait for the end of the stream.
                return


@pytest.mark.asyncio
async def test_a_start_is_told_from_loading_with_its_fraction_to_ready() -> None:
    backend, told, monitor = monitored(loading=(0.25, 1.0))
    await backend.start(monitor.loading)
    assert [(status.state, status.fraction) for status in told] == [
        ("loading", 0.25),
        ("loading", 1.0),
        ("idle", None),
        ("ready", None),
    ]


@pytest.mark.asyncio
async def test_a_failed_start_is_an_error_with_its_reason_and_a_remedy() -> None:
    backend, told, monitor = monitored(start_error="There is no card.")
    with pytest.raises(EngineError):
        await backend.start(monitor.loading)
    assert told == [Status("error", "There is no card.", remedy=REMEDY)]


@pytest.mark.asyncio
async def test_a_request_that_lasts_is_told_as_working_and_then_ready() -> None:
    backend, told, _ = monitored(Rule("return ", "a + b", steps=2))
    await answered(backend)
    assert [status.state for status in told] == ["working", "ready"]


@pytest.mark.asyncio
async def test_a_request_that_is_soon_over_is_not_told() -> None:
    told: list[Status] = []
    monitor = Monitor(told.append, working_after_s=1e9)
    backend = MonitoredBackend(ScriptedBackend(Script(rules=(Rule("return ", "a + b", steps=2),))), monitor)
    monitor.ready()
    for _ in range(2):
        await answered(backend)
    assert [status.state for status in told] == ["ready"]


@pytest.mark.asyncio
async def test_the_error_of_a_request_stays_until_one_succeeds() -> None:
    backend, told, _ = monitored(Rule("return ", then="die"))
    with pytest.raises(EngineUnavailable):
        await answered(backend)
    assert told[-1].state == "error"
    well, more, monitor = monitored(Rule("return ", "a + b"))
    monitor.failed("gone")
    await answered(well)
    assert [status.state for status in more] == ["error", "ready"]


def test_a_request_that_does_not_wait_for_the_loading_is_no_failure_of_the_engine() -> None:
    told: list[Status] = []
    monitor = Monitor(told.append)
    monitor.loading(Loading("weights", 0.5))
    monitor.failed("The engine did not answer within 10 s.")
    monitor.loading(None)
    monitor.ready()
    assert [status.state for status in told] == ["loading", "idle", "ready"]


@pytest.mark.asyncio
async def test_a_request_that_is_given_up_is_not_told_as_a_failure() -> None:
    backend, told, _ = monitored(Rule("return ", steps=2, then="hang"))
    events = backend.infill(InfillRequest(prefix="return ", suffix="", drafts=True))
    async for event in events:
        if isinstance(event, Draft) and event.step == 2:
            break
    await events.aclose()
    assert [status.state for status in told] == ["ready", "working", "ready"]


def test_the_same_state_is_told_once_and_again_when_asked() -> None:
    told: list[Status] = []
    monitor = Monitor(told.append)
    monitor.ready()
    monitor.ready()
    assert len(told) == 1
    monitor.tell(again=True)
    assert len(told) == 2


def test_off_hides_every_other_state_and_an_error_hides_snoozing() -> None:
    monitor = Monitor(lambda status: None)
    monitor.snoozed(datetime(2026, 1, 1, 14, 5))
    assert monitor.status() == Status("snoozed", "No automatic completions until 14:05.")
    monitor.failed("gone")
    assert monitor.status().state == "error"
    monitor.loading(Loading("", 0.5))
    assert monitor.status() == Status("loading", "Loading the model.", 0.5)
    monitor.enabled(False)
    assert monitor.status().state == "off"


def test_settings_that_are_not_taken_hide_even_that() -> None:
    monitor = Monitor(lambda status: None)
    monitor.enabled(False)
    monitor.refused("dg.debounce is not a setting.")
    assert monitor.status().state == "error"
    assert "dg.debounce" in monitor.status().message
    monitor.refused("")
    assert monitor.status().state == "off"


def test_another_engine_starts_without_the_failure_of_the_one_before() -> None:
    monitor = Monitor(lambda status: None)
    monitor.failed("gone")
    monitor.renewed()
    assert monitor.status().state == "idle"
