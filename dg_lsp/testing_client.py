"""A language client for tests and the demonstration; it counts bytes itself and can say anything, well-formed or not.

It reads on a thread of its own and keeps every message it got, so that a test can wait for an answer with a deadline
and prove that there was exactly one.
"""

from __future__ import annotations

import json
import queue
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

Message = dict[str, Any]

PATIENCE_S = 60.0
"""A wait longer than this has failed; no test waits that long when all is well."""

LOADING_S = 150.0
"""The same where an engine may have to load first: more than the 120 s after which the commands give up."""

INLINE = {"textDocument": {"inlineCompletion": {"dynamicRegistration": False}}}


class RawClient:
    """A server process and both ends of its pipes. Use as a context manager."""

    def __init__(
        self,
        arguments: Sequence[str] = (),
        *,
        python: Sequence[str] = (),
        replies: Callable[[Message], Any] | None = None,
        patience_s: float = PATIENCE_S,
    ) -> None:
        command = [sys.executable, *python, "-m", "dg_lsp", *arguments]
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe)
        self._stdin, self._stdout, self._stderr = _pipes(self.process)
        self.received: list[Message] = []
        self._arrivals: queue.Queue[Message | None] = queue.Queue()
        self._replies, self._patience_s = replies, patience_s
        self._next_id = 0
        self._log: list[bytes] = []
        self._threads = [threading.Thread(target=self._read), threading.Thread(target=self._read_stderr)]
        for thread in self._threads:
            thread.start()

    def __enter__(self) -> RawClient:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.wait()

    @property
    def stderr(self) -> str:
        """What the server has written to its standard error so far."""
        return b"".join(self._log).decode("utf-8", "replace")

    def wait(self) -> int:
        """Close the input and wait for the end of the process; returns its exit status."""
        self.close_input()
        status = self.process.wait(PATIENCE_S)
        for thread in self._threads:
            thread.join(PATIENCE_S)
        self._stdout.close()
        self._stderr.close()
        return status

    def close_input(self) -> None:
        """Close the server's standard input."""
        with suppress(BrokenPipeError):
            self._stdin.close()

    def write(self, data: bytes) -> None:
        """Write bytes as they are."""
        self._stdin.write(data)
        self._stdin.flush()

    def body(self, body: bytes) -> None:
        """Write a body with its header."""
        self.write(framed(body))

    def send(self, message: Any) -> None:
        """Write a message as JSON."""
        self.body(json.dumps(message).encode())

    def notify(self, method: str, params: Any = None) -> None:
        """Send a notification."""
        self.send({"jsonrpc": "2.0", "method": method, "params": params})

    def ask(self, method: str, params: Any = None) -> int:
        """Send a request and return its id."""
        self._next_id += 1
        self.send({"jsonrpc": "2.0", "id": self._next_id, "method": method, "params": params})
        return self._next_id

    def answer(self, identifier: int | str | None) -> Message:
        """Wait for the answer to a request; the whole message."""
        return self.until(lambda message: _answers(message, identifier))

    def call(self, method: str, params: Any = None) -> Any:
        """Send a request and return its result; an error answer is an AssertionError."""
        identifier = self.ask(method, params)
        # What came before it was asked is not looked at: that would take the longer, the more there is.
        answer = next(message for message in self.stream() if _answers(message, identifier))
        if "error" in answer:
            raise AssertionError(answer)
        return answer["result"]

    def until(self, wanted: Callable[[Message], bool]) -> Message:
        """The first message, received already or yet to come, that is `wanted`."""
        for message in self.received:
            if wanted(message):
                return message
        return next(message for message in self.stream() if wanted(message))

    def stream(self) -> Iterator[Message]:
        """The messages yet to come, one after the other."""
        while True:
            message = self._next()
            self.received.append(message)
            yield message

    def rest(self) -> list[Message]:
        """What came before the end of a server that has ended, and has not been looked at yet."""
        return list(iter(self._arrivals.get_nowait, None))

    def _next(self) -> Message:
        try:
            message = self._arrivals.get(timeout=self._patience_s)
        except queue.Empty:
            message = None
        if message is None:
            raise AssertionError(f"nothing more comes from the server:\n{self.stderr}")
        return message

    def answers(self, identifier: int | str | None) -> list[Message]:
        """All answers to a request, once the server has answered something asked after it."""
        self.answer(self.ask("dg/nothing"))
        return [message for message in self.received if _answers(message, identifier)]

    def initialize(self, capabilities: Message | None = None, **params: Any) -> Message:
        """Go through the handshake; returns the result of `initialize`."""
        given = {"processId": None, "rootUri": None, "capabilities": INLINE if capabilities is None else capabilities}
        result: Message = self.call("initialize", {**given, **params})
        self.notify("initialized", {})
        return result

    def open(self, text: str, uri: str = "file:///no/such/place/a.py", language: str = "python") -> str:
        """Open a document; returns its address."""
        item = {"uri": uri, "languageId": language, "version": 1, "text": text}
        self.notify("textDocument/didOpen", {"textDocument": item})
        return uri

    def change(self, uri: str, version: int, text: str) -> None:
        """Replace all of an open document."""
        params = {"textDocument": {"uri": uri, "version": version}, "contentChanges": [{"text": text}]}
        self.notify("textDocument/didChange", params)

    def shut_down(self) -> int:
        """`shutdown`, `exit`; returns the exit status."""
        self.call("shutdown")
        self.notify("exit")
        return self.wait()

    def _read(self) -> None:
        while (length := _length(self._stdout.readline())) is not None:
            self._stdout.readline()
            message = json.loads(self._stdout.read(length))
            self._reply(message)
            self._arrivals.put(message)
        self._arrivals.put(None)

    def _reply(self, message: Message) -> None:
        if "id" in message and "method" in message and self._replies is not None:
            result = self._replies(message)
            self.send({"jsonrpc": "2.0", "id": message["id"], "result": result})

    def _read_stderr(self) -> None:
        for line in self._stderr:
            self._log.append(line)


def _answers(message: Message, identifier: int | str | None) -> bool:
    """Whether it is the answer to a request."""
    return "method" not in message and message.get("id") == identifier


def inline_params(uri: str, line: int, character: int, *, trigger: int = 1) -> Message:
    """Parameters of `textDocument/inlineCompletion`; `trigger` is 1 for invoked and 2 for automatic."""
    position = {"line": line, "character": character}
    return {"textDocument": {"uri": uri}, "position": position, "context": {"triggerKind": trigger}}


def framed(body: bytes) -> bytes:
    """A body with its header."""
    return b"Content-Length: %d\r\n\r\n%b" % (len(body), body)


def scripted(directory: Path, *rules: Message, **script: Any) -> list[str]:
    """Write a script for the test double and return the arguments that choose it."""
    path = directory / "script.json"
    path.write_text(json.dumps({"rules": rules, **script}))
    return ["--backend", "scripted", "--script", str(path)]


def _pipes(process: subprocess.Popen[bytes]) -> tuple[IO[bytes], IO[bytes], IO[bytes]]:
    if process.stdin is None or process.stdout is None or process.stderr is None:
        raise RuntimeError("the process has no pipes")
    return process.stdin, process.stdout, process.stderr


def _length(header: bytes) -> int | None:
    name, _, value = header.partition(b":")
    return int(value) if name == b"Content-Length" else None
