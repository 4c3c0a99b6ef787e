"""`dg-engine`: serve, measure, train, fine-tune and evaluate models. Torch is imported by the commands that need it."""

from __future__ import annotations

import errno
import importlib
import logging
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

import click

from dg_engine import __version__, hub, paths
from dg_engine.errors import NO_ROOM, EngineError
from dg_engine.options import THREADS, Number
from dg_engine.streams import print_anything

if TYPE_CHECKING:
    from dg_engine.engine import Engine

_ELSEWHERE = {
    "bench": "dg_engine.bench:bench",
    "corpus": "dg_engine.training.corpus_command:corpus",
    "download": "dg_engine.format_commands:download",
    "evaluate": "dg_engine.evaluation.commands:evaluate",
    "finetune": "dg_engine.training.finetune_command:finetune",
    "generate": "dg_engine.generate_command:generate",
    "inspect": "dg_engine.format_commands:inspect",
    "quantize": "dg_engine.format_commands:quantize",
    "study": "dg_engine.studies.command:study",
    "train": "dg_engine.training.commands:train",
}


DEFAULT_THREADS = 1
"""A second thread makes a step of the small model 20 % faster on two idle cores, and ten times slower when another
program wants one of them: OpenMP's barriers wait for whichever thread was put aside."""


_FOR_TRAINING = {"datasketch", "matplotlib", "packaging"}

_MAKE_ROOM = "make room, and the same command goes on"


class _LazyGroup(click.Group):
    """Imports a command's module when it is asked for, and shows the project's own errors as one line."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted({*super().list_commands(ctx), *_ELSEWHERE})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _ELSEWHERE:
            return super().get_command(ctx, cmd_name)
        module, name = _ELSEWHERE[cmd_name].split(":")
        command = getattr(importlib.import_module(module), name)
        assert isinstance(command, click.Command)  # noqa: S101  (narrows getattr's Any)
        return command

    def invoke(self, ctx: click.Context) -> object:
        try:
            return super().invoke(ctx)
        except EngineError as error:
            raise click.ClickException(str(error)) from error
        except OSError as error:
            if error.errno == errno.EPIPE:  # click's own affair
                raise
            raise click.ClickException(_told(error)) from error
        except ModuleNotFoundError as error:
            if error.name is None or error.name.startswith("dg_"):
                raise
            extra = "train" if error.name in _FOR_TRAINING else "engine"
            remedy = f"pip install '.[{extra}]' in a checkout of dg-lsp"
            raise click.ClickException(f"{error.name} is not installed, which this command needs: {remedy}") from error
        except Exception as error:
            if not _is_unwritten(error):
                raise
            raise click.ClickException(f"{error}; {_MAKE_ROOM}") from error


def _told(error: OSError) -> str:
    said = f"{error.filename}: {error.strerror}" if error.filename else str(error.strerror or error)
    return f"{said}; {_MAKE_ROOM}" if error.errno in NO_ROOM else said


def _is_unwritten(error: Exception) -> bool:
    """Whether a file of tensors could not be written, of which safetensors tells in its own way.

    Where it is raised it has been imported. What cannot be read the commands tell themselves.
    """
    kind = getattr(sys.modules.get("safetensors"), "SafetensorError", ())
    return isinstance(error, kind) and "os error" in str(error)


@click.group(cls=_LazyGroup)
@click.version_option(__version__)
def main() -> None:
    """The text-diffusion engine."""
    print_anything()


@main.command()
@click.option("--socket", "socket_", type=click.Path(path_type=Path), help="Unix socket; default: the model's own.")
@click.option("--listen", metavar="HOST:PORT", help="Loopback address instead; needs DG_ENGINE_TOKEN.")
@click.option(
    "--model",
    default="",
    help="Checkpoint directory, or OWNER/NAME in the hub's cache; default: the model that comes with the package.",
)
@click.option("--adapter", default="", help="Directory of an adapter for this model, as `dg-engine finetune` makes it.")
@click.option("--device", help="cpu, cuda, cuda:1; default: a GPU if there is one.")
@click.option("--threads", type=THREADS, help="CPU threads; default: 1.")
@click.option("--idle-timeout", type=Number(0), default=900.0, show_default=True, help="Seconds.")
def serve(
    socket_: Path | None,
    listen: str | None,
    model: str,
    adapter: str,
    device: str | None,
    threads: int | None,
    idle_timeout: float,
) -> None:
    """Serve a model on a Unix socket, or on loopback, until it is idle."""
    from dg_engine import serving
    from dg_engine.service import Service

    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", stream=sys.stderr)
    service = Service(lambda report: load_engine(model, adapter, device=device, threads=threads, report=report))
    if listen is not None:
        host, port = paths.host_and_port(listen) or ("", 0)
        if not host:
            raise click.BadParameter(f"expected HOST:PORT, not {listen!r}", param_hint="--listen")
        token = os.environ.get("DG_ENGINE_TOKEN", "")
        serving.serve_loopback(service, host, port, token, idle_timeout)
    else:
        serving.serve_socket(service, socket_ or paths.socket_path(model, adapter), idle_timeout)


def load_engine(
    model: str,
    adapter: str = "",
    *,
    device: str | None = None,
    threads: int | None = None,
    dtype: str | None = None,
    report: Callable[[str, float], None] | None = None,
) -> Engine:
    """The engine for a checkpoint directory or a model in the hub's cache, with or without an adapter.

    An empty name is the shipped model. Without a `report` a bar on the terminal, if there is one, shows the progress.
    """
    # oneDNN keeps a compiled primitive for each shape it has met, 1,024 of them by default: after 240 infills the
    # process held 765 MB, with 64 of them 665, at the same speed. Read when torch first multiplies.
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "64")
    import torch

    from dg_engine.engine import Engine

    torch.set_num_threads(threads or DEFAULT_THREADS)
    precision = None if dtype is None else getattr(torch, dtype)
    with _bar() if report is None else nullcontext(report) as told:
        return Engine.load(
            hub.resolve(model),
            adapter=Path(adapter) if adapter else None,
            device=device,
            dtype=precision,
            report=told,
        )


@contextmanager
def _bar() -> Iterator[Callable[[str, float], None]]:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn

    console = Console(stderr=True)
    columns = TextColumn("{task.description}"), BarColumn(), TaskProgressColumn()
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("loading", total=1.0)
        yield lambda message, progress: bar.update(task, description=message, completed=progress)
