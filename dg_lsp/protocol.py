"""JSON-RPC as the specification has it: every request gets exactly one answer, whatever the bytes.

pygls 2.1 leaves a request with malformed parameters unanswered, and so one whose parameters hold a key `jsonrpc`; it
answers requests before `initialize` as if nothing were missing, drops those after `shutdown` in silence, exits with
status 0 whatever came before, and puts tracebacks into error answers. This class takes the message apart itself and
leaves to pygls what follows: finding the handler, running it, awaiting it, cancelling it.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import json
import logging
from collections.abc import Callable, Generator
from concurrent.futures import Future
from typing import Any

from cattrs import transform_error
from pygls.exceptions import (
    JsonRpcException,
    JsonRpcInvalidParams,
    JsonRpcInvalidRequest,
    JsonRpcMethodNotFound,
    JsonRpcParseError,
    JsonRpcServerNotInitialized,
)
from pygls.protocol import LanguageServerProtocol, lsp_method

from dg_lsp.transport import Body, bodies

log = logging.getLogger(__name__)

LIBRARY_FEATURES = frozenset(
    {"initialize", "initialized", "shutdown", "exit", "$/setTrace", "workspace/executeCommand"}
)
"""What pygls keeps doing. Its text store is not among them: it is wrong for U+2028, form feed and astral characters."""

Identifier = str | int


class Protocol(LanguageServerProtocol):
    """One client's connection."""

    _server: Any
    """A `dg_lsp.server.Server`, which this module is below."""

    def __init__(self, *arguments: Any, **keywords: Any) -> None:
        super().__init__(*arguments, **keywords)
        self.finished = asyncio.Event()
        """Set when the client has sent `exit`, has gone, or the server was told to stop."""

    async def serve(self, reader: asyncio.StreamReader) -> int:
        """Handle messages until `exit` or the end of the stream; returns the process's exit status.

        That is 0 after `shutdown` and 1 without, as the specification asks.
        """
        reading = asyncio.create_task(self._read(reader))
        ending = asyncio.create_task(self.finished.wait())
        await asyncio.wait({reading, ending}, return_when=asyncio.FIRST_COMPLETED)
        self.finished.set()
        reading.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await reading
        return 0 if self._shutdown else 1

    async def _read(self, reader: asyncio.StreamReader) -> None:
        async for body in bodies(reader):
            self.receive(body)
            # A handler runs up to its first await before the next message is looked at: it sees the document as it
            # was when the client asked, and a flood of messages cannot starve it.
            await asyncio.sleep(0)

    def receive(self, body: Body) -> None:
        """Handle one message; never raises."""
        try:
            self._dispatch(_decoded(body))
        except JsonRpcException as error:
            log.warning("A message was refused: %s", error.message)
            self._answer_error(None, error)
        except Exception:
            log.exception("A message could not be handled.")

    def _dispatch(self, message: dict[str, Any]) -> None:
        method, identifier = message.get("method"), message.get("id")
        if "id" in message and (isinstance(identifier, bool) or not isinstance(identifier, Identifier)):
            raise JsonRpcInvalidRequest("The id of a message must be a string or an integer.")
        if (flaw := _flaw(message)) is not None:
            self._answer_error(identifier, JsonRpcInvalidRequest(flaw))
        elif "id" not in message:
            self._run(self._receive_notification, message, method)
        elif "method" in message:
            self._run(self._receive_request, message, identifier, method)
        else:
            self._run(self._receive_response, message, identifier)

    def _run(self, receive: Callable[..., None], *arguments: Any) -> None:
        # Each message in a context of its own, where pygls keeps the id of the request.
        contextvars.copy_context().run(receive, *arguments)

    def _receive_request(self, message: dict[str, Any], identifier: Identifier, method: str) -> None:
        try:
            self._check_state(method)
            self._get_handler(method)
            params = self._params(message, method)
        except JsonRpcException as error:
            log.warning("Request %s %s was refused: %s", identifier, method, error.message)
            self._answer_error(identifier, error)
            return
        self._handle_request(identifier, method, params)

    def _receive_notification(self, message: dict[str, Any], method: str) -> None:
        if method != "exit" and (self._is_fresh or self._shutdown):
            log.info("Notification %s came outside the session and was ignored.", method)
            return
        try:
            if method != "$/cancelRequest":
                self._get_handler(method)
            params = self._params(message, method)
        except JsonRpcMethodNotFound:
            log.debug("Notification %s is not known here.", method)
        except JsonRpcException as error:
            log.warning("Notification %s was ignored: %s", method, error.message)
            self._server.missed(method, message.get("params"))
        else:
            self._handle_notification(method, params)

    def _receive_response(self, message: dict[str, Any], identifier: Identifier) -> None:
        future = self._request_futures.get(identifier)
        # The client's own requests, which are tasks, live under their ids in the same table.
        if not isinstance(future, Future) or future.done():
            log.debug("An answer to %s came, which nobody waits for.", identifier)
            return
        try:
            response = self.structure_message(message)
        except JsonRpcException as error:
            del self._request_futures[identifier]
            future.set_exception(error)
        else:
            self._handle_response(identifier, getattr(response, "result", None), getattr(response, "error", None))

    @property
    def _is_fresh(self) -> bool:
        return not hasattr(self, "server_capabilities")

    def _check_state(self, method: str) -> None:
        if self._shutdown:
            raise JsonRpcInvalidRequest("The server has been shut down.")
        if method == "initialize":
            if not self._is_fresh:
                raise JsonRpcInvalidRequest("The server is initialized already.")
        elif self._is_fresh:
            raise JsonRpcServerNotInitialized("The first request must be initialize.")

    def _params(self, message: dict[str, Any], method: str) -> Any:
        if (kind := self.get_message_type(method)) is None:
            return message.get("params")
        try:
            return getattr(self._converter.structure(message, kind), "params", None)
        except Exception as error:
            # cattrs raises groups of whatever a converter raised: ValueError, TypeError, KeyError, OverflowError.
            raise JsonRpcInvalidParams(f"Invalid Params: {'; '.join(_reasons(error))}") from error

    def _register_builtin_features(self) -> None:
        super()._register_builtin_features()  # type: ignore[no-untyped-call]  # pygls leaves it without types
        builtin = self.fm.builtin_features
        for method in set(builtin) - LIBRARY_FEATURES:
            del builtin[method]

    @lsp_method("initialize")
    def lsp_initialize(self, params: Any) -> Generator[Any, Any, Any]:
        """Let the server adapt its capabilities to the client's."""
        result = yield from super().lsp_initialize(params)
        self._server.adapt(result.capabilities)
        return result

    @lsp_method("exit")
    def lsp_exit(self, *_: Any) -> None:  # type: ignore[override]  # pygls runs plain functions as well as generators
        """End the connection; `serve` returns."""
        self.finished.set()

    @lsp_method("shutdown")
    def lsp_shutdown(self, *_: Any) -> None:  # type: ignore[override]  # as above
        """Cancel whatever still runs, so that it is answered, and take no further request."""
        for future in list(self._request_futures.values()):
            future.cancel()
        self._shutdown = True

    def _handle_cancel_notification(self, msg_id: Any) -> None:
        # A client that cancels at each key is late half of the time; pygls would write a warning for each.
        if msg_id in self._request_futures:
            super()._handle_cancel_notification(msg_id)

    def _send_response(self, msg_id: Any, result: Any = None, error: Any = None) -> None:
        if error is not None:
            self._answer_error(msg_id, JsonRpcException(error.message, error.code))
        else:
            super()._send_response(msg_id, result)

    def _answer_error(self, identifier: Identifier | None, error: JsonRpcException) -> None:
        # No `data`: pygls would put the traceback there, with paths of the user's machine.
        body = {"code": error.code, "message": error.message}
        self._send_data({"jsonrpc": self.VERSION, "id": identifier, "error": body})

    def _send_data(self, data: Any) -> None:
        if self.writer is None:
            return
        body = json.dumps(data, default=self._serialize_message).encode("ascii")
        try:
            self.writer.write(b"Content-Length: %d\r\n\r\n%b" % (len(body), body))
        except (OSError, ValueError):
            if not self.finished.is_set():
                self.finished.set()  # before it is logged: the log goes to clients that have not finished
                log.info("The client has gone.")


def _decoded(body: Body) -> dict[str, Any]:
    if body.too_long:
        raise JsonRpcInvalidRequest("The message is too long.")
    try:
        message = json.loads(body.content.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise JsonRpcParseError(f"Parse Error: {error}") from error
    if not isinstance(message, dict):
        raise JsonRpcInvalidRequest("A message must be one JSON object.")
    return message


def _flaw(message: dict[str, Any]) -> str | None:
    """What makes the message no JSON-RPC message, if anything does."""
    if message.get("jsonrpc") != Protocol.VERSION:
        return 'A message must say "jsonrpc": "2.0".'
    if "method" in message:
        return None if isinstance(message["method"], str) else "The method must be a string."
    if "id" in message and ("result" in message or "error" in message):
        return None
    return "A message needs a method, or an id with a result or an error."


def _reasons(error: Exception) -> list[str]:
    return [reason.replace("$.params", "params") for reason in transform_error(error, path="$")]
