"""From the press of a key to visible ghost text in VS Code, as the page itself sees it; printed beside its bar.

Timings depend on who else uses the machine, so what fails a test here is ghost text that does not come; the bars are
for a machine that is otherwise idle.
"""

from __future__ import annotations

import json
import os
import signal
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import driver_vscode_host as vscode
import pytest
from desk import ARTIFACTS, SCRIPT, SERVER, launch
from driver_vscode import VSCode

from dg_engine import paths
from dg_engine.testing import health_of

WARMING = 20
TRIALS = 75
SAMPLES = 40
"""At least so many trials must show something; the real model sometimes has nothing to say."""
QUIET_S = 0.4
SILENCE_S = 2.0
UNSURE = -1000.0
"""A `minScore` with which everything is shown."""

# A promise, not a value to be asked for again and again: each question would run in the thread that draws.
NEXT_GHOST = """
() => { window.dgLatency = new Promise((resolve) => {
    setTimeout(() => resolve(null), SILENCE);
    document.addEventListener("keydown", (key) => {
        const observer = new MutationObserver(() => {
            if (document.querySelector(".ghost-text-decoration, .suggest-preview-text .ghost-text")) {
                observer.disconnect();
                // The first task after the frame: what was drawn in it can be seen.
                const painted = new MessageChannel();
                painted.port1.onmessage = () => resolve(performance.now() - key.timeStamp);
                requestAnimationFrame(() => painted.port2.postMessage(null));
            }
        });
        observer.observe(document.body, { childList: true, subtree: true, attributes: true });
    }, { capture: true, once: true });
}); }
""".replace("SILENCE", str(1000 * SILENCE_S))


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
    ("engine", "typed", "last", "bar_ms"),
    [(("--backend", "scripted", "--script", str(SCRIPT)), "return", " ", 100), ((), "area = ", "wh", 250)],
    ids=["scripted", "small"],
)
def test_key_press_to_ghost_text(
    base: Path,
    engine: Sequence[str],
    typed: str,
    last: str,
    bar_ms: int,
    request: pytest.FixtureRequest,
    capsys: pytest.CaptureFixture[str],
) -> None:
    window = launch(VSCode.name, base, [*SERVER, *engine], minScore=UNSURE)
    assert isinstance(window, VSCode)
    try:
        taken = measure(window, typed, last)
    finally:
        window.close()
    shown = sorted(time for time in taken if time is not None)
    assert len(shown) >= SAMPLES
    name = request.node.callspec.id
    p50, p95 = (shown[round(share * (len(shown) - 1))] for share in (0.5, 0.95))
    with capsys.disabled():
        silent = len(taken) - len(shown)
        print(  # noqa: T201  (its purpose)
            f"\nVS Code, {name} engine, key press to visible ghost text: p50 {p50:.0f} ms, p95 {p95:.0f} ms "
            f"(bar {bar_ms} ms), {len(shown)} samples; nothing was offered {silent} times"
        )
    ARTIFACTS.mkdir(parents=True, exist_ok=True)
    (ARTIFACTS / f"vscode-latency-{name}.json").write_text(json.dumps({"p50": p50, "p95": p95, "samples": taken}))


def measure(editor: VSCode, typed: str, last: str) -> list[float | None]:
    """Milliseconds from one key to ghost text, each time in another place; None where none came.

    Args:
        editor: with a server.
        typed: before that key. By then the engine has encoded what stands before the cursor.
        last: keys to choose from: not the one with which an offer for `typed` began, for that would go on from the
            server's memory, without the engine.
    """
    file = editor.workspace / "latency.py"
    file.write_text("".join(f"def area_{number}(width, height):\n    \n\n\n" for number in range(TRIALS)))
    editor.open(file)
    return [_one(editor, number, typed, last) for number in range(TRIALS)][WARMING:]


def _one(editor: VSCode, number: int, typed: str, last: str) -> float | None:
    editor.go_to(4 * number + 1, 4)
    editor.type(typed)
    begun = _wait_for_quiet(editor)
    editor.evaluate(NEXT_GHOST)
    editor.type(next(key for key in last if key not in begun))
    taken: float | None = editor.evaluate("() => window.dgLatency")
    editor.dismiss()
    return taken


def _wait_for_quiet(editor: VSCode) -> set[str]:
    """Wait until nothing has been shown for a while, and what had been is dismissed; returns how that began."""
    since, begun = time.monotonic(), set[str]()
    while time.monotonic() < since + QUIET_S:
        if ghost := editor.ghost():
            begun.add(ghost[0])
            editor.dismiss()
            since = time.monotonic()
    return begun
