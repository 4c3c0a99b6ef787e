"""Emacs in a terminal, set up as its documentation says: keys through tmux, state through emacsclient.

An init file in a home of its own is all that the test adds to Emacs; Emacs finds its packages as for any user. The
server is Eglot's in one setting, and by itself beside another server of Eglot's in the other.
"""

from __future__ import annotations

import base64
import json
import re
import subprocess
import sys
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import programs
from driver import Editor, Known, Launch, until
from programs import installed, of_version, unpacked
from terminal import Terminal

OTHER_SERVER = (
    sys.executable,
    "-m",
    "dg_lsp",
    "--backend",
    "scripted",
    "--script",
    str(Path(__file__).with_name("scenarios.json")),
)
BY_ITSELF_S = 5.0

PACKAGE = Path(__file__).parents[2] / "editors" / "emacs"

HARNESS = """
(setq inhibit-startup-screen t
      initial-scratch-message nil
      ring-bell-function #'ignore
      make-backup-files nil
      auto-save-default nil
      create-lockfiles nil
      ;; Emacs 28 compiles libraries in the background, and shows what it thinks of them.
      native-comp-async-report-warnings-errors nil
      native-comp-deferred-compilation nil
      server-socket-dir {socket_directory})

(defvar test-target nil "Line and column for `test-go-to'.")
(defun test-go-to ()
  "Move as a user's command does."
  (interactive)
  (goto-char (point-min))
  (forward-line (car test-target))
  (forward-char (cadr test-target)))
(global-set-key (kbd "C-c g") #'test-go-to)

{user}
(require 'server)
(server-start)
"""

USER = """
(add-to-list 'load-path {package})
(require 'dg-lsp)
(setq dg-lsp-command '{command}
      dg-lsp-settings '{settings})
{setting}
(add-hook 'python-mode-hook #'eglot-ensure)
"""

BY_EGLOT = "(dg-lsp-setup 'python-mode)"

# The other server has nothing to say, but Eglot manages the buffer for it.
BESIDE_EGLOT = """
(add-hook 'prog-mode-hook #'dg-lsp-mode)
(setf (alist-get 'python-mode eglot-server-programs)
      '("dg-other-server" :initializationOptions (:enabled :json-false)))
"""

SHOWN = """
(mapcar (lambda (overlay)
          (let ((text (or (overlay-get overlay 'display) (overlay-get overlay 'after-string))))
            (vector (format "%s" (get-text-property 0 'face text)) (substring-no-properties text))))
        (seq-filter (lambda (overlay)
                      (and (eq (overlay-get overlay 'category) 'dg-lsp-ghost-overlay)
                           (eq (overlay-get overlay 'window) (selected-window))
                           (= (overlay-start overlay) (point))))
                    (save-restriction (widen) (overlays-in (point-min) (point-max)))))
"""

TROUBLE = """
(mapcar (lambda (name)
          (if (get-buffer name)
              (with-current-buffer name
                (save-restriction (widen) (buffer-substring-no-properties (point-min) (point-max))))
            ""))
        (list "*Warnings*" "*Messages*" "*dg-lsp log*"))
"""

WARNING_SHOWN = """
(if (get-buffer-window "*Warnings*" t) t)
"""

# Scenarios kill servers; Eglot writes that down, and the package keeps it from popping up.
HARMLESS = re.compile(r".*eglot[\])]+:? (Reconnecting after unexpected server exit|Not auto-reconnecting, last one)")
BAD_MESSAGE = re.compile(r"Error |error in process|.*[Ww]rong type|Lisp error")


