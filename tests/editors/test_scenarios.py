"""One behaviour everywhere: what a user does, and what shows on the screen and lands in the file, in each editor.

The engine is scripted (`scenarios.json`); keys, display and files are the real editor's.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator

import pytest
from desk import FAILED, Desk
from driver import Editor, until

HEAD = "def area(width, height):\n    "
RESULT = "width * height"
TOTAL = "result = 0\n    for item in items:\n        result += item\n    return result"


@pytest.fixture
def desk(shared_editor: Editor, request: pytest.FixtureRequest) -> Iterator[Desk]:
    """The editor and a file of the scenario's own.

    Whatever the scenario was, what is saved at its end is what was written, without a trace of ghost text, and nothing
    that a user would call an error has shown.
    """
    scenario = request.node.originalname.removeprefix("test_")
    if (reason := shared_editor.cannot.get(scenario)) is not None:
        pytest.skip(f"impossible in {shared_editor.name}: {reason}")
    desk = Desk(shared_editor, scenario)
    yield desk
    if request.node.stash.get(FAILED, False):
        desk.keep()
    else:
        desk.is_saved_as_it_is()
    assert shared_editor.popups() == ""


def test_one_line(desk: Desk) -> None:
    desk.open(HEAD + "|\n")
    desk.editor.type("return ")
    desk.editor.wait_for_ghost(RESULT)
    desk.shows("    return width * height")
    desk.keep()
    assert desk.editor.text() == HEAD + "return \n"


def test_several_lines(desk: Desk) -> None:
    desk.open("def total(items):\n   |\n\n\nprint(total([1]))\n")
    desk.editor.type(" ")
    desk.editor.wait_for_ghost(TOTAL)
    desk.shows("    result = 0", "    for item in items:", "        result += item", "    return result", "print(total")
    desk.keep()
    desk.editor.accept()
    desk.holds(f"def total(items):\n    {TOTAL}\n\n\nprint(total([1]))\n")


def test_typing_along(desk: Desk) -> None:
    desk.open(HEAD + "|\n")
    desk.editor.type("return ")
    desk.editor.wait_for_ghost(RESULT)
    for typed in range(1, 6):
        desk.editor.type(RESULT[typed - 1])
        desk.editor.wait_for_ghost(RESULT[typed:])
    desk.shows("    return width * height")
    desk.editor.type("s")
    desk.editor.wait_for_no_ghost()
    assert desk.editor.text() == HEAD + "return widths\n"


def test_accepting_all(desk: Desk) -> None:
    desk.open(HEAD + "|\n")
    desk.editor.type("return ")
    desk.editor.wait_for_ghost(RESULT)
    desk.editor.accept()
    desk.holds(HEAD + "return width * height\n")
    desk.editor.wait_for_no_ghost()


def test_accepting_word_by_word(desk: Desk) -> None:
    desk.open(HEAD + "|\n")
    desk.editor.type("return ")
    rest = desk.editor.wait_for_ghost(RESULT)
    words = 0
    while rest:
        desk.editor.accept_word()
        taken = until(lambda rest=rest: _taken(desk.editor, rest), "no word was accepted")  # type: ignore[misc]
        rest = rest[len(taken) :]
        words += 1
        if rest:
            desk.editor.wait_for_ghost(rest)
    # VS Code has its own idea of a word: it stops before the blank behind `*` as well.
    assert words in {3, 4}
    desk.holds(HEAD + "return width * height\n")


def _taken(editor: Editor, rest: str) -> str:
    """What of `rest` has been accepted since it was all ghost text."""
    line = editor.text().split("\n")[1].removeprefix("    return ")
    return line[len(RESULT) - len(rest) :]


def test_accepting_line_by_line(desk: Desk) -> None:
    desk.open("def total(items):\n   |\n\n\nprint(total([1]))\n")
    desk.editor.type(" ")
    desk.editor.wait_for_ghost(TOTAL)
    tail = "\n\n\nprint(total([1]))\n"
    seen: list[str] = []
    while len(seen) < 8 and (not seen or seen[-1] != TOTAL):
        before = desk.editor.text()
        desk.editor.accept_line()
        until(lambda before=before: desk.editor.text() != before, "no line was accepted")  # type: ignore[misc]
        seen.append(desk.editor.text().removeprefix("def total(items):\n    ").removesuffix(tail))
        assert TOTAL.startswith(seen[-1].rstrip())
        if seen[-1] != TOTAL:
            desk.editor.wait_for_ghost(TOTAL[len(seen[-1]) :])
    assert seen[0].strip() == "result = 0"
    assert len(seen) >= 4
    desk.holds(f"def total(items):\n    {TOTAL}{tail}")


def test_taking_the_place_of_the_rest_of_the_line(desk: Desk) -> None:
    desk.open("def check(width, height):\n    if area(|)\n        return True\n")
    desk.editor.type("w")
    desk.editor.wait_for_ghost()
    desk.shows("    if area(width, height) > 10:")
    assert "10:)" not in desk.editor.screen()
    desk.keep()
    desk.editor.accept()
    desk.holds("def check(width, height):\n    if area(width, height) > 10:\n        return True\n")


def test_emoji_and_cjk_before_the_cursor(desk: Desk) -> None:
    desk.open(HEAD + 'label = "😀漢字é👩‍👧"; |\n')
    desk.editor.type("return ")
    desk.editor.wait_for_ghost(RESULT)
    desk.editor.accept()
    desk.holds(HEAD + 'label = "😀漢字é👩‍👧"; return width * height\n')


def test_a_file_with_crlf(desk: Desk) -> None:
    desk.open("def total(items):\n   |\n\n\nprint(total([1]))\n", newline="\r\n")
    desk.editor.type(" ")
    desk.editor.wait_for_ghost(TOTAL)
    assert "\r" not in desk.editor.screen()
    desk.editor.accept()
    desk.holds(f"def total(items):\n    {TOTAL}\n\n\nprint(total([1]))\n", newline="\r\n")


def test_a_file_indented_with_tabs(desk: Desk) -> None:
    desk.open("def area(width, height):\n\treturn width\n\n\ndef count(items):\n\t|\n")
    desk.editor.type("n")
    desk.editor.backspace()
    wanted = "number = 0\n\tfor item in items:\n\t\tnumber += 1\n\treturn number"
    desk.editor.wait_for_ghost(wanted)
    desk.keep()
    desk.editor.accept()
    desk.holds(f"def area(width, height):\n\treturn width\n\n\ndef count(items):\n\t{wanted}\n")


def test_undo_takes_an_accepted_text_back_in_one_step(desk: Desk) -> None:
    desk.open("def total(items):\n   |\n\n\nprint(total([1]))\n")
    desk.editor.type(" ")
    desk.editor.wait_for_ghost(TOTAL)
    desk.editor.accept()
    desk.editor.wait_for_text(f"def total(items):\n    {TOTAL}\n\n\nprint(total([1]))\n")
    desk.editor.undo()
    desk.editor.wait_for_text("def total(items):\n    \n\n\nprint(total([1]))\n")


def test_typing_on_cancels_a_request(desk: Desk) -> None:
    desk.open(HEAD + "|\n")
    desk.editor.type("late = ")
    desk.editor.type("i")
    desk.editor.wait_for_ghost("n_time()")
    desk.go_to(HEAD + "late = i")
    desk.editor.type("\n")
    desk.editor.type("hang = ")
    desk.editor.type("n")
    desk.editor.wait_for_ghost("othing")


def test_an_engine_that_dies_in_the_middle(desk: Desk) -> None:
    desk.open(HEAD + "|\n")
    desk.editor.type("dead = ")
    desk.editor.wait_for_status("error")
    assert not desk.editor.ghost()
    desk.editor.type("1; return ")
    desk.editor.wait_for_ghost(RESULT)
    desk.editor.wait_for_status("ready")


def test_a_server_that_is_killed(desk: Desk) -> None:
    desk.open(HEAD + "|\n")
    desk.editor.type("return ")
    desk.editor.wait_for_ghost(RESULT)
    pid = desk.editor.server_pid()
    os.kill(pid, signal.SIGKILL)
    desk.editor.restart_server()
    assert desk.editor.server_pid() != pid
    desk.editor.backspace()
    desk.editor.type(" ")
    desk.editor.wait_for_ghost(RESULT)
    assert desk.editor.text() == HEAD + "return \n"


def test_an_ignored_file(desk: Desk) -> None:
    (desk.workspace / ".dglspignore").write_text("hidden_*.py\n")
    desk.open(HEAD + "|\n", name="hidden_plan.py")
    desk.editor.type("return ")
    desk.stays_quiet()
    desk.open(HEAD + "|\n", name="open_plan.py")
    desk.editor.type("return ")
    desk.editor.wait_for_ghost(RESULT)


def test_snoozing(desk: Desk) -> None:
    desk.open(HEAD + "|\n")
    desk.editor.snooze(5)
    desk.editor.wait_for_status("snoozed")
    desk.editor.type("return ")
    desk.stays_quiet()
    desk.editor.trigger()
    desk.editor.wait_for_ghost(RESULT)
    desk.editor.snooze(0)
    desk.editor.wait_for_status("ready")
    desk.editor.backspace()
    desk.editor.type(" ")
    desk.editor.wait_for_ghost(RESULT)


def test_switching_the_model(desk: Desk, restored: Callable[..., None]) -> None:
    desk.open(HEAD + "|\n")
    restored(engine={"model": "other"})
    desk.editor.wait_for_status("ready")
    desk.editor.type("return ")
    desk.editor.wait_for_ghost("height * width")


def test_switching_off_and_on(desk: Desk, restored: Callable[..., None]) -> None:
    desk.open(HEAD + "|\n")
    restored(enabled=False)
    desk.editor.wait_for_status("off")
    desk.editor.type("return ")
    desk.stays_quiet()
    desk.editor.configure(enabled=True)
    desk.editor.wait_for_status("ready")
    desk.editor.backspace()
    desk.editor.type(" ")
    desk.editor.wait_for_ghost(RESULT)


def test_watching_it_crystallise(desk: Desk, restored: Callable[..., None]) -> None:
    desk.open(HEAD + "|\n")
    restored(drafts=True)
    desk.editor.type("draft = ")
    drafts: set[str] = set()

    def crystallised() -> str:
        # The draft is read first: what is read as ghost text afterwards has taken its place.
        drafts.add(desk.editor.draft())
        return desk.editor.ghost()

    until(lambda: drafts - {""} or crystallised(), "neither a draft nor an answer")
    desk.keep()
    assert until(crystallised, "no answer") == "[width, height]"
    until(lambda: not desk.editor.draft(), "the draft stays beside the answer")
    assert len(drafts - {""}) >= 2
    assert any("[" in draft for draft in drafts)


def test_asking_by_hand(desk: Desk) -> None:
    desk.open(HEAD + "return |\n")
    desk.editor.trigger()
    desk.editor.wait_for_ghost(RESULT)
    desk.editor.accept()
    desk.holds(HEAD + "return width * height\n")


def test_dismissing(desk: Desk) -> None:
    desk.open(HEAD + "|\n")
    desk.editor.type("return ")
    desk.editor.wait_for_ghost(RESULT)
    desk.editor.dismiss()
    desk.editor.wait_for_no_ghost()
    assert desk.editor.text() == HEAD + "return \n"


def test_moving_away(desk: Desk) -> None:
    desk.open("answer = 42\n" + HEAD + "|\n")
    desk.editor.type("return ")
    desk.editor.wait_for_ghost(RESULT)
    desk.editor.go_to(0, 3)
    desk.editor.wait_for_no_ghost()
    until(lambda: RESULT not in desk.editor.screen(), "what was ghost text is still on the screen")


def test_the_tab_key_where_nothing_is_shown(desk: Desk) -> None:
    desk.open("if True:\n|pass\n")
    desk.editor.accept()
    until(lambda: desk.editor.text() in {"if True:\n    pass\n", "if True:\n\tpass\n"}, "Tab does not indent any more")


@pytest.fixture
def restored(desk: Desk) -> Iterator[Callable[..., None]]:
    """Change settings; the defaults of those that were named come back afterwards."""
    defaults = {"engine": {"model": ""}, "enabled": True, "drafts": False}
    changed: set[str] = set()

    def configure(**settings: object) -> None:
        changed.update(settings)
        desk.editor.configure(**settings)

    yield configure
    desk.editor.configure(**{name: defaults[name] for name in changed})
