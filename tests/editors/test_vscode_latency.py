"""From the press of a key to visible ghost text in VS Code, as the page itself sees it; pytest's summary has it.

Timings depend on who else uses the machine, so what fails a test here is ghost text that does not come; the bars are
for a machine that is otherwise idle.
"""

from __future__ import annotations

import argparse
import inspect
import json
import os
import re
import signal
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import driver_vscode_host as vscode
import pytest
from desk import ARTIFACTS, SERVER, launch
from driver_vscode import VSCode

from dg_engine import paths
from dg_engine.testing import health_of

WARMING = 10
TRIALS = 60
TYPED = 4
APART = 12
SAMPLES = 30
"""At least so many trials must show something; the real model sometimes has nothing to say."""
QUIET_S = 0.3
SILENCE_S = 1.0
UNSURE = -1000.0
"""A `minScore` with which everything is shown."""

GHOST = ".ghost-text-decoration, .suggest-preview-text .ghost-text"

# Promises, not values to be asked for again and again: each question would run in the thread that draws.
SILENT = f"""
() => new Promise((resolve) => {{
    const look = () => {{
        if (document.querySelector("{GHOST}")) {{
            observer.disconnect();
            resolve(false);
        }}
    }};
    const observer = new MutationObserver(look);
    observer.observe(document.body, {{ childList: true, subtree: true }});
    setTimeout(() => {{ observer.disconnect(); resolve(true); }}, {1000 * QUIET_S});
    look();
}})
"""
"""Whether nothing shows for a while; false as soon as something does."""

NEXT_GHOST = f"""
() => {{ window.dgLatency = new Promise((resolve) => {{
    setTimeout(() => resolve(null), {1000 * SILENCE_S});
    document.addEventListener("keydown", (key) => {{
        const observer = new MutationObserver(() => {{
            if (document.querySelector("{GHOST}")) {{
                observer.disconnect();
                // The first task after the next frame: by then what was drawn is on the screen. (Element timing would
                // tell to the millisecond, but not of texts as short as `[]`.)
                const painted = new MessageChannel();
                painted.port1.onmessage = () => resolve(performance.now() - key.timeStamp);
                requestAnimationFrame(() => painted.port2.postMessage(null));
            }}
        }});
        observer.observe(document.body, {{ childList: true, subtree: true, attributes: true }});
    }}, {{ capture: true, once: true }});
}}); }}
"""


@pytest.fixture
def base(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where a user of VS Code lives; their engine is ended with the test."""
    if (missing := vscode.missing()) is not None:
        pytest.skip(f"VS Code is not here ({missing}): make editors")
    with tempfile.TemporaryDirectory(prefix="dg", ignore_cleanup_errors=True) as path:
        monkeypatch.setenv("XDG_RUNTIME_DIR", f"{path}/run")
        yield Path(path)
        if paths.socket_path("").exists():
            os.kill(health_of("").pid, signal.SIGKILL)


@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    ("engine", "bar_ms"),
    [(("--backend", "scripted", "--script", "SCRIPT"), 100), ((), 250)],
    ids=["scripted", "small"],
)
def test_key_press_to_ghost_text(
    base: Path,
    engine: Sequence[str],
    bar_ms: int,
    request: pytest.FixtureRequest,
    record_property: Callable[[str, object], None],
) -> None:
    script = base / "script.json"
    script.write_text(
        json.dumps(
            {
                "rules": [
                    {"after": "= ", "text": "None"},
                    {"after": "=", "text": "None"},
                    {"after": "(", "text": "None)"},
                ]
            }
        )
    )
    command = [*SERVER, *(str(script) if word == "SCRIPT" else word for word in engine)]
    window = launch(VSCode.name, base, command, minProbability=0, minScore=UNSURE)
    assert isinstance(window, VSCode)
    try:
        taken = measure(window)
    finally:
        window.close()
    shown = sorted(time for time in taken if time is not None)
    assert len(shown) >= SAMPLES
    name = request.node.callspec.id
    p50, p95 = (shown[round(share * (len(shown) - 1))] for share in (0.5, 0.95))
    record_property(
        "measured",
        f"VS Code, {name} engine, key press to visible ghost text: p50 {p50:.0f} ms, p95 {p95:.0f} ms "
        f"(bar {bar_ms} ms), {len(shown)} samples; nothing was offered {len(taken) - len(shown)} times",
    )
    ARTIFACTS.mkdir(parents=True, exist_ok=True)
    (ARTIFACTS / f"vscode-latency-{name}.json").write_text(json.dumps({"p50": p50, "p95": p95, "samples": taken}))


def measure(editor: VSCode) -> list[float | None]:
    """Milliseconds from a key to ghost text, each time at another place of a real file; None where none came.

    At each place the rest of the line is missing, and four characters of it are typed, the last one timed. By then the
    engine has encoded what stands before the cursor, as while anybody types; and where an offer began with that very
    character, what is left of it comes from the server's memory.
    """
    lines = inspect.getsource(argparse).split("\n")
    places = list(_places(lines))
    for row, cut in places:
        lines[row] = lines[row][: cut - TYPED]
    file = editor.workspace / "latency.py"
    file.write_text("\n".join(lines))
    editor.open(file)
    original = inspect.getsource(argparse).split("\n")
    return [_one(editor, row, cut, original[row][cut - TYPED : cut]) for row, cut in places][WARMING:]


def _places(lines: Sequence[str]) -> Iterator[tuple[int, int]]:
    """Rows and columns behind an opening bracket or an equals sign in code, far enough from each other."""
    rows = (row for row in range(100, len(lines)) if re.match(r"\s+[a-z_.]{8,}( =|\()", lines[row]))
    chosen: list[int] = []
    for row in rows:
        if len(chosen) < TRIALS and (not chosen or row > chosen[-1] + APART):
            chosen.append(row)
            yield row, re.search(r"= ?|\(", lines[row]).end()  # type: ignore[union-attr]  # the row was chosen for it


def _one(editor: VSCode, row: int, cut: int, typed: str) -> float | None:
    editor.go_to(row, cut - TYPED)
    editor.type(typed[:-1])
    while not editor.evaluate(SILENT):
        editor.dismiss()
    editor.evaluate(NEXT_GHOST)
    editor.type(typed[-1])
    taken: float | None = editor.evaluate("() => window.dgLatency")
    editor.dismiss()
    return taken
