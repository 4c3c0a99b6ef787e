"""One behaviour everywhere: what a user does, and what shows on the screen and lands in the file, in each editor.

Keys, display and files are the real editor's. Each scenario is run with a scripted engine, of which every answer is
known (`scenarios.json`), and with the engine and the model that ship, of which it is not: there the relations are
asserted between what shows, what is accepted and what is saved. Each file holds what a model can go by.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator

import pytest
from desk import FAILED, Desk, launch
from driver import Editor, until
from engines import Engine

HEAD = "def area(width, height):\n    return width * height\n\n\ndef surface(width, height):\n    "
RESULT = "width * height"
TOTAL = "result = 0\n    for item in items:\n        result += item\n    return result"
TOTAL_HEAD = f"def add_all(items):\n    {TOTAL}\n\n\ndef total(items):\n    "
TOTAL_TAIL = "\n\n\nprint(total([1]))\n"
LINES_HEAD = 'def lines(path):\n    """Read a file, and return its lines without the blanks at their ends."""\n    '
ON_ITS_WAY_S = 0.5
"""For so long a draft may be on its way from the engine to the screen."""
BEFORE_TOTAL = f"{TOTAL_HEAD[:-1]}|{TOTAL_TAIL}"


@pytest.fixture
def desk(shared_editor: Editor, engine: Engine, request: pytest.FixtureRequest) -> Iterator[Desk]:
    """The editor and a file of the scenario's own.

    Whatever the scenario was, what is saved at its end is what was written, without a trace of ghost text, and nothing
    that a user would call an error has shown.
    """
    scenario = request.node.originalname.removeprefix("test_")
    for name, cannot in ((shared_editor.name, shared_editor.cannot), ("this run", engine.cannot)):
        if (reason := cannot.get(scenario)) is not None:
            pytest.skip(f"impossible in {name}: {reason}")
    desk = Desk(shared_editor, scenario, engine)
    yield desk
    if request.node.stash.get(FAILED, False):
        desk.keep()
    else:
        desk.is_saved_as_it_is()
    assert shared_editor.popups() == ""


def test_one_line(desk: Desk) -> None:
    desk.open(HEAD + "|\n")
    desk.type("return ")
    shown = desk.offers(RESULT)
    desk.shows(f"{HEAD}return {shown}")
    desk.keep()
    assert desk.editor.text() == HEAD + "return \n"


def test_several_lines(desk: Desk) -> None:
    desk.open(BEFORE_TOTAL)
    desk.type(" ")
    shown = desk.offers(TOTAL)
    assert "\n" in shown
    desk.shows(TOTAL_HEAD + shown + TOTAL_TAIL.rstrip())
    desk.keep()
    desk.editor.accept()
    desk.holds(TOTAL_HEAD + shown + TOTAL_TAIL)


def test_typing_along(desk: Desk) -> None:
    desk.open(HEAD + "|\n")
    desk.type("return ")
    shown = desk.offers(RESULT)
    assert len(shown) > 1
    for typed in range(1, min(6, len(shown))):
        desk.type(shown[typed - 1])
        desk.editor.wait_for_ghost(shown[typed:])
    desk.shows(f"{HEAD}return {shown}")
    desk.type("s")
    desk.offers_nothing()
    assert desk.editor.text() == f"{HEAD}return {shown[: min(5, len(shown) - 1)]}s\n"


def test_accepting_all(desk: Desk) -> None:
    desk.open(HEAD + "|\n")
    desk.type("return ")
    shown = desk.offers(RESULT)
    desk.editor.accept()
    desk.holds(f"{HEAD}return {shown}\n")
    desk.offers_nothing()


def test_accepting_word_by_word(desk: Desk) -> None:
    desk.open(HEAD + "|\n")
    desk.type("return ")
    rest = shown = desk.offers(RESULT)
    while rest:
        desk.editor.accept_word()
        wanted = f"{HEAD}return {shown.removesuffix(rest)}"
        taken = until(lambda wanted=wanted: _behind(desk, wanted), "no word was accepted")  # type: ignore[misc]
        assert rest.startswith(taken)
        # VS Code has its own idea of a word: it may stop before the blank behind `*` as well.
        assert len(taken.split()) <= 1
        rest = rest[len(taken) :]
        if rest:
            desk.editor.wait_for_ghost(rest)
    desk.holds(f"{HEAD}return {shown}\n")


def _behind(desk: Desk, before: str) -> str:
    """What has come behind this text, at the end of the buffer."""
    return desk.editor.text().removeprefix(before).removesuffix("\n")


def test_accepting_line_by_line(desk: Desk) -> None:
    desk.open(BEFORE_TOTAL)
    desk.type(" ")
    shown = desk.offers(TOTAL)
    taken: list[str] = [""]
    while taken[-1] != shown and len(taken) < 2 * len(shown):
        before = desk.editor.text()
        desk.editor.accept_line()
        until(lambda before=before: desk.editor.text() != before, "no line was accepted")  # type: ignore[misc]
        taken.append(desk.editor.text().removeprefix(TOTAL_HEAD).removesuffix(TOTAL_TAIL))
        assert shown.startswith(taken[-1].rstrip())
        assert taken[-1].rstrip().count("\n") <= taken[-2].rstrip().count("\n") + 1
        if taken[-1] != shown:
            desk.editor.wait_for_ghost(shown[len(taken[-1]) :])
    assert taken[1].strip() == shown.split("\n")[0]
    assert len(taken) > len(shown.split("\n"))
    desk.holds(TOTAL_HEAD + shown + TOTAL_TAIL)


def test_taking_the_place_of_the_rest_of_the_line(desk: Desk, engine: Engine, restored: Callable[..., None]) -> None:
    # What is written with a look at what follows stops before it.
    restored(decoding="causal")
    head = (
        "def watch(width, height):\n    while area(width, height) > 10:\n        pass\n\n\ndef check(width, height):\n"
    )
    desk.open(f"{head}    if area(|)\n        return True\n")
    desk.type("w")
    desk.editor.wait_for_ghost()
    written = until(lambda: _line(desk, "    if area(w"), lambda: f"the line is not drawn:\n{desk.editor.screen()}")
    assert written == engine.says("    if area(width, height) > 10:") or engine.says(written) is None
    assert written.count("(") == written.count(")")
    assert not written.endswith(")")
    desk.keep()
    desk.editor.accept()
    desk.holds(f"{head}{written}\n        return True\n")


def _line(desk: Desk, beginning: str) -> str:
    """The line on the screen that begins like this, with ghost text in it."""
    lines = [line.rstrip() for line in desk.editor.screen().split("\n")]
    return next((line for line in lines if line.startswith(beginning) and line != beginning + ")"), "")


def test_emoji_and_cjk_before_the_cursor(desk: Desk) -> None:
    before = HEAD + 'label = "😀漢字é👩‍👧"; '
    desk.open(before + "|\n")
    desk.type("return ")
    shown = desk.offers(RESULT)
    desk.editor.accept()
    desk.holds(f"{before}return {shown}\n")


def test_a_file_with_crlf(desk: Desk) -> None:
    desk.open(BEFORE_TOTAL, newline="\r\n")
    desk.type(" ")
    shown = desk.offers(TOTAL)
    assert "\n" in shown
    assert "\r" not in desk.editor.screen()
    desk.editor.accept()
    desk.holds(TOTAL_HEAD + shown + TOTAL_TAIL, newline="\r\n")


def test_a_file_indented_with_tabs(desk: Desk) -> None:
    before, after = (text.replace("    ", "\t").replace("total", "count") for text in (TOTAL_HEAD, TOTAL_TAIL))
    desk.open(f"{before}|{after}")
    desk.type("n")
    desk.backspace()
    shown = desk.offers(TOTAL.replace("    ", "\t"))
    # The script's answer has four lines; that of a model may have one.
    assert all(line.startswith("\t") for line in shown.split("\n")[1:])
    assert "  " not in shown
    desk.keep()
    desk.editor.accept()
    desk.holds(before + shown + after)


def test_undo_takes_an_accepted_text_back_in_one_step(desk: Desk) -> None:
    desk.open(BEFORE_TOTAL)
    desk.type(" ")
    desk.accept(desk.offers(TOTAL))
    desk.editor.undo()
    desk.editor.wait_for_text(TOTAL_HEAD + TOTAL_TAIL)


def test_typing_on_cancels_a_request(desk: Desk, engine: Engine) -> None:
    before = "def plan(width):\n    late = in_time(width)\n    hang = nothing(width)\n\n\ndef plans(width):\n    "
    desk.open(f"{before}|\n")
    desk.editor.wait_for_status("ready")
    for request, typed, rest in (("late = ", "i", "n_time(width)"), ("; hang = ", "n", "othing(width)")):
        with engine.held():
            desk.type(request)
            desk.editor.wait_for_status("working")
            desk.type(typed)
        desk.accept(desk.offers(rest))


def test_an_engine_that_dies_in_the_middle(desk: Desk, engine: Engine) -> None:
    desk.open(HEAD + "|\n")
    desk.editor.wait_for_status("ready")
    with engine.dying(desk.editor):
        desk.type("dead = ")
    desk.type("1; return ")
    desk.offers(RESULT)
    desk.editor.wait_for_status("ready")


def test_a_server_that_is_killed(desk: Desk) -> None:
    desk.open(HEAD + "|\n")
    desk.type("return ")
    desk.offers(RESULT)
    pid = desk.editor.server_pid()
    desk.editor.snooze(5)
    desk.editor.wait_for_status("snoozed")
    os.kill(pid, signal.SIGKILL)
    desk.editor.restart_server()
    assert desk.editor.server_pid() != pid
    # The pause is the user's, and outlives it.
    desk.editor.wait_for_status("snoozed")
    desk.editor.snooze(0)
    desk.retype()
    desk.offers(RESULT)
    assert desk.editor.text() == HEAD + "return \n"


def test_two_windows_share_one_engine(desk: Desk, engine: Engine, editor_name: str) -> None:
    desk.open(HEAD + "|\n")
    desk.type("return ")
    desk.offers(RESULT)
    shared = engine.processes()
    assert len(shared) == 1
    other = launch(editor_name, engine.home, engine.server, **engine.settings)
    try:
        second = Desk(other, "second_window", engine)
        second.open(HEAD + "|\n")
        second.type("return ")
        second.offers(RESULT)
        assert other.server_pid() != desk.editor.server_pid()
        assert engine.processes() == shared
        desk.retype()
        desk.offers(RESULT)
    finally:
        other.close()


def test_an_ignored_file(desk: Desk) -> None:
    (desk.workspace / ".dglspignore").write_text("hidden_*.py\n")
    desk.open(HEAD + "|\n", name="hidden_plan.py")
    desk.type("return ")
    desk.stays_quiet()
    desk.open(HEAD + "|\n", name="open_plan.py")
    desk.type("return ")
    desk.offers(RESULT)


def test_snoozing(desk: Desk) -> None:
    desk.open(HEAD + "|\n")
    desk.editor.wait_for_status("ready")
    desk.editor.snooze(5)
    desk.editor.wait_for_status("snoozed")
    desk.type("return ")
    desk.stays_quiet()
    desk.editor.trigger()
    desk.offers(RESULT)
    desk.editor.snooze(0)
    desk.editor.wait_for_status("ready")
    desk.retype()
    desk.offers(RESULT)


def test_switching_the_model(desk: Desk, engine: Engine, restored: Callable[..., None]) -> None:
    desk.open(HEAD + "|\n")
    restored(engine={"model": engine.other_model})
    desk.editor.wait_for_status("ready")
    desk.type("return ")
    desk.offers("height * width")
    assert len(engine.processes(engine.other_model)) == len(engine.processes())


def test_switching_off_and_on(desk: Desk, restored: Callable[..., None]) -> None:
    desk.open(HEAD + "|\n")
    restored(enabled=False)
    desk.editor.wait_for_status("off")
    desk.type("return ")
    desk.stays_quiet()
    desk.editor.configure(enabled=True)
    desk.editor.wait_for_status("ready")
    desk.retype()
    desk.offers(RESULT)


def test_watching_it_crystallise(desk: Desk, engine: Engine, restored: Callable[..., None]) -> None:
    # A body, and none that could be copied: a model has to look for it, and changes its mind at almost each step.
    desk.open(LINES_HEAD[:-1] + "|\n")
    desk.editor.wait_for_status("ready")
    restored(drafts=True, decoding="diffusion")
    drafts: set[str] = set()

    with engine.stepped() as step:

        def crystallised() -> str:
            step()
            shown, until_s = "", time.monotonic() + ON_ITS_WAY_S
            while not shown and time.monotonic() < until_s:
                # The draft is read first: what is read as ghost text afterwards has taken its place.
                draft, shown = desk.editor.draft(), desk.editor.ghost()
                if draft not in {"", *drafts}:
                    drafts.add(draft)
                    break
            return shown

        desk.type(" ")
        until(lambda: crystallised() or len(drafts) >= 2, "neither drafts nor an answer")
        desk.keep()
        until(crystallised, "no answer")
    desk.offers("return path.read_text().split()")
    until(lambda: not desk.editor.draft(), "the draft stays beside the answer")
    assert len(drafts) >= 2


def test_asking_by_hand(desk: Desk) -> None:
    desk.open(HEAD + "return |\n")
    desk.editor.trigger()
    desk.accept(desk.offers(RESULT))


def test_the_next_of_several_completions(desk: Desk) -> None:
    desk.open(HEAD + "|\n")
    desk.type("size = ")
    desk.offers("width")
    desk.editor.show_next()
    desk.offers("height")
    desk.editor.show_next()
    desk.accept(desk.offers(RESULT))


def test_dismissing(desk: Desk) -> None:
    desk.open(HEAD + "|\n")
    desk.type("return ")
    desk.offers(RESULT)
    desk.editor.dismiss()
    desk.editor.wait_for_no_ghost()
    assert desk.editor.text() == HEAD + "return \n"


def test_moving_away(desk: Desk) -> None:
    desk.open("answer = 42\n" + HEAD + "|\n")
    desk.type("return ")
    shown = desk.offers(RESULT)
    desk.shows(f"{HEAD}return {shown}")
    desk.editor.go_to(0, 3)
    desk.editor.wait_for_no_ghost()
    until(lambda: not desk.draws(f"{HEAD}return {shown}"), "what was ghost text is still on the screen")


def test_the_tab_key_where_nothing_is_shown(desk: Desk) -> None:
    desk.open("if True:\n|pass\n")
    desk.editor.accept()
    until(lambda: desk.editor.text() in {"if True:\n    pass\n", "if True:\n\tpass\n"}, "Tab does not indent any more")


@pytest.fixture
def restored(desk: Desk) -> Iterator[Callable[..., None]]:
    """Change settings; the defaults of those that were named come back afterwards."""
    defaults = {"engine": {"model": ""}, "enabled": True, "drafts": False, "decoding": "auto"}
    changed: set[str] = set()

    def configure(**settings: object) -> None:
        changed.update(settings)
        desk.editor.configure(**settings)

    yield configure
    desk.editor.configure(**{name: defaults[name] for name in changed})
