"""The language server's handlers: protocol types in, protocol types out, each a few lines over `Workspace`.

A request that cannot be served is answered with null and leaves a line in the log; the user never sees a popup.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Mapping, Sequence
from functools import partial
from typing import Any, TypeVar

from lsprotocol import types
from pygls.exceptions import JsonRpcException, JsonRpcInvalidParams
from pygls.lsp.server import LanguageServer
from pygls.protocol import default_converter

from dg_engine.api import Draft
from dg_lsp import __version__, convert, logs, models
from dg_lsp.parent import watch_parent
from dg_lsp.planning import Plan
from dg_lsp.protocol import Protocol
from dg_lsp.session import Ask, Offer
from dg_lsp.settings import SECTION
from dg_lsp.status import Status
from dg_lsp.workspace import BackendFactory, Workspace

log = logging.getLogger(__name__)

T = TypeVar("T")

RESTART = "dg.restartEngine"
SNOOZE = "dg.snooze"
MODELS = "dg.models"
MINUTES_A_YEAR = 525_600
FAREWELL_S = 0.5
"""How long the end waits for cancelled work; shutdown as a whole has one second."""


class Server(LanguageServer):
    """One client's server."""

    protocol: Protocol

    def __init__(self, make_backend: BackendFactory) -> None:
        super().__init__("dg-lsp", __version__, protocol_cls=Protocol, converter_factory=default_converter)
        self.state = Workspace(make_backend, self._tell_status)
        self.client = types.ClientCapabilities()
        self.is_introduced = False
        """Whether `initialize` has come; from then on, its own answer included, the log may go to the client."""
        self.is_initialized = False
        """Whether the client has taken the answer; from then on anything may."""
        self._loading: _LoadingProgress | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        for method, (handler, options) in FEATURES.items():
            self.feature(method, options)(handler)
        for name, command in COMMANDS.items():
            self.command(name)(command)

    async def serve(self, reader: asyncio.StreamReader, writer: Any) -> int:
        """Serve one connection to its end; returns the process's exit status."""
        self.protocol.set_writer(writer)
        asyncio.get_running_loop().set_exception_handler(logs.on_loop_error)
        handler = logs.ClientHandler(self._log_to_client)
        logging.getLogger(logs.LOGGER).addHandler(handler)
        try:
            return await self.protocol.serve(reader)
        finally:
            logging.getLogger(logs.LOGGER).removeHandler(handler)
            await self._end()

    async def _end(self) -> None:
        # Cancelled requests are answered by callbacks of their tasks, so these are let finish.
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.wait({asyncio.create_task(self.state.aclose()), *others}, timeout=FAREWELL_S)

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Run `work` beside the handlers; asyncio itself keeps no hold of a task."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def adapt(self, capabilities: types.ServerCapabilities) -> None:
        """Offer a menu entry only to clients without in-line completion, lest they show everything twice."""
        if convert.offers_inline_completion(self.client):
            capabilities.completion_provider = None

    def missed(self, method: str, params: Any) -> None:
        """Forget a document of which an edit could not be read: better no answer than one for other text."""
        match method, params:
            case types.TEXT_DOCUMENT_DID_CHANGE, {"textDocument": {"uri": str() as uri}}:
                self.state.close(uri)

    def report_server_error(self, error: Exception, source: Any) -> None:
        """Log what pygls would show in a popup."""
        log.error("%s: %s", getattr(source, "__name__", source), error)

    async def answer(self, uri: str, ask: Ask, render: Callable[[Offer], T]) -> T | None:
        """The offer in protocol form; null where there is none, for whatever reason."""
        try:
            outcome = await self.state.complete(uri, ask, self._tell_draft)
            return render(outcome) if isinstance(outcome, Offer) else None
        except Exception:
            log.exception("A completion failed.")
            return None

    async def pull_settings(self) -> None:
        """Ask the client for its settings, if it lets itself be asked."""
        workspace = self.client.workspace
        if workspace is None or not workspace.configuration:
            await self.state.configure(None)
            return
        try:
            items = [types.ConfigurationItem(section=SECTION)]
            answer = await self.workspace_configuration_async(types.ConfigurationParams(items))
        except JsonRpcException as error:
            log.warning("The client did not tell its settings: %s", error.message)
            answer = None
        values = answer[0] if isinstance(answer, Sequence) and answer else answer
        # A client without settings of ours says null.
        await self.state.configure({} if values is None and answer is not None else _object(values))

    async def subscribe(self) -> None:
        """Ask to be told of changed settings, where the client wants to be asked for that."""
        workspace = self.client.workspace
        support = workspace.did_change_configuration if workspace is not None else None
        if support is None or not support.dynamic_registration:
            return
        method = types.WORKSPACE_DID_CHANGE_CONFIGURATION
        options = types.DidChangeConfigurationRegistrationOptions(section=SECTION)
        registration = types.Registration(id="dg-settings", method=method, register_options=options)
        try:
            await self.client_register_capability_async(types.RegistrationParams([registration]))
        except JsonRpcException as error:
            log.warning("The client does not tell of changed settings: %s", error.message)

    def _tell_draft(self, planned: Plan, draft: Draft) -> None:
        self.protocol.notify(convert.DRAFT, convert.draft_note(planned, draft))

    def _log_to_client(self, level: int, message: str) -> None:
        if self.is_introduced and not self.protocol.finished.is_set():
            self.window_log_message(types.LogMessageParams(_message_type(level), message))

    def _tell_status(self, status: Status) -> None:
        if not self.is_initialized:
            return
        if convert.shows_status(self.client):
            self.protocol.notify(convert.STATUS, convert.status_note(status, self.state.settings.engine.model))
        elif self.client.window is not None and self.client.window.work_done_progress:
            self._show_progress(status if status.state == "loading" else None)

    def _show_progress(self, loading: Status | None) -> None:
        if self._loading is None:
            if loading is None:
                return
            self._loading = _LoadingProgress(self)
            self.spawn(self._loading.show())
        self._loading.update(loading)
        if loading is None:
            self._loading = None


