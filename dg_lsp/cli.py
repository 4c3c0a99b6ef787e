"""The command `dg-lsp`: the server, one completion in the terminal, and a check-up.

Only what the server needs for `initialize` is imported here; each command brings the rest when it runs.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import click

from dg_engine.options import Number
from dg_engine.streams import print_anything
from dg_lsp import __version__, logs
from dg_lsp.place import Place

if TYPE_CHECKING:
    from dg_lsp.server import Server
    from dg_lsp.workspace import BackendFactory


def _place(_: click.Context, __: click.Parameter, value: str) -> Place:
    """Read `FILE:LINE:COL`; the file's name may hold colons itself."""
    match = re.fullmatch(r"(.+):(\d{1,9}):(\d{1,9})", value, re.DOTALL)
    if match is None or int(match[2]) < 1 or int(match[3]) < 1:
        raise click.BadParameter(f"{value!r} is not FILE:LINE:COL with line and column from 1 on.")
    return Place(Path(match[1]), int(match[2]), int(match[3]))


def _address(_: click.Context, __: click.Parameter, value: str | None) -> tuple[str, int] | None:
    """Read `HOST:PORT` of this machine: the protocol has no password."""
    from dg_engine.paths import host_and_port, is_loopback

    if value is None:
        return None
    if (found := host_and_port(value)) is None:
        raise click.BadParameter(f"{value!r} is not HOST:PORT.")
    host, port = found
    host = "127.0.0.1" if host == "localhost" else host
    if not is_loopback(host):
        raise click.BadParameter(f"{host!r} is not a loopback address of this machine, such as 127.0.0.1.")
    return host, port


_MODEL = click.option("--model", default="", help="Name or directory of a checkpoint; the shipped one by default.")
_ADAPTER = click.option("--adapter", default="", help="Directory of an adapter for the model; none by default.")


class BackendChoice(NamedTuple):
    """Which backend the command line asks for."""

    name: str
    script: Path | None

    def factory(self) -> BackendFactory:
        """What makes the backend for given settings.

        Raises:
            click.ClickException: the script cannot be used.
        """
        from dg_lsp.backends import EngineBackend
        from dg_lsp.scripted import ScriptedBackend, read_script

        if self.name == "engine":
            return lambda settings: EngineBackend(settings.engine)
        if self.script is None:
            raise click.UsageError("--backend scripted needs --script FILE.")
        try:
            script = read_script(self.script)
        except (OSError, ValueError) as error:
            raise click.ClickException(str(error)) from error
        return lambda settings: ScriptedBackend(script, settings.engine.model)


@click.group(invoke_without_command=True)
@click.version_option(__version__, prog_name="dg-lsp")
@click.option("--tcp", metavar="HOST:PORT", callback=_address, help="Serve one client on a loopback port instead.")
@click.option("--stdio", is_flag=True, help="Serve on standard input and output: the default, named by some clients.")
@click.option("--log-file", type=click.Path(path_type=Path, dir_okay=False), help="Write the log here.")
@click.option(
    "--log-level",
    type=click.Choice(["debug", "info", "warning", "error"]),
    help="Until the client's settings say otherwise. Default: info for the server, warning for the commands.",
)
@click.option("--backend", type=click.Choice(["engine", "scripted"]), default="engine", help="Who fills the hole.")
@click.option("--script", type=click.Path(path_type=Path, dir_okay=False), help="What the scripted backend does.")
@click.pass_context
def main(
    context: click.Context,
    tcp: tuple[str, int] | None,
    stdio: bool,  # noqa: FBT001  (click passes options by their names)
    log_file: Path | None,
    log_level: str | None,
    backend: str,
    script: Path | None,
) -> None:
    """In-line completion from a text-diffusion model on this machine. Without a command: the language server."""
    print_anything()
    if stdio and tcp is not None:
        raise click.UsageError("--stdio and --tcp exclude each other.")
    try:
        usual = "info" if context.invoked_subcommand is None else "warning"
        logs.configure(log_level or usual, log_file)
    except OSError as error:
        raise click.ClickException(f"The log file cannot be written: {error}") from error
    context.obj = BackendChoice(backend, script)
    if context.invoked_subcommand is None:
        sys.exit(serve(context.obj.factory(), tcp))


def serve(make_backend: BackendFactory, tcp: tuple[str, int] | None) -> int:
    """Run the server to its end; returns the exit status."""
    from dg_lsp.server import Server

    with contextlib.suppress(KeyboardInterrupt):
        return asyncio.run(_serve_tcp(Server, make_backend, tcp) if tcp else _serve_stdio(Server, make_backend))
    return 130


async def _serve_stdio(kind: type[Server], make_backend: BackendFactory) -> int:
    from dg_lsp.transport import DescriptorWriter, claim_stdout, read_descriptor

    writer = DescriptorWriter(claim_stdout())
    server = kind(make_backend)
    _stop_on_signals(server)
    try:
        return await server.serve(read_descriptor(0, asyncio.get_running_loop()), writer)
    finally:
        writer.close()


async def _serve_tcp(kind: type[Server], make_backend: BackendFactory, address: tuple[str, int]) -> int:
    accepted: asyncio.Future[tuple[asyncio.StreamReader, asyncio.StreamWriter]]
    accepted = asyncio.get_running_loop().create_future()

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if accepted.done():
            writer.close()
        else:
            accepted.set_result((reader, writer))

    try:
        listener = await asyncio.start_server(accept, *address)
    except OSError as error:
        raise click.ClickException(f"Cannot listen there: {error.strerror}") from error
    host, port = listener.sockets[0].getsockname()[:2]
    click.echo(f"dg-lsp listens on {host}:{port}", err=True)
    reader, writer = await accepted
    listener.close()
    server = kind(make_backend)
    _stop_on_signals(server)
    try:
        return await server.serve(reader, writer)
    finally:
        writer.close()