class Emacs(Editor):
    """One Emacs with one frame in a terminal."""

    def __init__(self, name: str, program: Path, launch: Launch, user: str) -> None:
        """Start it; `user` is the user's own part of the init file."""
        self.name = name
        self.workspace = launch.workspace
        self._client = program.with_name("emacsclient")
        self._socket = launch.home / "s" / "server"
        self._seen_pid = 0
        (launch.home / "s").mkdir(mode=0o700)
        (launch.home / ".emacs.d").mkdir()
        (launch.home / ".emacs.d" / "init.el").write_text(
            HARNESS.format(socket_directory=_lisp(str(self._socket.parent)), user=user)
        )
        self._terminal = Terminal(
            [str(program), "-nw"],
            directory=launch.workspace,
            environment={
                "HOME": str(launch.home),
                "XDG_CONFIG_HOME": str(launch.home / "config"),
                **launch.environment,
            },
            socket=launch.home / "tmux",
        )
        until(self._answers, lambda: f"{name} did not start:\n{self._terminal.screen()}", patience_s=60)

    def open(self, path: Path) -> None:
        """Visit the file, afresh if it is visited already."""
        self._eval(f"""
            (let ((buffer (find-buffer-visiting {_lisp(str(path))})))
              (when buffer
                (with-current-buffer buffer (set-buffer-modified-p nil))
                (kill-buffer buffer)))""")
        self._terminal.keys("C-x", "C-f", "C-a", "C-k")
        self._terminal.literal(str(path))
        self._terminal.keys("Enter")
        ready = f"(and (equal buffer-file-name {_lisp(str(path.resolve()))}) (dg-lsp-current-server) t)"
        until(lambda: self._eval(ready), lambda: f"{path.name} has no server:\n{self.screen()}", patience_s=40)

    def go_to(self, line: int, column: int) -> None:
        """Press the key of a command that moves there."""
        self._eval(f"(setq test-target '({line} {column}))")
        self._terminal.keys("C-c", "g")
        there = f"(and (= (line-number-at-pos nil t) {line + 1}) (= (- (point) (line-beginning-position)) {column}))"
        until(lambda: self._eval(there), lambda: f"point does not get to {line}:{column}:\n{self.screen()}")

    def type(self, text: str) -> None:
        """Press keys."""
        self._terminal.literal(text)

    def backspace(self, times: int = 1) -> None:
        """Press Backspace."""
        for _ in range(times):
            self._terminal.keys("BSpace")

    def ghost(self) -> str:
        """The overlay at point in the face of ghost text."""
        return self._shown("dg-lsp-ghost")

    def draft(self) -> str:
        """The overlay at point in the faces of drafts."""
        return self._shown("dg-lsp-settled") or self._shown("dg-lsp-unsettled")

    def accept(self) -> None:
        """TAB."""
        self._terminal.keys("Tab")

    def accept_word(self) -> None:
        """M-f."""
        self._terminal.keys("M-f")

    def accept_line(self) -> None:
        """C-e."""
        self._terminal.keys("C-e")

    def dismiss(self) -> None:
        """C-g."""
        self._terminal.keys("C-g")

    def trigger(self) -> None:
        """M-RET."""
        self._terminal.keys("M-Enter")

    def show_next(self) -> None:
        """M-n."""
        self._terminal.keys("M-n")

    def undo(self) -> None:
        """C-x u."""
        self._terminal.keys("C-x", "u")

    def save(self) -> None:
        """C-x C-s."""
        self._terminal.keys("C-x", "C-s")

    def text(self) -> str:
        """The whole buffer."""
        return str(self._eval("(save-restriction (widen) (buffer-substring-no-properties (point-min) (point-max)))"))

    def screen(self) -> str:
        """The terminal, without the margin that Flymake makes in newer versions."""
        margin = int(self._eval("(or (car (window-margins)) 0)"))
        lines = self._terminal.screen().split("\n")
        return "\n".join(line[margin:] if line[:margin].isspace() else line for line in lines)

    def status(self) -> str:
        """What dg-lsp adds to the mode line."""
        mode_line = str(self._eval("(format-mode-line mode-line-format)"))
        found = re.search(r"\[(dg:[^\]]*)\]", mode_line)
        return found[1] if found else ""

    def popups(self) -> str:
        """Emacs's warnings, errors among its messages, and errors that the package kept to its log."""
        warnings, messages, log = self._eval(TROUBLE)
        lines = [line for line in warnings.splitlines() if line and not HARMLESS.match(line)]
        lines += [line for line in messages.splitlines() if BAD_MESSAGE.match(line)]
        lines += [line for line in log.splitlines() if " Emacs: " in line]
        if self._eval(WARNING_SHOWN):
            lines.append("a window of warnings")
        return "\n".join(lines)

    def configure(self, **settings: Any) -> None:
        """M-: (dg-lsp-configure ...)."""
        arguments = " ".join(f":{name} '{_lisp(value)}" for name, value in settings.items())
        self._eval(f"(progn (dg-lsp-configure {arguments}) t)")

    def snooze(self, minutes: int) -> None:
        """M-x dg-lsp-snooze."""
        self._eval(f"(progn (dg-lsp-snooze {minutes}) t)")

    def server_pid(self) -> int:
        """The process behind Eglot's connection."""
        self._seen_pid = until(self._pid, lambda: f"{self.name} has no server:\n{self.screen()}")
        return self._seen_pid

    def restart_server(self) -> None:
        """It comes back by itself, or by M-x dg-lsp-restart-server where it did not live for long."""
        seen = self._seen_pid
        until(lambda: self._pid() != seen, "Emacs did not notice that the server is gone")
        try:
            # A command beside Emacs's own start would end the server that comes.
            until(lambda: self._pid() or "starting" in self.status(), "", patience_s=BY_ITSELF_S)
        except AssertionError:
            self._terminal.keys("M-x")
            self._terminal.literal("dg-lsp-restart-server\n")
        until(lambda: self._pid() not in {0, seen}, lambda: f"no new server:\n{self.screen()}", patience_s=40)

    def is_running(self) -> bool:
        return self._terminal.is_running()

    def capture(self, path: Path) -> Path:
        """The terminal as text with colours."""
        return self._terminal.capture(path)

    def close(self) -> None:
        """Let Emacs end its server, then end the terminal."""
        try:
            self._eval("(progn (run-at-time 0 nil (lambda () (let (kill-emacs-query-functions) (kill-emacs)))) t)")
            until(lambda: not self._terminal.is_running(), "Emacs does not end", patience_s=5)
        except (AssertionError, subprocess.SubprocessError):
            pass
        finally:
            self._terminal.close()

    def _shown(self, face: str) -> str:
        for shown_face, text in self._eval(SHOWN) or []:
            if shown_face == face:
                return str(text)
        return ""

    def _pid(self) -> int:
        server = "(dg-lsp-current-server)"
        return int(self._eval(f"(if {server} (process-id (jsonrpc--process {server})) 0)"))

    def _answers(self) -> bool:
        # The socket is there a moment before Emacs listens on it.
        if not self._socket.exists():
            return False
        command = [str(self._client), f"--socket-name={self._socket}", "--eval", "t"]
        return subprocess.run(command, capture_output=True, check=False, timeout=120).returncode == 0

    def _eval(self, form: str) -> Any:
        """The value of a form in the buffer that is shown, by way of JSON."""
        wrapped = (
            "(base64-encode-string (encode-coding-string (json-encode"
            f" (vector (with-current-buffer (window-buffer) {form}))) 'utf-8) t)"
        )
        command = [str(self._client), f"--socket-name={self._socket}", "--eval", wrapped]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
        if done.returncode:
            raise AssertionError(f"{self.name}: {form}: {done.stdout}{done.stderr}")
        return json.loads(base64.b64decode(done.stdout.strip().strip('"')))[0]


