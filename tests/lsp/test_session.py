"""Sessions: one running request per document, memory before the engine, and every setting that a request reads."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any, get_args

import pytest

from dg_engine.api import Decoding, Draft, Head, Infill, InfillRequest, Piece
from dg_engine.errors import EngineFailed
from dg_engine.exclusion import Exclusions
from dg_lsp.backends import Report
from dg_lsp.document import Change, Position
from dg_lsp.planning import Plan, Silence
from dg_lsp.session import (
    CHANGED,
    CLOSED,
    GIVEN_UP,
    RECONFIGURED,
    SUPERSEDED,
    Ask,
    EngineTrouble,
    Offer,
    Outcome,
    Selected,
    Services,
    Session,
)
from dg_lsp.settings import DecodingChoice, EngineSettings, Settings
from dg_lsp.testing import answered, marked, rated

SOURCE = "def add(a, b):\n    return |"


class Gate:
    """A backend that answers when it is let, and keeps what it was asked: `behind` its own answer, or elsewhere."""

    def __init__(self, text: str = "a + b", *, is_open: bool = True) -> None:
        self.text = text
        self.requests: list[InfillRequest] = []
        self.behind: list[InfillRequest] = []
        self.closed = 0
        self.closed_behind = 0
        self.opened = asyncio.Event()
        self.asked = asyncio.Event()
        self.stop_reason: Any = "converged"
        self.score: float | None = None
        self.heads: tuple[Head, ...] = ()
        self.others: tuple[str, ...] = ()
        self.failure: BaseException | None = None
        if is_open:
            self.opened.set()

    async def infill(self, request: InfillRequest) -> AsyncGenerator[Draft | Infill, None]:
        is_behind = request.prefix.endswith(self.text)
        (self.behind if is_behind else self.requests).append(request)
        if not is_behind:
            self.asked.set()
        try:
            await self.opened.wait()
            if self.failure is not None:
                raise self.failure
            if request.drafts:
                yield Draft(step=1, pieces=(Piece(self.text, settled=True),), milliseconds=1)
            others = self.others[: request.others]
            yield answered(self.text, *others, score=self.score, heads=self.heads, stop_reason=self.stop_reason)
        finally:
            self.closed += not is_behind
            self.closed_behind += is_behind

    async def start(self, report: Report) -> None:
        report(None)

    async def restart(self) -> None:
        self.opened.set()

    async def close(self) -> None:
        self.opened.set()


class Case:
    """A session on marked source, and its cursor."""

    def __init__(self, source: str = SOURCE, language: str = "python", path: Path | None = None) -> None:
        mark = marked(source, language)
        self.session = Session(mark.document, path)
        self.ask = Ask(mark.position, automatic=False)
        self.gate = Gate()

    async def complete(self, settings: Settings | None = None, ask: Ask | None = None, **keywords: Any) -> Outcome:
        services = Services(settings or Settings(), self.gate, Exclusions((), (settings or Settings()).exclude))
        return await self.session.complete(ask or self.ask, services, **keywords)


def text(outcome: Outcome) -> str:
    assert isinstance(outcome, Offer), outcome
    return outcome.suggestion.text


async def ended(session: Session, left: int = 0) -> None:
    """Let the loop turn until no more work of the session is left; work that never ends fails the test."""
    for _ in range(1000):
        if session.running <= left:
            assert session.running == left
            return
        await asyncio.sleep(0)
    raise AssertionError("the work does not end")


@pytest.mark.asyncio
async def test_an_answer_is_offered_with_what_the_engine_said_of_it() -> None:
    outcome = await Case().complete()
    assert text(outcome) == "a + b"
    assert isinstance(outcome, Offer)
    assert outcome.infill is not None
    assert outcome.infill.steps == 2


@pytest.mark.asyncio
async def test_the_older_request_is_settled_at_once_and_its_stream_closed() -> None:
    case = Case()
    case.gate = Gate(is_open=False)
    older = asyncio.create_task(case.complete())
    await case.gate.asked.wait()
    newer = asyncio.create_task(case.complete())
    assert await older == SUPERSEDED
    case.gate.opened.set()
    assert text(await newer) == "a + b"
    assert case.gate.closed == 2
    await ended(case.session)


@pytest.mark.asyncio
@pytest.mark.parametrize("is_answered", [False, True])
@pytest.mark.parametrize("reason", [CHANGED, CLOSED, RECONFIGURED])
async def test_an_edit_other_settings_or_the_close_settle_what_runs_without_an_answer_even_if_the_engine_gave_one(
    reason: Silence, *, is_answered: bool
) -> None:
    case = Case()
    case.gate = Gate(is_open=is_answered)
    asked = asyncio.create_task(case.complete())
    await case.gate.asked.wait()
    if is_answered:
        await ended(case.session)
        assert not asked.done()
    if reason is CHANGED:
        case.session.change([Change(Position(0, 0), Position(0, 0), "x")], 2)
    elif reason is CLOSED:
        case.session.close()
    else:
        case.session.forget()
    assert await asked == reason
    assert case.session.last == reason
    await ended(case.session)
    assert not case.gate.behind


@pytest.mark.asyncio
async def test_work_that_a_backend_cancels_is_settled() -> None:
    case = Case()
    case.gate.failure = asyncio.CancelledError()
    assert await case.complete() == GIVEN_UP


@pytest.mark.asyncio
async def test_the_caller_that_is_cancelled_takes_the_engines_work_with_it() -> None:
    case = Case()
    case.gate = Gate(is_open=False)
    asked = asyncio.create_task(case.complete())
    await case.gate.asked.wait()
    asked.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asked
    await ended(case.session)
    assert case.gate.closed == 1


@pytest.mark.asyncio
async def test_a_backend_that_is_slow_to_let_go_does_not_delay_the_answer_to_the_older_request() -> None:
    case = Case()
    release = asyncio.Event()

    class Reluctant(Gate):
        async def infill(self, request: InfillRequest) -> AsyncGenerator[Draft | Infill, None]:
            self.asked.set()
            try:
                await asyncio.Event().wait()
            finally:
                await release.wait()
            yield Draft(step=1, pieces=(), milliseconds=0)

    case.gate = Reluctant()
    older = asyncio.create_task(case.complete())
    await case.gate.asked.wait()
    case.gate = Gate()
    assert text(await case.complete()) == "a + b"
    assert older.done()
    assert await older == SUPERSEDED
    await ended(case.session, left=1)
    release.set()
    await ended(case.session)


def press_two_keys(case: Case) -> Ask:
    """Type a word of two letters in no time; returns what the client then asks on its own account."""
    end = case.ask.position
    for typed, letter in enumerate("no"):
        place = Position(end.line, end.character + typed)
        case.session.change([Change(place, place, letter)], 2 + typed)
    return Ask(Position(end.line, end.character + 2), automatic=True)


@pytest.mark.asyncio
async def test_typing_along_an_offer_is_answered_from_memory_without_the_engine_and_without_a_pause() -> None:
    case = Case()
    case.gate.text = "now + b"
    await case.complete()
    assert text(await case.complete(Settings(debounce_ms=1e9), press_two_keys(case))) == "w + b"
    assert len(case.gate.requests) == 1


@pytest.mark.asyncio
@pytest.mark.parametrize("snoozed", [None, Silence("a pause")])
async def test_an_offer_that_was_begun_goes_on_where_nothing_new_would_be_offered(snoozed: Silence | None) -> None:
    case = Case("function add(a, b) {\n  |\n}\n", "javascript")
    case.gate.text = "let c = a;\n  return c + b;"
    assert "\n" in text(await case.complete())
    end = case.ask.position
    case.session.change([Change(end, end, "let c = a;")], 2)
    ask = Ask(Position(end.line, end.character + 10), automatic=True)
    services = Services(Settings(), case.gate, Exclusions(), snoozed)
    outcome = await case.session.complete(ask, services)
    if snoozed is None:
        assert text(outcome) == "\n  return c + b;"
    else:
        assert outcome == snoozed
    case.session.change([Change(ask.position, ask.position, " ")], 3)
    again = await case.session.complete(ask._replace(position=Position(end.line, end.character + 11)), services)
    assert isinstance(again, Silence), "the line is complete, and goes on otherwise"


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("language", "source", "offered"),
    [("python", SOURCE, "first + second"), ("javascript", "function add(a, b) {\n  return |\n}\n", "first + second;")],
)
async def test_what_the_user_took_and_then_deleted_in_part_is_not_offered_again(
    language: str, source: str, offered: str
) -> None:
    case = Case(source, language)
    case.gate.text = offered
    at = case.ask.position
    asks = [Ask(at._replace(character=at.character + typed), automatic=True) for typed in range(len(offered) + 1)]
    assert text(await case.complete(ask=asks[0])) == offered
    case.session.change([Change(at, at, offered)], 2)
    await case.complete(ask=asks[-1])
    asked = len(case.gate.requests)
    for typed in range(len(offered) - 1, len("first"), -1):
        case.session.change([Change(asks[typed].position, asks[typed + 1].position, "")], 3)
        outcome = await case.complete(ask=asks[typed])
        assert isinstance(outcome, Silence), (typed, outcome)
    assert len(case.gate.requests) == asked
    case.session.change([Change(asks[typed].position, asks[typed].position, offered[typed])], 4)
    assert text(await case.complete(ask=asks[typed + 1])) == offered[typed + 1 :]


@pytest.mark.asyncio
async def test_of_keys_that_come_fast_the_last_waits_before_it_reaches_the_engine_and_a_request_by_hand_does_not() -> (
    None
):
    case = Case()
    slow = Settings(debounce_ms=1e9)
    ask = press_two_keys(case)
    automatic = asyncio.create_task(case.complete(slow, ask))
    for _ in range(20):
        await asyncio.sleep(0)
    assert case.gate.requests == []
    assert text(await case.complete(slow, ask._replace(automatic=False))) == "a + b"
    assert await automatic == SUPERSEDED


@pytest.mark.asyncio
async def test_a_key_that_follows_no_other_closely_reaches_the_engine_at_once() -> None:
    case = Case()
    end = case.ask.position
    case.session.change([Change(end, end, "n")], 2)
    ask = Ask(Position(end.line, end.character + 1), automatic=True)
    assert text(await case.complete(Settings(debounce_ms=1e9), ask)) == "a + b"


@pytest.mark.asyncio
async def test_without_a_pause_keys_that_come_fast_reach_the_engine() -> None:
    case = Case()
    assert text(await case.complete(Settings(debounce_ms=0), press_two_keys(case))) == "a + b"


@pytest.mark.asyncio
async def test_an_engine_that_does_not_answer_in_its_time_is_given_up() -> None:
    case = Case()
    case.gate = Gate(is_open=False)
    outcome = await case.complete(Settings(engine=EngineSettings(answer_timeout_s=0.001)))
    assert isinstance(outcome, EngineTrouble)
    assert "0.001 s" in outcome.reason
    assert case.gate.closed == 1


@pytest.mark.asyncio
async def test_an_engine_that_fails_is_a_silence_with_its_own_words() -> None:
    case = Case()
    case.gate.failure = EngineFailed("out of memory")
    assert await case.complete() == EngineTrouble("out of memory")


@pytest.mark.asyncio
async def test_what_the_engine_cut_short_for_a_newer_request_is_not_offered() -> None:
    case = Case()
    case.gate.stop_reason = "superseded"
    assert await case.complete() == SUPERSEDED


@pytest.mark.asyncio
async def test_drafts_are_asked_for_and_passed_on_only_when_somebody_watches() -> None:
    case = Case()
    seen: list[tuple[Plan, Draft]] = []
    await case.complete(watch=lambda planned, draft: seen.append((planned, draft)))
    assert [(planned.line_prefix, draft.text) for planned, draft in seen] == [("    return ", "a + b")]
    case = Case()
    await case.complete()
    assert not case.gate.requests[0].drafts


@pytest.mark.asyncio
async def test_a_failure_of_our_own_is_raised_and_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    case = Case()

    def broken(*_: object) -> None:
        raise RuntimeError("a fault")

    monkeypatch.setattr("dg_lsp.session.suggest", broken)
    with pytest.raises(RuntimeError, match="a fault"):
        await case.complete()
    assert isinstance(case.session.last, Silence)
    assert case.session.running == 0


async def request_with(settings: Settings, source: str = SOURCE) -> InfillRequest:
    case = Case(source)
    await case.complete(settings)
    (request,) = case.gate.requests
    return request


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("max_new_tokens", 7),
        ("max_denoising_steps", 3),
        ("entropy_bound", 0.5),
        ("time_budget_ms", 20.0),
        ("decoding", "causal_fit"),
    ],
)
async def test_each_engine_knob_reaches_the_request(name: str, value: float | str) -> None:
    changed: dict[str, Any] = {name: value}
    assert getattr(await request_with(Settings(**changed)), name) == value
    assert getattr(await request_with(Settings()), name) != value


@pytest.mark.asyncio
async def test_the_decoding_is_the_models_choice_unless_one_is_named() -> None:
    assert (await request_with(Settings())).decoding is None


def test_every_decoding_of_the_engine_can_be_chosen() -> None:
    assert get_args(DecodingChoice) == ("auto", *get_args(Decoding))


@pytest.mark.asyncio
async def test_multi_line_chooses_the_extent() -> None:
    source = "class A:\n    def add(self, a, b):\n        |"
    assert (await request_with(Settings(multi_line="never"), source)).extent == "line"
    assert (await request_with(Settings(multi_line="always"), source)).extent == "block"


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        (Settings(enabled=False), "switched off for python"),
        (Settings(languages={"python": False}), "switched off for python"),
        (Settings(exclude=("*.py",)), ""),
    ],
)
async def test_what_is_switched_off_or_excluded_never_reaches_the_engine(
    settings: Settings, reason: str, tmp_path: Path
) -> None:
    case = Case(path=tmp_path / "a.py")
    services = Services(settings, case.gate, Exclusions((tmp_path,), settings.exclude))
    outcome = await case.session.complete(case.ask, services)
    assert isinstance(outcome, Silence)
    assert reason in outcome.reason
    assert case.gate.requests == []


@pytest.mark.asyncio
async def test_in_comments_can_be_switched_off() -> None:
    case = Case("def add(a, b):\n    # the sum of a and |\n    return a + b\n")
    automatic = case.ask._replace(automatic=True)
    outcome = await case.complete(Settings(in_comments=False, debounce_ms=0), automatic)
    assert isinstance(outcome, Silence)
    assert case.gate.requests == []
    await case.complete(Settings(in_comments=True, debounce_ms=0), automatic)
    assert len(case.gate.requests) == 1


@pytest.mark.asyncio
async def test_the_request_names_language_file_and_a_document_of_this_process(tmp_path: Path) -> None:
    case = Case(path=tmp_path / "sum.py")
    await case.complete()
    (request,) = case.gate.requests
    assert (request.path, request.language) == ((tmp_path / "sum.py").as_posix(), "python")
    assert request.document.endswith(":file:///sample")
    assert request.document != "file:///sample"


@pytest.mark.asyncio
async def test_the_entry_selected_in_the_menu_begins_the_answer() -> None:
    case = Case("import json\nvalue = json.du|")
    end = case.ask.position
    selected = Selected(Position(end.line, end.character - 2), end, "dumps")
    case.gate.text = "(value)"
    outcome = await case.complete(ask=case.ask._replace(selected=selected))
    assert text(outcome).startswith("dumps")
    assert case.gate.requests[0].prefix.endswith("json.dumps")


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("score", "automatic", "is_shown"), [(-1.9, True, True), (-2.1, True, False), (-9.0, False, True)]
)
async def test_an_automatic_answer_that_the_model_doubts_is_not_shown_and_the_reason_names_the_score(
    score: float, automatic: bool, is_shown: bool
) -> None:
    case = Case()
    case.gate.score = score
    settings = Settings(min_score=-2.0, debounce_ms=0)
    outcome = await case.complete(settings, case.ask._replace(automatic=automatic))
    assert isinstance(outcome, Offer) == is_shown
    assert is_shown or f"{score:.2g}" in outcome.reason  # type: ignore[union-attr]


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("probability", "automatic", "is_shown"), [(0.72, True, True), (0.71, True, False), (0.01, False, True)]
)
async def test_a_calibrated_model_is_taken_at_its_probability_whatever_its_score(
    probability: float, automatic: bool, is_shown: bool
) -> None:
    case = Case()
    case.gate.score, case.gate.heads = -9.0, rated("a + b", probability)
    # Four keys are spared: 5 to 2 for them is worth as much as even odds for ten.
    settings = Settings(min_probability=0.5, min_score=-2.0, debounce_ms=0)
    outcome = await case.complete(settings, case.ask._replace(automatic=automatic))
    assert isinstance(outcome, Offer) == is_shown
    assert is_shown or f"{probability:.2g} for 4 keys" in outcome.reason  # type: ignore[union-attr]


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("probabilities", "automatic", "shown"),
    [
        ((0.9, 0.6, 0.4), True, 3),
        ((0.9, 0.6, 0.2), True, 2),
        ((0.9, 0.2, 0.1), True, 1),
        ((0.1, 0.1, 0.05), True, 0),
        ((0.1, 0.1, 0.05), False, 3),
    ],
)
async def test_of_several_lines_what_is_worth_it_is_shown_and_by_hand_all_of_them(
    probabilities: tuple[float, ...], automatic: bool, shown: int
) -> None:
    lines = ["total = a", "total += b", "return total"]
    case = Case("def add(a, b):\n    |\n")
    case.gate.text = "\n    ".join(lines)
    case.gate.heads = rated(case.gate.text, *probabilities)
    settings = Settings(min_probability=0.3, debounce_ms=0)
    outcome = await case.complete(settings, case.ask._replace(automatic=automatic))
    if shown:
        assert text(outcome) == "\n    ".join(lines[:shown])
    else:
        assert "where 0.3 is asked for" in outcome.reason  # type: ignore[union-attr]  # nothing is offered


def texts(outcome: Outcome) -> list[str]:
    assert isinstance(outcome, Offer), outcome
    return [outcome.suggestion.text, *(other.text for other in outcome.others)]


@pytest.mark.asyncio
async def test_by_hand_other_likely_completions_are_offered_too_and_unasked_there_is_one() -> None:
    case = Case()
    case.gate.others = ("b + a", "a + b ", "sum((a, b))")
    assert texts(await case.complete()) == ["a + b", "b + a"], "one that looks like another is left out"
    case = Case()
    case.gate.others = ("b + a",)
    assert texts(await case.complete(ask=case.ask._replace(automatic=True))) == ["a + b"]
    assert case.gate.requests[0].others == 0


@pytest.mark.asyncio
async def test_where_the_best_answer_is_none_another_is_offered_by_hand() -> None:
    case = Case()
    case.gate.text, case.gate.others = "", (" ", "a + b")
    assert texts(await case.complete()) == ["a + b"]
    case.gate.others = (" ",)
    assert await case.complete() == Silence("The engine has nothing to add.")


@pytest.mark.asyncio
async def test_typing_along_one_of_several_completions_is_answered_from_memory() -> None:
    case = Case()
    case.gate.others = ("b + a",)
    await case.complete()
    end = case.ask.position
    case.session.change([Change(end, end, "b")], 2)
    ask = Ask(Position(end.line, end.character + 1), automatic=True)
    assert texts(await case.complete(ask=ask)) == [" + a"]
    assert len(case.gate.requests) == 1


@pytest.mark.asyncio
async def test_by_hand_more_is_asked_for_than_is_shown_already() -> None:
    case = Case()
    await case.complete(ask=case.ask._replace(automatic=True))
    case.gate.text, case.gate.others = "a + b + 0", ("b + a",)
    assert texts(await case.complete()) == ["a + b + 0", "b + a"]


TYPING = "def add(a, b):\n    return|"


class Typist(Case):
    """A session whose client asks on its own account after each key, as `services` say."""

    def __init__(self, settings: Settings | None = None, source: str = TYPING) -> None:
        super().__init__(source)
        self.services = Services(settings or Settings(debounce_ms=0), self.gate, Exclusions((), ()))

    async def ask_at(self, place: Position) -> Outcome:
        return await self.session.complete(Ask(place, automatic=True), self.services)

    def press(self, start: Position, end: Position, key: str) -> None:
        self.session.change([Change(start, end, key)], 2, self.services)

    async def takes_what_is_still_foreseen(self) -> Position:
        """Take an offer while the engine is at work, without an end, on what follows; returns where the offer ends."""
        end = self.ask.position
        offered = text(await self.ask_at(end))
        self.gate.opened.clear()
        await self.asked(1, behind=1)
        self.press(end, end, offered)
        return Position(end.line, end.character + len(offered))

    async def asked(self, requests: int, behind: int | None = None) -> None:
        """Let the loop turn until the engine was asked so often, and no more often."""
        for _ in range(100):
            await asyncio.sleep(0)
        assert len(self.gate.requests) == requests
        assert behind in {None, len(self.gate.behind)}


@pytest.mark.asyncio
async def test_after_a_key_the_engine_is_asked_before_the_client_asks_and_only_once() -> None:
    typist = Typist()
    end = typist.ask.position
    await typist.ask_at(end)
    typist.press(end, end, " ")
    await typist.asked(2)
    assert typist.gate.requests[-1].prefix.endswith("return ")
    outcome = await typist.ask_at(Position(end.line, end.character + 1))
    assert text(outcome) == "a + b"
    await typist.asked(2)


@pytest.mark.asyncio
async def test_a_line_break_with_its_indentation_and_a_deleted_character_are_keys_too() -> None:
    typist = Typist(source="def add(a, b):\n    c = a|")
    end = typist.ask.position
    await typist.ask_at(end)
    typist.press(end, end, "\n    ")
    await typist.asked(2)
    await typist.ask_at(Position(2, 4))
    typist.press(Position(2, 3), Position(2, 4), "")
    await typist.asked(3)
    assert typist.gate.requests[-1].prefix.endswith("c = a\n   ")


@pytest.mark.asyncio
@pytest.mark.parametrize("lines", [1, 2])
@pytest.mark.parametrize("whole", [False, True])
async def test_when_an_offer_is_taken_the_engine_is_asked_for_what_follows_before_the_client_asks(
    lines: int, whole: bool
) -> None:
    typist = Typist(source="def add(a, b):\n    |" if lines > 1 else SOURCE)
    typist.gate.text = "c = 'ü'\n    return a" if lines > 1 else "'ü' + b"
    end = typist.ask.position
    taken = text(await typist.ask_at(end))
    # Nothing is known of what follows, as if the offer had been for other settings.
    typist.session.forget()
    await typist.asked(1, behind=0)
    row = end.line + lines - 1
    start = Position(end.line, 0) if whole else end
    before = typist.session.snapshot.lines[end.line][: end.character] if whole else ""
    typist.press(start, end, before + taken)
    # A whole line that is written anew is not the offer.
    await typist.asked(1, behind=0 if whole else 1)
    outcome = await typist.ask_at(Position(row, len(typist.session.snapshot.lines[row].rstrip("\n"))))
    assert not isinstance(outcome, EngineTrouble)
    texts = [request.prefix for request in typist.gate.behind]
    assert texts.count(typist.session.snapshot.text) == 1


@pytest.mark.asyncio
@pytest.mark.parametrize("by_hand", [False, True])
async def test_while_an_offer_is_read_the_engine_is_asked_what_follows_it_and_not_again_when_it_is_taken(
    by_hand: bool,
) -> None:
    typist = Typist(source=SOURCE)
    end = typist.ask.position
    taken = text(await typist.session.complete(Ask(end, automatic=not by_hand), typist.services))
    await typist.asked(1, behind=1)
    typist.gate.opened.clear()  # whoever asks the engine from now on waits for ever
    typist.press(end, end, taken)
    outcome = await typist.ask_at(Position(end.line, end.character + len(taken)))
    assert isinstance(outcome, Offer)
    assert outcome.infill is not None
    assert outcome.snapshot is typist.session.snapshot
    assert [request.prefix for request in typist.gate.behind[:1]] == [typist.session.snapshot.text]


@pytest.mark.asyncio
async def test_an_offer_that_is_typed_along_to_its_end_is_followed_by_what_was_foreseen() -> None:
    typist = Typist(source=SOURCE)
    end = typist.ask.position
    taken = text(await typist.ask_at(end))
    for typed, key in enumerate(taken, 1):
        place = Position(end.line, end.character + typed - 1)
        typist.press(place, place, key)
        assert isinstance(await typist.ask_at(Position(end.line, end.character + typed)), Offer)
        await typist.asked(1, behind=1 if typed < len(taken) else 2)


@pytest.mark.asyncio
@pytest.mark.parametrize("ending", ["another request", "other settings", "close"])
async def test_what_is_foreseen_ends_when_the_engine_is_asked_something_else(ending: str) -> None:
    typist = Typist(source=SOURCE)
    end = typist.ask.position
    await typist.ask_at(end)
    typist.gate.opened.clear()
    await typist.asked(1, behind=1)
    assert typist.session.running == 1
    if ending == "another request":
        typist.press(end, end, "x")
        await typist.asked(2, behind=1)
        typist.session.change([Change(end, end, "y")], 3)
    elif ending == "other settings":
        typist.session.forget()
    else:
        typist.session.close()
    await ended(typist.session)
    assert typist.gate.closed_behind == 1


@pytest.mark.asyncio
async def test_the_caller_that_is_cancelled_takes_with_it_what_was_foreseen_for_it() -> None:
    typist = Typist(source=SOURCE)
    behind = await typist.takes_what_is_still_foreseen()
    asking = asyncio.create_task(typist.ask_at(behind))
    await asyncio.sleep(0)
    asking.cancel()
    await ended(typist.session)
    assert (len(typist.gate.behind), typist.gate.closed_behind) == (1, 1)


@pytest.mark.asyncio
async def test_the_time_that_an_answer_may_take_holds_for_one_that_was_foreseen_too() -> None:
    typist = Typist(source=SOURCE)
    behind = await typist.takes_what_is_still_foreseen()
    typist.services = typist.services._replace(settings=Settings(engine=EngineSettings(answer_timeout_s=0.001)))
    async with asyncio.timeout(60):
        outcome = await typist.ask_at(behind)
    assert isinstance(outcome, EngineTrouble)
    assert (len(typist.gate.behind), typist.gate.closed_behind) == (1, 1)


@pytest.mark.asyncio
async def test_where_the_engine_failed_on_what_was_foreseen_it_is_asked_again() -> None:
    typist = Typist(source=SOURCE)
    end = typist.ask.position
    taken = text(await typist.ask_at(end))
    typist.gate.failure = EngineFailed("broken")
    await typist.asked(1, behind=1)
    typist.gate.failure = None
    typist.press(end, end, taken)
    assert isinstance(await typist.ask_at(Position(end.line, end.character + len(taken))), Offer)


@pytest.mark.asyncio
async def test_entries_of_the_menu_that_are_walked_through_are_not_looked_behind() -> None:
    case = Case("import json\nvalue = json.du|")
    end = case.ask.position
    selected = Selected(Position(end.line, end.character - 2), end, "dumps")
    assert isinstance(await case.complete(ask=case.ask._replace(selected=selected)), Offer)
    assert case.session.running == 0


@pytest.mark.asyncio
@pytest.mark.parametrize("case", ["pasted", "elsewhere", "by hand", "drafts", "nobody asked"])
async def test_nothing_is_anticipated_where_the_next_request_cannot_be_told(case: str) -> None:
    typist = Typist(Settings(debounce_ms=0, drafts=case == "drafts"))
    end = typist.ask.position
    if case != "nobody asked":
        await typist.session.complete(Ask(end, automatic=case != "by hand"), typist.services)
    asked = len(typist.gate.requests)
    start = Position(0, 0) if case == "elsewhere" else end
    typist.press(start, start, "pasted text" if case == "pasted" else " ")
    await typist.asked(asked)


@pytest.mark.asyncio
async def test_a_line_break_past_the_end_of_the_text_is_anticipated_where_it_lands() -> None:
    typist = Typist()
    await typist.ask_at(Position(99, 0))
    typist.press(Position(99, 0), Position(99, 0), "\n")
    await typist.asked(2)
    await typist.ask_at(Position(2, 0))
    await typist.asked(2)


@pytest.mark.asyncio
async def test_a_line_feed_behind_a_carriage_return_ends_no_line_of_its_own() -> None:
    typist = Typist(source="x = 1 + 2 + 3\r|")
    await typist.ask_at(typist.ask.position)
    typist.press(typist.ask.position, typist.ask.position, "\n")
    assert texts(await typist.ask_at(Position(1, 0))) == ["a + b"]


@pytest.mark.asyncio
async def test_a_request_for_another_place_ends_what_was_anticipated() -> None:
    typist = Typist()
    end = typist.ask.position
    await typist.ask_at(end)
    typist.gate.opened.clear()
    typist.press(end, end, " ")
    await typist.asked(2)
    asking = asyncio.create_task(typist.ask_at(Position(0, 3)))
    await asyncio.sleep(0)
    typist.session.close()
    await asking
    await ended(typist.session)
    assert typist.gate.closed == len(typist.gate.requests)


@pytest.mark.asyncio
async def test_an_anticipated_failure_is_told_to_the_request_that_comes() -> None:
    typist = Typist()
    end = typist.ask.position
    await typist.ask_at(end)
    typist.gate.failure = EngineFailed("broken")
    typist.press(end, end, " ")
    await typist.asked(2)
    assert await typist.ask_at(Position(end.line, end.character + 1)) == EngineTrouble("broken")


@pytest.mark.asyncio
async def test_an_anticipated_answer_is_for_the_settings_of_the_request() -> None:
    typist = Typist()
    end = typist.ask.position
    await typist.ask_at(end)
    typist.press(end, end, " ")
    await typist.asked(2)
    typist.services = typist.services._replace(settings=Settings(enabled=False))
    outcome = await typist.ask_at(Position(end.line, end.character + 1))
    assert outcome == Silence("Completions are switched off for python.")
