"""The pictures of VS Code in the documents: `python tests/editors/pictures_vscode.py DIRECTORY`.

Program, server, engine and model are the real ones, and the answer is whatever the model says. For the animated picture
the engine is held while it is photographed, as its steps are over before a browser could be.
"""

from __future__ import annotations

import io
import os
import signal
import sys
import tempfile
import time
from pathlib import Path

import driver_vscode_host as vscode
from desk import SERVER
from driver import Launch
from driver_vscode import VSCode
from engines import UNSURE, stepped
from PIL import Image

from dg_engine import paths
from dg_engine.testing import health_of

SETTINGS = {
    **vscode.USER_SETTINGS,
    "breadcrumbs.enabled": False,
    "editor.cursorBlinking": "solid",
    "editor.fontSize": 16,
    "editor.guides.indentation": False,
    "editor.renderLineHighlight": "none",
    "editor.scrollbar.vertical": "hidden",
    "editor.overviewRulerBorder": False,
    "editor.hideCursorInOverviewRuler": True,
    "window.commandCenter": False,
    "workbench.activityBar.location": "hidden",
    "workbench.colorTheme": "Default Dark Modern",
    "workbench.layoutControl.enabled": False,
}

TEXT = '''"""A queue of jobs, worked off by one thread."""

from collections import deque


class JobQueue:
    """Jobs in the order in which they came."""

    def __init__(self, limit: int = 100) -> None:
        self._jobs = deque()
        self._limit = limit
        self._lock = threading.Lock()

    def add(self, job) -> None:
        """Put a job at the end."""
        with self._lock:
            if len(self._jobs) >= self._limit:
                raise ValueError("too many jobs")
            self._jobs.append(job)

    def __len__(self) -> int:
        with self._lock:
            return len(self._jobs)

    @property
    def limit(self) -> int:
        |
'''
TYPED = "return "
RUN_S = 0.008
"""How long the engine runs between two looks at what is shown: less than a step."""

TYPING_MS, STEP_MS, LAST_MS = 140, 450, 3000
GIF_TOP, GIF_SIZE = 300, (760, 400)


def main(directory: Path) -> None:
    """Make both pictures."""
    directory.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="dg", ignore_cleanup_errors=True) as base:
        home, workspace, run = (Path(base) / name for name in ("home", "jobs", "run"))
        for path in (home, workspace, run):
            path.mkdir(mode=0o700)
        os.environ["XDG_RUNTIME_DIR"] = str(run)
        launch = Launch(
            server=SERVER,
            home=home,
            workspace=workspace,
            environment={"XDG_RUNTIME_DIR": str(run), "OMP_NUM_THREADS": "1"},
            settings={"minProbability": 0, "minScore": UNSURE, "multiLine": "never", "engine": {"answerTimeoutS": 60}},
        )
        host = vscode.Host(SETTINGS)
        try:
            editor = VSCode(launch, host)
            still(editor, directory / "vscode.png")
            animation(editor, directory / "vscode-crystallise.gif")
        finally:
            host.close()
            if paths.socket_path("").exists():
                os.kill(health_of("").pid, signal.SIGKILL)


def still(editor: VSCode, path: Path) -> None:
    """Ghost text in a whole window."""
    prepare(editor)
    editor.type(TYPED[-1])
    editor.wait_for_ghost()
    editor.wait_for_status("ready")
    image = photograph(editor)
    image.convert("P", palette=Image.Palette.ADAPTIVE, colors=256).save(path, optimize=True)


def animation(editor: VSCode, path: Path) -> None:
    """A completion from its first draft to the ghost text, cut out of the window."""
    editor.configure(drafts=True, decoding="diffusion")
    frames = [(image, TYPING_MS) for image in prepare(editor)]
    with stepped(health_of("").pid, RUN_S) as step:
        editor.type(TYPED[-1])
        drafts = [photograph(editor)]
        deadline = time.monotonic() + 60
        while not editor.ghost() and time.monotonic() < deadline:
            step()
            if editor.draft():
                drafts.append(photograph(editor))
        frames += [(image, STEP_MS) for image in drafts]
    editor.wait_for_ghost()
    frames.append((photograph(editor), LAST_MS))
    save(frames, path)


def prepare(editor: VSCode) -> list[Image.Image]:
    """Show the file, and nothing beside it, with all typed but the last character; returns what was seen meanwhile."""
    file = editor.workspace / "job_queue.py"
    before, after = TEXT.split("|")
    file.write_text(before + after)
    editor.open(file)
    for command in ("closeSidebar", "closeAuxiliaryBar", "closePanel"):
        editor.execute(f"workbench.action.{command}")
    editor.go_to(before.count("\n"), len(before) - before.rfind("\n") - 1)
    # What was offered on the way would be offered again without another thought.
    editor.snooze(60)
    editor.wait_for_status("snoozed")
    seen = [photograph(editor)]
    for character in TYPED[:-1]:
        editor.type(character)
        seen.append(photograph(editor))
    editor.snooze(0)
    editor.wait_for_status("ready")
    return seen


def photograph(editor: VSCode) -> Image.Image:
    """The whole window as it is."""
    with tempfile.TemporaryDirectory() as directory:
        file = editor.capture(Path(directory) / "window")
        return Image.open(io.BytesIO(file.read_bytes())).convert("RGB")


def save(frames: list[tuple[Image.Image, int]], path: Path) -> None:
    """One animated picture of all frames that differ from the one before."""
    images: list[Image.Image] = []
    durations: list[int] = []
    for image, duration in frames:
        cut = image.crop((0, GIF_TOP, GIF_SIZE[0], GIF_TOP + GIF_SIZE[1]))
        if images and cut.tobytes() == images[-1].tobytes():
            durations[-1] = max(durations[-1], duration)
        else:
            images.append(cut)
            durations.append(duration)
    assert len(images) > len(TYPED) + 1, "no draft was photographed"
    images[0].save(path, save_all=True, append_images=images[1:], duration=durations, loop=0, optimize=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