class _LoadingProgress:
    """One work-done progress, from the first sign of loading to its end."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._latest: Status | None = None
        self._news = asyncio.Event()

    def update(self, loading: Status | None) -> None:
        self._latest = loading
        self._news.set()

    async def show(self) -> None:
        token = f"dg-loading-{id(self)}"
        try:
            await self._server.window_work_done_progress_create_async(types.WorkDoneProgressCreateParams(token))
        except JsonRpcException as error:
            log.info("The client shows no progress: %s", error.message)
            return
        self._send(token, types.WorkDoneProgressBegin(title="Loading model", percentage=0))
        await self._news.wait()
        while self._latest is not None:
            percentage = round(100 * (self._latest.fraction or 0))
            self._send(token, types.WorkDoneProgressReport(message=self._latest.message, percentage=percentage))
            self._news.clear()
            await self._news.wait()
        self._send(token, types.WorkDoneProgressEnd())

    def _send(self, token: str, value: Any) -> None:
        self._server.progress(types.ProgressParams(token, value))


def _object(values: Any) -> Mapping[str, Any] | None:
    if values is not None and not isinstance(values, Mapping):
        log.warning("Settings not taken: they must be an object, not %.40r.", values)
    return values if isinstance(values, Mapping) else None


def _message_type(level: int) -> types.MessageType:
    if level >= logging.ERROR:
        return types.MessageType.Error
    return types.MessageType.Warning if level >= logging.WARNING else types.MessageType.Info


def on_initialize(server: Server, params: types.InitializeParams) -> None:
    """Learn what the client can do, where its workspace is and what it wants."""
    server.client = params.capabilities
    server.is_introduced = True
    server.state.set_folders(convert.folders(params.workspace_folders, params.root_uri))
    server.state.initialize(_object(params.initialization_options) or {})
    if params.process_id is not None:
        server.spawn(watch_parent(params.process_id, server.protocol.finished.set))


async def on_initialized(server: Server, _: types.InitializedParams) -> None:
    """Fetch the settings, and tell the state."""
    server.is_initialized = True
    server.state.tell_status()
    await server.pull_settings()
    await server.subscribe()


async def on_did_change_configuration(server: Server, params: types.DidChangeConfigurationParams) -> None:
    """Take pushed settings; clients that can be asked are asked, as what they push may be empty."""
    pushed = params.settings.get(SECTION) if isinstance(params.settings, Mapping) else None
    workspace = server.client.workspace
    if isinstance(pushed, Mapping) and not (workspace is not None and workspace.configuration):
        await server.state.configure(pushed)
    else:
        await server.pull_settings()


def on_did_change_workspace_folders(server: Server, params: types.DidChangeWorkspaceFoldersParams) -> None:
    """Follow the workspace."""
    removed = set(convert.folders(params.event.removed, None))
    kept = [folder for folder in server.state.folders if folder not in removed]
    server.state.set_folders([*kept, *convert.folders(params.event.added, None)])


def on_did_open(server: Server, params: types.DidOpenTextDocumentParams) -> None:
    """Mirror a buffer."""
    document = convert.document(params.text_document, convert.encoding(server.server_capabilities))
    server.state.open(document, convert.path_of(params.text_document.uri))


def on_did_change(server: Server, params: types.DidChangeTextDocumentParams) -> None:
    """Carry out the client's edits."""
    document = params.text_document
    server.state.change(document.uri, convert.changes(params.content_changes), document.version)


