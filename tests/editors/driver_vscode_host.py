"""VS Code for the tests: one code-server with the extension installed, and one browser that shows its windows."""

from __future__ import annotations

import atexit
import functools
import json
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from pathlib import Path
from queue import SimpleQueue
from typing import Any, TypeVar

from driver import until
from playwright.sync_api import Browser, Page, ViewportSize, sync_playwright
from programs import installed, unpacked

T = TypeVar("T")

EXTENSION = Path(__file__).parents[2] / "editors" / "vscode"
SIZE = (1200, 750)
STARTING_S = 120.0

USER_SETTINGS = {
    "chat.disableAIFeatures": True,
    "editor.minimap.enabled": False,
    "extensions.autoCheckUpdates": False,
    "extensions.autoUpdate": False,
    "files.autoSave": "off",
    "security.workspace.trust.enabled": False,
    "telemetry.telemetryLevel": "off",
    "update.mode": "none",
    "window.restoreWindows": "none",
    "workbench.editor.enablePreview": False,
    "workbench.startupEditor": "none",
    "workbench.tips.enabled": False,
    # What is typed is what lands in the buffer: brackets, indentation and menus of the editor's own are out of the way.
    "editor.autoClosingBrackets": "never",
    "editor.autoClosingQuotes": "never",
    "editor.autoIndent": "none",
    "editor.quickSuggestions": {"other": "off", "comments": "off", "strings": "off"},
    "editor.suggestOnTriggerCharacters": False,
    "editor.wordBasedSuggestions": "off",
}


def extension() -> Path | None:
    """The extension as `npm run package` left it."""
    return next(iter(sorted(EXTENSION.glob("*.vsix"))), None)


def missing() -> str | None:
    """What of VS Code is not on this machine."""
    if unpacked("code-server", "code-server") is None:
        return "code-server"
    if installed("chromium") is None:
        return "chromium"
    if extension() is None or not (EXTENSION / "harness" / "harness.vsix").exists():
        return "the extension: make vsix"
    return None


@functools.cache
def host() -> Host:
    """The one code-server and browser of this process, ended with it."""
    running = Host()
    atexit.register(running.close)
    return running


class Host:
    """code-server behind a loopback port, and a browser."""

    def __init__(self, user_settings: Mapping[str, Any] = USER_SETTINGS) -> None:
        self._directory = Path(tempfile.mkdtemp(prefix="dgcode"))
        self._home, self._sockets = self._directory / "home", self._directory / "run"
        data = self._directory / "data"
        for directory in (self._home, self._sockets, data / "User"):
            directory.mkdir(parents=True)
        (data / "User" / "settings.json").write_text(json.dumps(user_settings))
        self._install(data)
        self._port = _free_port()
        self._server = self._start(data)
        self._thread = _Thread()
        self._browser = self.do(self._open_browser)

    def do(self, work: Callable[[], T]) -> T:
        """Do something in the browser's thread."""
        return self._thread.do(work)

    def open_window(self, folder: Path, size: tuple[int, int] = SIZE, scale: float = 1) -> Window:
        """Show a folder in a window of its own."""
        known = set(self._sockets.glob("*.sock"))
        page = self.do(lambda: self._load(folder, size, scale))
        until(
            lambda: set(self._sockets.glob("*.sock")) - known,
            lambda: f"the harness did not start:\n{self.do(lambda: page.inner_text('body'))}",
            STARTING_S,
        )
        return Window(self, page, *set(self._sockets.glob("*.sock")) - known)

    def _load(self, folder: Path, size: tuple[int, int], scale: float) -> Page:
        viewport: ViewportSize = {"width": size[0], "height": size[1]}
        page = self._browser.new_page(viewport=viewport, device_scale_factor=scale, reduced_motion="reduce")
        page.add_init_script(RECORD_POPUPS)
        page.goto(f"http://127.0.0.1:{self._port}/?{urllib.parse.urlencode({'folder': str(folder)})}")
        return page

    def close(self) -> None:
        """End everything."""
        self.do(self._close_browser)
        os.killpg(self._server.pid, signal.SIGTERM)
        try:
            self._server.wait(10)
        except subprocess.TimeoutExpired:
            os.killpg(self._server.pid, signal.SIGKILL)
            self._server.wait()
        shutil.rmtree(self._directory, ignore_errors=True)

    def _command(self, data: Path) -> list[str]:
        program = unpacked("code-server", "code-server")
        configuration = self._directory / "config.yaml"
        configuration.write_text("auth: none\n")
        folders = ["--user-data-dir", str(data), "--extensions-dir", str(self._directory / "extensions")]
        return [str(program), "--config", str(configuration), *folders]

    def _environment(self) -> dict[str, str]:
        return {**os.environ, "HOME": str(self._home), "DG_HARNESS": str(self._sockets), "SHELL": "/bin/sh"}

    def _install(self, data: Path) -> None:
        for package in (extension(), EXTENSION / "harness" / "harness.vsix"):
            command = [*self._command(data), "--install-extension", str(package)]
            done = subprocess.run(command, env=self._environment(), capture_output=True, text=True, check=False)
            assert done.returncode == 0, done.stdout + done.stderr

    def _start(self, data: Path) -> subprocess.Popen[bytes]:
        quiet = ["--disable-telemetry", "--disable-update-check", "--disable-workspace-trust"]
        command = [*self._command(data), "--bind-addr", f"127.0.0.1:{self._port}", *quiet]
        with (self._directory / "code-server.log").open("wb") as log:
            process = subprocess.Popen(
                command, env=self._environment(), stdout=log, stderr=subprocess.STDOUT, start_new_session=True
            )
        until(
            lambda: _is_healthy(self._port),
            lambda: (self._directory / "code-server.log").read_text(errors="replace"),
            STARTING_S,
        )
        return process

    def _close_browser(self) -> None:
        self._browser.close()
        self._playwright.stop()

    def _open_browser(self) -> Browser:
        self._playwright = sync_playwright().start()
        # The sandbox needs what containers do not give, and root is refused one; only this machine's pages are opened.
        options = ["--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu"]
        return self._playwright.chromium.launch(executable_path=str(installed("chromium")), args=options)