def _stop_on_signals(server: Server) -> None:
    # Windows has no handlers in its event loop; there the default action ends the process.
    with contextlib.suppress(NotImplementedError):
        for name in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(name, server.protocol.finished.set)


@main.command(short_help="Print the completion at FILE:LINE:COL.")
@click.argument("place", metavar="FILE:LINE:COL", callback=_place)
@click.option("--watch", is_flag=True, help="Show the drafts as they crystallise.")
@click.option("--json", "as_json", is_flag=True, help="Print text, range, steps, milliseconds, score and stop reason.")
@click.option("--steps", type=click.IntRange(min=1), help="Denoising steps at most.")
@click.option("--decoding", default="auto", help="How it is made, as the setting `decoding` has it.")
@_MODEL
@_ADAPTER
@click.pass_obj
def complete(
    choice: BackendChoice,
    place: Place,
    watch: bool,  # noqa: FBT001  (click passes options by their names)
    as_json: bool,  # noqa: FBT001  (as above)
    steps: int | None,
    decoding: str,
    model: str,
    adapter: str,
) -> None:
    """Print the completion at FILE:LINE:COL, line and column as editors show them.

    Exit status: 0 with a completion, 1 without one (the reason is on standard error), 2 for a wrong command line,
    3 when the engine fails.
    """
    from dg_lsp import terminal
    from dg_lsp.settings import SettingsError, parse

    if watch and as_json:
        raise click.UsageError("--watch and --json exclude each other.")
    engine = {"model": model, "adapter": adapter, "answerTimeoutS": 120.0}
    try:
        settings = parse({"maxDenoisingSteps": steps, "decoding": decoding, "engine": engine})
    except SettingsError as error:
        raise click.UsageError(str(error)) from error
    display = terminal.Watched() if watch else terminal.Json() if as_json else terminal.Plain()
    sys.exit(asyncio.run(terminal.complete(place, choice.factory()(settings), settings, display)))


@main.command(short_help="Watch completions crystallise in a real file.")
@_MODEL
@click.option("--picture", type=click.Path(path_type=Path, dir_okay=False), help="Write what is shown as SVG, too.")
def demo(model: str, picture: Path | None) -> None:
    """Watch completions crystallise in a real file, over LSP. Exit status 1 if nothing at all was offered."""
    from dg_lsp.demo import record, run

    settings = {"engine": {"model": model, "answerTimeoutS": 120.0}}
    if picture is not None and not picture.parent.is_dir():
        raise click.UsageError(f"{picture.parent} is no directory.")
    sys.exit(run(settings) if picture is None else record(settings, picture))


@main.command(name="schema", short_help="Print the JSON Schema of the settings.")
@click.option("--table", "as_table", is_flag=True, help="Print a Markdown table for people instead.")
def print_schema(as_table: bool) -> None:  # noqa: FBT001  (click passes options by their names)
    """Print the JSON Schema of the settings, from which editors can make forms and checks."""
    import json

    from dg_lsp.schema import schema, table

    click.echo(table() if as_table else json.dumps(schema(), indent=2, ensure_ascii=False))


@main.command(short_help="Measure the server's own share of a completion.")
def bench() -> None:
    """Measure the server's own share of a completion, with the scripted engine in place of the real one."""
    from dg_lsp.bench import run

    run()


@main.command(short_help="Type real code again: how many keys are spared.")
@click.argument("paths", nargs=-1, required=True, type=click.Path(path_type=Path, exists=True))
@click.option("--passages", type=click.IntRange(1), default=20, show_default=True, help="Of one to four lines.")
@click.option("--seed", type=int, default=0, show_default=True, help="Of their choice.")
@click.option("--reading-ms", type=Number(0), default=300, show_default=True, help="Before an offer is taken.")
@click.option("--min-probability", type=Number(0, 1), help="As the setting; default: its own.")
@click.option("--pairs", is_flag=True, help="In an editor that closes brackets and quotes by itself.")
@_MODEL
@_ADAPTER
def replay(
    paths: tuple[Path, ...],
    passages: int,
    seed: int,
    reading_ms: float,
    min_probability: float | None,
    model: str,
    adapter: str,
    *,
    pairs: bool,
) -> None:
    """Type passages of real code again, key by key: what is offered, how often it is right, how many keys it spares.

    PATHS are files, or folders: of those all code that is yours, without what git ignores, hidden folders and files
    that are never read. Exit status 1 if no passage is found in them, 3 if the engine failed.
    """
    from dg_engine.errors import EngineError
    from dg_lsp.replay import Unreadable, print_replayed

    settings: dict[str, object] = {"engine": {"model": model, "adapter": adapter, "answerTimeoutS": 120.0}}
    if min_probability is not None:
        settings["minProbability"] = min_probability
    try:
        sys.exit(print_replayed(paths, passages, seed, settings, reading_ms / 1000, pairs=pairs))
    except (Unreadable, EngineError) as error:
        raise click.ClickException(str(error)) from error


@main.command(short_help="Say what is installed and running, and what to do about each problem.")
@_MODEL
@_ADAPTER
def doctor(model: str, adapter: str) -> None:
    """Say what is installed and running, and what to do about each problem. Exit status 1 if something is broken."""
    from dg_lsp.doctor import examine, render

    checks = asyncio.run(examine(model, adapter))
    render(checks)
    sys.exit(any(check.state == "broken" for check in checks))