def on_did_close(server: Server, params: types.DidCloseTextDocumentParams) -> None:
    """Forget a buffer."""
    server.state.close(params.text_document.uri)


async def on_inline_completion(
    server: Server, params: types.InlineCompletionParams
) -> types.InlineCompletionList | None:
    """Ghost text."""
    return await server.answer(params.text_document.uri, convert.inline_ask(params), convert.inline_list)


async def on_completion(server: Server, params: types.CompletionParams) -> types.CompletionList | None:
    """The same as a menu entry, for clients without in-line completion."""
    if convert.offers_inline_completion(server.client):
        return None
    as_list = partial(convert.completion_list, adjusted=convert.adjusts_indentation(server.client))
    return await server.answer(params.text_document.uri, convert.fallback_ask(params), as_list)


def explain(server: Server, *arguments: Any) -> dict[str, Any]:
    """What the last request of a document, named by its URI, came to: `state`, `reason`, and how many still run."""
    if len(arguments) != 1 or not isinstance(arguments[0], str):
        raise JsonRpcInvalidParams(f"{convert.EXPLAIN} takes the URI of one document.")
    return {**server.state.explain(arguments[0])._asdict(), "running": server.state.running}


async def restart_engine(server: Server, *_: Any) -> str:
    """End the engine and start it again, past failures forgotten; returns a sentence on what came of it."""
    return await server.state.restart()


def snooze(server: Server, *arguments: Any) -> dict[str, Any]:
    """Offer nothing unasked for so many minutes, 0 to end the pause; returns `until`, a time or null."""
    match arguments:
        case [int() | float() as minutes] if 0 <= minutes <= MINUTES_A_YEAR:
            until = server.state.snooze(minutes)
        case _:
            raise JsonRpcInvalidParams(f"{SNOOZE} takes a number of minutes, 0 to end the pause.")
    return {"until": until and until.isoformat(timespec="seconds")}


def known_models(server: Server, *_: Any) -> list[dict[str, Any]]:
    """The models to choose from: `name` and `description` for people, `model` for the setting, `current`."""
    return [model._asdict() for model in models.known(server.state.settings.engine.model)]


FEATURES: dict[str, tuple[Callable[..., Any], Any]] = {
    types.INITIALIZE: (on_initialize, None),
    types.INITIALIZED: (on_initialized, None),
    types.WORKSPACE_DID_CHANGE_CONFIGURATION: (on_did_change_configuration, None),
    types.WORKSPACE_DID_CHANGE_WORKSPACE_FOLDERS: (on_did_change_workspace_folders, None),
    types.TEXT_DOCUMENT_DID_OPEN: (on_did_open, None),
    types.TEXT_DOCUMENT_DID_CHANGE: (on_did_change, None),
    types.TEXT_DOCUMENT_DID_CLOSE: (on_did_close, None),
    # Without an options object pygls does not advertise the capability.
    types.TEXT_DOCUMENT_INLINE_COMPLETION: (on_inline_completion, types.InlineCompletionOptions()),
    types.TEXT_DOCUMENT_COMPLETION: (
        on_completion,
        types.CompletionOptions(trigger_characters=list(convert.FALLBACK_TRIGGERS)),
    ),
}

COMMANDS: dict[str, Callable[..., Any]] = {
    convert.EXPLAIN: explain,
    RESTART: restart_engine,
    SNOOZE: snooze,
    MODELS: known_models,
}