class _Thread:
    """Playwright keeps an event loop running in its thread; in pytest's own, other tests have theirs.

    An executor would do, but takes no work any more when the interpreter ends and the browser is to be closed.
    """

    def __init__(self) -> None:
        self._work: SimpleQueue[Callable[[], None]] = SimpleQueue()
        threading.Thread(target=self._run, name="browser", daemon=True).start()

    def do(self, work: Callable[[], T]) -> T:
        outcome: Future[T] = Future()

        def settle() -> None:
            try:
                outcome.set_result(work())
            except BaseException as error:
                outcome.set_exception(error)

        self._work.put(settle)
        return outcome.result()

    def _run(self) -> None:
        while True:
            self._work.get()()


class Window:
    """One window: its page, and the harness that reads its buffer."""

    def __init__(self, host: Host, page: Page, harness: Path) -> None:
        self._host = host
        self._page = page
        self._harness = harness

    def do(self, work: Callable[[Page], T]) -> T:
        """Do something with the page."""
        return self._host.do(lambda: work(self._page))

    def press(self, *keys: str) -> None:
        """Press keys by Playwright's names, or by the characters that they make."""

        def press(page: Page) -> None:
            for key in keys:
                (page.keyboard.press if len(key) > 1 else page.keyboard.type)(key)

        self.do(press)

    def fill(self, selector: str, text: str) -> None:
        """Put a text into a field."""
        self.do(lambda page: page.fill(selector, text))

    def evaluate(self, script: str, *arguments: Any) -> Any:
        """Evaluate JavaScript in the page."""
        return self.do(lambda page: page.evaluate(script, *arguments))

    def has(self, selector: str) -> bool:
        """Whether the page shows such an element."""
        return self.do(lambda page: page.locator(selector).count()) > 0

    def visible_text(self) -> str:
        """All that can be read in the page."""
        return self.do(lambda page: page.inner_text("body"))

    def ask(self, operation: str, **parameters: Any) -> Any:
        """Have the harness do or tell something."""
        deadline = time.monotonic() + STARTING_S
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(STARTING_S)
            connection.connect(str(self._harness))
            connection.sendall(json.dumps({"operation": operation, **parameters}).encode() + b"\n")
            received = b""
            while not received.endswith(b"\n") and time.monotonic() < deadline:
                received += connection.recv(65536)
        reply = json.loads(received)
        assert "error" not in reply, f"{operation}: {reply}"
        return reply["result"]

    def execute(self, command: str, *arguments: Any) -> Any:
        """Run a command of VS Code."""
        return self.ask("execute", command=command, args=arguments)


RECORD_POPUPS = """
window.dgPopups = new Set();
new MutationObserver(() => {
    for (const toast of document.querySelectorAll(".notification-toast")) {
        if (toast.querySelector(".codicon-error, .codicon-warning")) {
            window.dgPopups.add(toast.querySelector(".notification-list-item-message")?.textContent);
        }
    }
}).observe(document, { childList: true, subtree: true });
"""


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _is_healthy(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz", timeout=1):
            return True
    except (urllib.error.URLError, TimeoutError, ConnectionError):
        return False
