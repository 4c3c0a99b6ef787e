"""A check-up: what is installed, which model, which device, whether the engine runs, and what to do about problems."""

from __future__ import annotations

import asyncio
import importlib
import platform
import sys
from contextlib import aclosing
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Literal, NamedTuple

import rich

from dg_engine import hub, paths
from dg_engine.api import Health
from dg_engine.client import EngineClient
from dg_engine.errors import CheckpointError, EngineError, EngineUnavailable
from dg_lsp import __version__
from dg_lsp.languages import LANGUAGES

State = Literal["fine", "note", "broken"]

SERVER_PACKAGES = ("pygls", "lsprotocol", "tree-sitter", "msgspec", "httpx")
ENGINE_PACKAGES = ("torch", "numpy", "safetensors", "tokenizers", "starlette", "uvicorn")
INSTALL_ENGINE = "Install the engine: pip install '.[engine]' in a checkout of dg-lsp"
PROBE_TIMEOUT_S = 60.0
"""Importing torch from a cold disk takes tens of seconds."""

_TORCH_PROBE = """
import torch
gpu = torch.cuda.is_available()
print(torch.__version__, "on", torch.cuda.get_device_name() if gpu else f"the CPU, {torch.get_num_threads()} threads")
"""


class Check(NamedTuple):
    """One finding; `remedy` says what to do and is empty where nothing need be done."""

    name: str
    state: State
    finding: str
    remedy: str = ""


async def examine(model: str, adapter: str = "") -> list[Check]:
    """Every check in the order in which it is shown. Starts no engine."""
    checks = [
        _server(),
        *(_package(name, "Reinstall it: pip install . in a checkout of dg-lsp") for name in SERVER_PACKAGES),
        _grammars(),
    ]
    checks += [_package(name, INSTALL_ENGINE) for name in ENGINE_PACKAGES]
    return [*checks, await _device(), _model(model), *_adapter(adapter), *await _engine(model, adapter)]


def render(checks: list[Check]) -> None:
    """Print the checks as a table, remedies below their findings."""
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, show_header=False)
    styles = {"fine": "green", "note": "yellow", "broken": "bold red"}
    for check in checks:
        finding = Text(check.finding)
        if check.remedy:
            finding.append(f"\n{check.remedy}", "bold")
        table.add_row(Text(check.state, styles[check.state]), check.name, finding)
    rich.print(table)


def _server() -> Check:
    finding = f"{__version__} with Python {platform.python_version()} on {platform.platform()}"
    return Check("dg-lsp", "fine", finding)


def _package(name: str, remedy: str) -> Check:
    try:
        return Check(name, "fine", version(name))
    except PackageNotFoundError:
        return Check(name, "broken", "not installed", remedy)


def _grammars() -> Check:
    modules = sorted({language.module for language in LANGUAGES if language.module})
    missing = [module for module in modules if not _imports(module)]
    if missing:
        wheels = " ".join(module.replace("_", "-") for module in missing)
        return Check("grammars", "broken", f"missing: {', '.join(missing)}", f"Install them: pip install {wheels}")
    names = ", ".join(module.removeprefix("tree_sitter_") for module in modules)
    return Check("grammars", "fine", names)


def _imports(module: str) -> bool:
    try:
        importlib.import_module(module)
    except ImportError:
        return False
    return True


async def _device() -> Check:
    # In a process of its own: this one never imports torch, and a broken torch may end the process that tries.
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-P", "-c", _TORCH_PROBE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    try:
        async with asyncio.timeout(PROBE_TIMEOUT_S):
            output, errors = await process.communicate()
    except TimeoutError:
        process.kill()
        await process.wait()
        return Check("device", "broken", f"torch did not load within {PROBE_TIMEOUT_S:g} s", INSTALL_ENGINE)
    if process.returncode != 0:
        last = (errors.decode("utf-8", "replace").strip().splitlines() or ["no message"])[-1]
        return Check("device", "broken", f"torch does not load: {last}", INSTALL_ENGINE)
    return Check("device", "fine", output.decode("utf-8", "replace").strip())


def _model(model: str) -> Check:
    try:
        directory = hub.resolve(model)
    except (CheckpointError, ModuleNotFoundError) as error:
        return Check("model", "broken", str(error), "Give --model (the setting dg.engine.model) a model that is here.")
    missing = [name for name in ("config.json", "tokenizer.json") if not (directory / name).is_file()]
    if missing:
        remedy = "Give --model (the setting dg.engine.model) the directory of a checkpoint in Hugging Face layout."
        return Check("model", "broken", f"{directory} lacks {' and '.join(missing)}", remedy)
    return Check("model", "fine", model or "the shipped one")


def _adapter(adapter: str) -> list[Check]:
    if not adapter:
        return []
    if not (Path(adapter) / "adapter_config.json").is_file():
        remedy = "Give --adapter (the setting dg.engine.adapter) the directory that `dg-engine finetune` wrote."
        return [Check("adapter", "broken", f"{adapter} lacks adapter_config.json", remedy)]
    return [Check("adapter", "fine", adapter)]


async def _engine(model: str, adapter: str) -> list[Check]:
    try:
        socket = paths.socket_path(model, adapter)
        async with aclosing(EngineClient(f"unix:{socket}")) as client:
            return [_log(model, adapter), *await _running(client)]
    except EngineUnavailable as error:
        return [Check("engine", "broken", str(error), "Set XDG_RUNTIME_DIR to a private directory of yours.")]


async def _running(client: EngineClient) -> list[Check]:
    socket = client.address.socket
    try:
        health = await client.health()
    except EngineUnavailable:
        return [Check("engine", "note", f"not running; the first file that is open starts it on {socket}")]
    except EngineError as error:
        return [Check("engine", "broken", f"does not answer as an engine: {error}", f"End it and delete {socket}.")]
    if health.state == "failed":
        return [Check("engine", "broken", f"could not load its model: {health.message}", f"End process {health.pid}.")]
    return [Check("engine", "fine", _described(health)), *await _loaded(client, health)]


def _described(health: Health) -> str:
    return f"{health.state}, process {health.pid}, up {health.uptime_s:.0f} s, {health.active_requests} requests"


async def _loaded(client: EngineClient, health: Health) -> list[Check]:
    if health.state != "ready":
        return []
    try:
        model = await client.model()
    except EngineError as error:
        return [
            Check("loaded model", "broken", str(error), f"End process {health.pid}; it is started again on demand.")
        ]
    size = f"{model.parameters / 1e6:.1f}M parameters, {model.active_parameters / 1e6:.1f}M active"
    adapted = f" with the adapter {model.adapter}" if model.adapter else ""
    return [Check("loaded model", "fine", f"{model.name}{adapted}: {size}, {model.dtype} on {model.device}")]


def _log(model: str, adapter: str) -> Check:
    path = paths.log_path(model, adapter)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.open("ab").close()
    except OSError as error:
        return Check("engine log", "note", f"none is written: {error}")
    return Check("engine log", "fine", str(path))
