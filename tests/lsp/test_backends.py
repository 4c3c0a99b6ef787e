"""Backends: the engine found, restarted and given up; the scripted test double."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from pathlib import Path
from typing import Literal, cast

import pytest

from dg_engine.api import Draft, Health, Infill, InfillRequest
from dg_engine.client import Address
from dg_engine.errors import EngineFailed, EngineUnavailable
from dg_engine.launcher import Engine
from dg_lsp import __version__
from dg_lsp.backends import Backend, EngineBackend, Loading, RestartPolicy
from dg_lsp.scripted import Rule, Script, ScriptedBackend, read_script
from dg_lsp.settings import EngineSettings
from dg_lsp.testing import answered

REQUEST = InfillRequest(prefix="x")


class Fleet:
    """Engines as a launcher would hand them out: each answers until it is killed."""

    def __init__(self) -> None:
        self.launched: list[FakeEngine] = []
        self.refusal: str = ""
        self.breaks = ""
        self.version = __version__
        self.now = 0.0
        self.loaded = asyncio.Event()
        self.loaded.set()
        self.ended = 0
        """Engines that were ended without being connected to."""

    async def launch(self, settings: EngineSettings, report: Callable[[Health], None]) -> Engine:
        if self.refusal:
            raise EngineUnavailable(self.refusal)
        await self.loaded.wait()
        report(Health(state="loading", message="weights", progress=0.25))
        await asyncio.sleep(0)
        self.launched.append(FakeEngine(str(len(self.launched)), self.breaks, self.version))
        return cast("Engine", self.launched[-1])

    async def end(self, settings: EngineSettings) -> None:
        self.ended += 1

    def backend(self, *, autostart: bool = True, attempts: int = 3) -> EngineBackend:
        policy = RestartPolicy(attempts=attempts, first_pause_s=1.0)
        settings = EngineSettings(autostart=autostart)
        return EngineBackend(settings, self.launch, policy, lambda: self.now, self.end)


class FakeEngine:
    """Stands for both the engine and its client."""

    def __init__(self, text: str, breaks: str, version: str) -> None:
        self.text = text
        self.alive = True
        self.breaks = breaks
        self.closed = False
        self.address = Address("http://127.0.0.1:1", None)
        self.client = self
        self.version = version
        self.ended = asyncio.Event()

    async def health(self) -> Health:
        if not self.alive:
            raise EngineUnavailable("no answer")
        return Health(state="ready")

    async def infill(self, request: InfillRequest) -> AsyncGenerator[Draft | Infill, None]:
        if not self.alive or self.breaks == "at once":
            self.alive = False
            raise EngineUnavailable("no answer")
        if self.breaks == "when it is ended":
            await self.ended.wait()
            raise EngineFailed("broke")
        if self.breaks:
            self.alive = self.breaks == "survives"
            raise EngineFailed("broke")
        yield answered(self.text)

    async def end(self) -> None:
        self.alive = False
        self.ended.set()
        for _ in range(20):  # whoever waits for an answer notices first
            await asyncio.sleep(0)

    async def aclose(self) -> None:
        self.closed = True


async def ask(backend: Backend) -> str:
    """As a session does: it does not wait for the end of the stream."""
    async with aclosing(backend.infill(REQUEST)) as events:
        async for event in events:
            if isinstance(event, Infill):
                return event.text
    raise AssertionError("no answer")


@pytest.mark.asyncio
async def test_the_engine_is_launched_on_first_use_and_once_for_requests_that_come_together() -> None:
    fleet = Fleet()
    backend = fleet.backend()
    assert set(await asyncio.gather(ask(backend), ask(backend))) == {"0"}
    assert len(fleet.launched) == 1


@pytest.mark.asyncio
async def test_loading_is_reported_and_its_end_too() -> None:
    seen: list[Loading | None] = []
    await Fleet().backend().start(seen.append)
    assert seen == [Loading("weights", 0.25), None]


@pytest.mark.asyncio
@pytest.mark.parametrize("version", [__version__, "0.0.9", ""])
async def test_an_engine_of_another_release_is_told_of_in_the_log(
    version: str, caplog: pytest.LogCaptureFixture
) -> None:
    fleet = Fleet()
    fleet.version = version
    await fleet.backend().start(lambda loading: None)
    told = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert len(told) == (version != __version__)
    assert all(version in message and __version__ in message for message in told)


@pytest.mark.asyncio
async def test_an_engine_that_stopped_while_idle_is_started_again_within_the_same_request() -> None:
    fleet = Fleet()
    backend = fleet.backend()
    await ask(backend)
    fleet.launched[0].alive = False
    assert await ask(backend) == "1"
    assert fleet.launched[0].closed


@pytest.mark.asyncio
async def test_a_crash_fails_its_request_and_the_next_one_after_the_pause_gets_a_new_engine() -> None:
    fleet = Fleet()
    backend = fleet.backend()
    await backend.start(lambda loading: None)
    fleet.launched[0].breaks = "dies"
    with pytest.raises(EngineFailed, match="broke"):
        await ask(backend)
    with pytest.raises(EngineUnavailable, match=r"tried again in 1\.0 s"):
        await ask(backend)
    fleet.now = 1.5
    assert await ask(backend) == "1"


@pytest.mark.asyncio
async def test_an_engine_that_dies_at_each_request_before_it_says_anything_is_left_alone_in_the_end() -> None:
    fleet = Fleet()
    fleet.breaks = "at once"
    backend = fleet.backend()
    for _ in range(3):
        with pytest.raises(EngineUnavailable, match="no answer"):
            await ask(backend)
        fleet.now += 100
    launched = len(fleet.launched)
    with pytest.raises(EngineUnavailable, match="3 times in a row"):
        await ask(backend)
    assert len(fleet.launched) == launched


@pytest.mark.asyncio
async def test_a_failed_request_of_an_engine_that_lives_costs_no_restart() -> None:
    fleet = Fleet()
    backend = fleet.backend()
    await backend.start(lambda loading: None)
    fleet.launched[0].breaks = "survives"
    with pytest.raises(EngineFailed, match="broke"):
        await ask(backend)
    fleet.launched[0].breaks = ""
    assert await ask(backend) == "0"


@pytest.mark.asyncio
async def test_the_pause_doubles_and_after_the_last_attempt_the_engine_is_left_alone_until_asked_for() -> None:
    fleet = Fleet()
    fleet.refusal = "no memory"
    backend = fleet.backend()
    for pause in (1, 2, 4):
        with pytest.raises(EngineUnavailable, match="no memory"):
            await ask(backend)
        with pytest.raises(EngineUnavailable, match="Last failure: no memory"):
            await ask(backend)
        fleet.now += pause
    fleet.now += 1e6
    with pytest.raises(EngineUnavailable, match=r"3 times in a row .* dg\.restartEngine"):
        await ask(backend)
    fleet.refusal = ""
    await backend.restart()
    assert await ask(backend) == "0"


@pytest.mark.asyncio
async def test_a_request_that_a_restart_breaks_is_no_failure_of_the_engine() -> None:
    fleet = Fleet()
    fleet.breaks = "when it is ended"
    backend = fleet.backend()
    asking = asyncio.create_task(ask(backend))
    for _ in range(20):
        await asyncio.sleep(0)
    fleet.breaks = ""
    await backend.restart()
    assert await ask(backend) == "1"
    with pytest.raises(EngineFailed):
        await asking


@pytest.mark.asyncio
async def test_an_answer_ends_the_count_of_failures() -> None:
    fleet = Fleet()
    backend = fleet.backend(attempts=2)
    for _ in range(3):
        fleet.now += 100
        await ask(backend)
        fleet.launched[-1].breaks = "dies"
        with pytest.raises(EngineFailed):
            await ask(backend)
    fleet.now += 100
    assert await ask(backend) == "3"


@pytest.mark.asyncio
async def test_an_engine_that_others_start_is_asked_again_without_limit() -> None:
    fleet = Fleet()
    fleet.refusal = "none answers"
    backend = fleet.backend(autostart=False, attempts=1)
    for _ in range(5):
        with pytest.raises(EngineUnavailable, match="none answers"):
            await ask(backend)
        fleet.now += 1000
    fleet.refusal = ""
    assert await ask(backend) == "0"


@pytest.mark.asyncio
async def test_a_request_that_is_given_up_leaves_the_start_to_the_next_one() -> None:
    fleet = Fleet()
    backend = fleet.backend()
    first = asyncio.create_task(ask(backend))
    await asyncio.sleep(0)
    first.cancel()
    assert await ask(backend) == "0"
    assert len(fleet.launched) == 1


@pytest.mark.asyncio
async def test_a_restart_ends_an_engine_that_nobody_has_reached_and_who_waits_gets_the_next() -> None:
    fleet = Fleet()
    backend = fleet.backend()
    fleet.loaded.clear()
    waiting = asyncio.create_task(ask(backend))
    await asyncio.sleep(0)
    restarting = asyncio.create_task(backend.restart())
    while not fleet.ended:
        await asyncio.sleep(0)
    fleet.loaded.set()
    await restarting
    assert await waiting == "0"
    assert (fleet.ended, len(fleet.launched)) == (1, 1)


@pytest.mark.asyncio
async def test_closing_lets_go_of_the_engine() -> None:
    fleet = Fleet()
    backend = fleet.backend()
    await ask(backend)
    await backend.close()
    assert fleet.launched[0].closed


@pytest.mark.asyncio
async def test_closing_during_the_start_is_told_to_who_waits_for_it_and_nothing_is_started_afterwards() -> None:
    fleet = Fleet()
    backend = fleet.backend()
    waiting = asyncio.create_task(ask(backend))
    await asyncio.sleep(0)
    await backend.close()
    with pytest.raises(EngineUnavailable, match="not asked any more"):
        await waiting
    with pytest.raises(EngineUnavailable, match="not asked any more"):
        await ask(backend)
    assert not fleet.launched


def test_the_pause_is_bounded() -> None:
    policy = RestartPolicy()
    assert [policy.pause_s(failures) for failures in (1, 2, 3)] == [1, 2, 4]
    assert policy.pause_s(1000) == policy.longest_pause_s


async def events(rule: Rule, *, drafts: bool = True) -> list[Draft | Infill]:
    backend = ScriptedBackend(Script(rules=(rule,)))
    async with aclosing(backend.infill(InfillRequest(prefix="a = ", drafts=drafts))) as stream:
        return [event async for event in stream]


@pytest.mark.asyncio
async def test_a_script_answers_where_its_rule_ends_the_prefix_with_one_draft_per_step() -> None:
    *drafts, answer = await events(Rule("= ", "b + c", steps=3))
    assert [event.text for event in drafts if isinstance(event, Draft)] == ["b····", "b +··", "b + c"]
    assert isinstance(answer, Infill)
    assert (answer.text, answer.steps) == ("b + c", 3)


@pytest.mark.asyncio
async def test_without_a_rule_that_fits_the_scripted_answer_is_empty() -> None:
    assert [event.text for event in await events(Rule("nothing like it", "b"), drafts=False)] == [""]


@pytest.mark.asyncio
@pytest.mark.parametrize(("then", "error"), [("crash", EngineFailed), ("die", EngineUnavailable)])
async def test_a_script_fails_on_purpose(then: str, error: type[Exception]) -> None:
    rule = Rule("= ", "b", then=cast("Literal['crash', 'die']", then))
    with pytest.raises(error):
        await events(rule)


@pytest.mark.asyncio
async def test_a_script_hangs_on_purpose_until_it_is_cancelled() -> None:
    task = asyncio.create_task(events(Rule("= ", "b", then="hang")))
    for _ in range(100):
        await asyncio.sleep(0)
    assert not task.done()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


@pytest.mark.asyncio
async def test_a_scripted_start_loads_and_fails_as_written() -> None:
    seen: list[Loading | None] = []
    with pytest.raises(EngineUnavailable, match="no card"):
        await ScriptedBackend(Script(start_error="no card", loading=(0.5,))).start(seen.append)
    assert seen == [Loading("scripted", 0.5), None]


@pytest.mark.parametrize(
    "content", ["[]", '{"rules": [{"before": "x"}]}', '{"rules": [{"after": "", "then": "fly"}]}', "{"]
)
def test_a_script_that_is_none_is_refused_with_its_file(tmp_path: Path, content: str) -> None:
    path = tmp_path / "script.json"
    path.write_text(content)
    with pytest.raises(ValueError, match=r"script\.json"):
        read_script(path)
