"""`dg-lsp demo`: a real server, a real engine, a real file; each completion shown while it crystallises.

The demonstration is a language client like any editor. It starts `dg-lsp` as a process, opens one of this project's own
source files, on which no model of ours was trained, cuts a hole at several places and asks for what belongs there.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

import dg_engine
from dg_lsp.convert import DRAFT, EXPLAIN
from dg_lsp.testing_client import INLINE, LOADING_S, Message, RawClient, inline_params

FILE = Path(dg_engine.__file__).parent / "prefix_store.py"

SHOWN_DELAY_S = 0.08
"""Between two steps on a terminal: one takes some 10 ms, too short to be seen. The times printed are the true ones."""

PICTURE_COLUMNS = 108

LINE_BREAK = "⏎"


@dataclass(frozen=True, slots=True)
class Scene:
    """A hole: what stands on the line before it, and how much of the file it takes away."""

    before: str
    """The end of the text before the cursor; found once in the file."""
    lines: int = 0
    """Whole lines taken away behind the rest of the cursor's own."""


SCENES = (
    Scene("loop: DeviceLoop | None = None) -> "),
    Scene("        self._model "),
    Scene("tokens: list[int]) -> PrefixCache "),
    Scene("tokens: list[int], cache: PrefixCache) -> "),
    Scene("    length = min(len(first), len(second))\n    ", lines=1),
)


@dataclass(frozen=True, slots=True)
class Cut:
    """A scene in a text: the text without what was taken away, and the cursor."""

    text: str
    line: int
    character: int
    taken: str


def cut(text: str, scene: Scene) -> Cut:
    """Take a scene's hole out of a text.

    Raises:
        ValueError: the scene's place is not in the text exactly once.
    """
    if text.count(scene.before) != 1:
        raise ValueError(f"{scene.before!r} is in the file {text.count(scene.before)} times, not once")
    start = text.index(scene.before) + len(scene.before)
    end = start
    for _ in range(scene.lines + 1):
        end = text.index("\n", end + (end > start))
    line = text.count("\n", 0, start)
    return Cut(text[:start] + text[end:], line, start - (text.rfind("\n", 0, start) + 1), text[start:end])


class Stage:
    """The server process and one open document, whose text is replaced for each scene."""

    def __init__(self, client: RawClient, settings: dict[str, Any]) -> None:
        self._client = client
        self._uri = FILE.as_uri()
        self._version = 1
        # Only diffusion refines a whole draft at every step; what a checkpoint does best may be another way.
        watched = {**settings, "decoding": "diffusion", "drafts": True}
        client.initialize(INLINE, rootUri=FILE.parent.as_uri(), initializationOptions=watched)
        client.open("", self._uri)

    def wait(self) -> None:
        """Return when the engine has answered something."""
        for _ in self.play(Cut("import ", 0, len("import "), "")):
            pass

    def reason(self) -> str:
        """Why the last request was answered with nothing."""
        explanation = self._client.call("workspace/executeCommand", {"command": EXPLAIN, "arguments": [self._uri]})
        return str(explanation["reason"])

    def play(self, scene: Cut) -> Iterator[Message]:
        """Ask at the cursor; yields the parameters of each draft, then the item of the answer if there is one."""
        self._version += 1
        self._client.change(self._uri, self._version, scene.text)
        asked = self._client.ask("textDocument/inlineCompletion", inline_params(self._uri, scene.line, scene.character))
        for message in self._client.stream():
            if message.get("method") == DRAFT:
                yield message["params"]
            elif message.get("id") == asked:
                yield from (message.get("result") or {"items": []})["items"]
                return


def run(settings: dict[str, Any], console: Console | None = None) -> int:
    """Play all scenes; returns the exit status: 0 if anything was offered."""
    console = console or Console(highlight=False)
    text = FILE.read_text(encoding="utf-8")
    answered = 0
    with RawClient(patience_s=LOADING_S) as client:
        with console.status("Starting the server and its engine"):
            stage = Stage(client, settings)
            stage.wait()
        for scene in SCENES:
            answered += _show(console, stage, cut(text, scene), FILE.name)
        client.shut_down()
    console.print(f"{answered} of {len(SCENES)} places answered, in {FILE.name}.", style="bold")
    return 0 if answered else 1


def record(settings: dict[str, Any], picture: Path) -> int:
    """Play all scenes and write what was shown as a picture; returns the exit status."""
    console = Console(highlight=False, record=True, width=PICTURE_COLUMNS)
    status = run(settings, console)
    picture.write_text(svg_of(console, "dg-lsp demo"), encoding="utf-8")
    return status


def _show(console: Console, stage: Stage, scene: Cut, name: str) -> bool:
    """Print a line for each step and then the finished text; whether there was one."""
    console.print(f"\n{name}:{scene.line + 1}", style="bold")
    before = scene.text.splitlines()[scene.line][: scene.character]
    started = time.perf_counter()
    item: Message | None = None
    for message in stage.play(scene):
        if "insertText" in message:
            item = message
        else:
            console.print(_draft_line(before, message), no_wrap=True, overflow="ellipsis")
            if console.is_terminal:
                time.sleep(SHOWN_DELAY_S)
    took = 1000 * (time.perf_counter() - started)
    if item is None:
        console.print(Text(f"          {stage.reason()}", "dim"))
        return False
    line = Text(f"{took:5.0f} ms  ", "dim").append(before, "default").append(_flat(item["insertText"]), "bold green")
    console.print(line, no_wrap=True, overflow="ellipsis")
    return True


def _draft_line(before: str, draft: Message) -> Text:
    line = Text(f"{draft['milliseconds']:5.0f} ms  {before}", "dim")
    for piece in draft["pieces"]:
        line.append(_flat(piece["text"]), "green" if piece["settled"] else "magenta dim")
    return line


def _flat(text: str) -> str:
    return text.replace("\n", LINE_BREAK)


def svg_of(console: Console, title: str) -> str:
    """What a recording console has shown. Rich's own pictures fetch a font from the network; any monospaced will do."""
    svg = re.sub(r"@font-face \{.*?\}", "", console.export_svg(title=title), flags=re.DOTALL)
    return svg.replace("Fira Code", "monospace")