def _lisp(value: Any) -> str:
    """A value of Python as a Lisp datum: mappings become property lists."""
    if isinstance(value, Mapping):
        return f"({' '.join(f':{key} {_lisp(inner)}' for key, inner in value.items())})"
    if isinstance(value, bool):
        return "t" if value else ":json-false"
    if isinstance(value, str):
        return '"{}"'.format(value.replace("\\", "\\\\").replace('"', '\\"'))
    if isinstance(value, list | tuple):
        return f"[{' '.join(map(_lisp, value))}]"
    return "nil" if value is None else str(value)


VERSIONS = {"Emacs 28": "28", "Emacs 30": "30"}
"""Each Emacs that the package is for, by the name that reports use."""


def _places() -> tuple[Path | None, ...]:
    return installed("emacs"), unpacked("emacs-30", "emacs")


def missing(name: str) -> str | None:
    """Why an Emacs cannot be driven; None if it can."""
    if installed("tmux") is None:
        return "no tmux"
    return programs.missing("emacs", VERSIONS[name], *_places())


def program(name: str) -> Path:
    """An Emacs that is here."""
    found = of_version(VERSIONS[name], *_places())
    assert found is not None
    return found


def _user(setting: str, launch: Launch) -> str:
    """What a user has in the init file who has followed the documentation."""
    return USER.format(
        package=_lisp(str(PACKAGE)),
        command=f"({' '.join(_lisp(part) for part in launch.server)})",
        settings=_lisp(launch.settings),
        setting=setting.replace('"dg-other-server"', " ".join(map(_lisp, OTHER_SERVER))),
    )


def _launch(name: str, setting: str, launch: Launch) -> Editor:
    return Emacs(name, program(name), launch, _user(setting, launch))


EDITORS = {
    "Emacs 28": Known(partial(missing, "Emacs 28"), partial(_launch, "Emacs 28", BY_EGLOT)),
    "Emacs 30": Known(partial(missing, "Emacs 30"), partial(_launch, "Emacs 30", BY_EGLOT)),
    "Emacs 30 beside Eglot": Known(partial(missing, "Emacs 30"), partial(_launch, "Emacs 30", BESIDE_EGLOT)),
}
