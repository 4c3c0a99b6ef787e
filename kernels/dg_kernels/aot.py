"""Every kernel, compiled for every architecture without a GPU, and what it takes there held to a committed table.

    python -m dg_kernels.aot --check     # compile all; fail where more is taken than the table says
    python -m dg_kernels.aot --update    # compile all and write the table

A kernel may not take more registers, spill more bytes, use more shared memory or run more instructions in its loop than
`resources.json` says, nor more shared memory than the device has; and where it multiplies matrices, the architecture's
own tensor-core instruction must be in its machine code. The table holds for one version of triton, that of the
project's constraints.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import msgspec
import torch
import triton
from triton import knobs
from triton._C.libtriton import ir
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource, make_backend

from dg_kernels.compilations import PLANS
from dg_kernels.configurations import replace_file
from dg_kernels.launching import Argument, Device, Launch, planned_for

FILE = Path(__file__).with_name("resources.json")
_CUOBJDUMP = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
_INT32_MAX = 2**31 - 1


class Architecture(NamedTuple):
    """A compute capability, the device of it whose tiles are compiled, and its limits."""

    capability: int
    device: Device
    shared: int
    """Bytes of shared memory that one block can have."""
    tensor_core: str
    """The instruction of 16-bit matrix products."""


ARCHITECTURES = (
    Architecture(80, Device("NVIDIA A100", 108), 166_912, "HMMA"),
    Architecture(89, Device("NVIDIA GeForce RTX 4090", 128), 101_376, "HMMA"),
    Architecture(90, Device("NVIDIA H200", 132), 232_448, "HGMMA"),
    Architecture(100, Device("NVIDIA B200", 148), 232_448, "UTCHMMA"),
    Architecture(120, Device("NVIDIA GeForce RTX 5090", 170), 101_376, "HMMA"),
)


_FIRST_WITH_E4M3 = 89
"""Capability whose matrix products take e4m3: an A100 has none."""
_FP8_TENSOR_CORES = {"HMMA": "QMMA", "HGMMA": "QGMMA", "UTCHMMA": "UTCQMMA"}
"""By the instruction for bf16 that of the same device for e4m3."""


class Resources(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What one kernel takes on one architecture."""

    registers: int
    """Per thread."""
    spills: int
    """Bytes per thread, stored and loaded."""
    shared: int
    """Bytes per block."""
    tensor_core: str
    """The instructions of its matrix products, joined by +; empty where it has none."""
    loop: int
    """Instructions of the loop that multiplies; 0 where none does."""


class Table(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`resources.json`: kernels by name, and for each what it takes by architecture (`sm_90`)."""

    triton: str
    kernels: dict[str, dict[str, Resources]]


def launches(architecture: Architecture, pattern: str = "") -> Iterator[tuple[str, Launch]]:
    """The launches on an architecture whose names ("operation: kernel") match a regular expression."""
    for operation, plan in PLANS.items():
        with planned_for(architecture.device):
            planned = plan()
        for launch in planned:
            name = f"{operation}: {launch.kernel.fn.__name__}"
            exists = launch.constants.get("kind") != "native" or architecture.capability >= _FIRST_WITH_E4M3
            if exists and re.search(pattern, name):
                yield name, launch


def compile_launch(launch: Launch, architecture: Architecture) -> Resources:
    """Compile one kernel as it would be launched there."""
    log = io.StringIO()
    with tempfile.TemporaryDirectory() as folder, knobs.cache.scope(), knobs.nvidia.scope():
        knobs.cache.dir = folder
        knobs.nvidia.dump_ptxas_log = True
        with contextlib.redirect_stdout(log):
            compiled = triton.compile(
                _source(launch),
                target=GPUTarget("cuda", architecture.capability, 32),
                options={"num_warps": launch.warps, "num_stages": launch.stages},
            )
        binary = Path(folder) / "kernel.cubin"
        binary.write_bytes(compiled.asm["cubin"])
        code = subprocess.run([_CUOBJDUMP, "-sass", binary], capture_output=True, text=True, check=True).stdout
    registers = re.findall(r"Used (\d+) registers", log.getvalue())
    spills = re.findall(r"(\d+) bytes spill", log.getvalue())
    products = "+".join(sorted(set(re.findall(r"\b(HGMMA|UTCHMMA|HMMA|QGMMA|UTCQMMA|QMMA)\b", code))))
    return Resources(int(registers[-1]), sum(map(int, spills)), compiled.metadata.shared, products, loop_length(code))


def type_launch(launch: Launch, architecture: Architecture) -> None:
    """Give every name of a kernel its type, as compiling begins: in a tenth of the time, and the interpreter does not.

    Raises:
        triton.errors.TritonError: it cannot be compiled.
    """
    backend = make_backend(GPUTarget("cuda", architecture.capability, 32))
    options = backend.parse_options({"num_warps": launch.warps, "num_stages": launch.stages})
    context = ir.context()
    ir.load_dialects(context)
    backend.load_dialects(context)
    known = backend.get_codegen_implementation(options), backend.get_module_map()
    _source(launch).make_ir(backend.target, options, *known, context)


def loop_length(code: str) -> int:
    """Instructions of the shortest loop with the most matrix products, in SASS as cuobjdump prints it; 0 if none."""
    lines = [(int(place, 16), text) for place, text in re.findall(r"/\*([0-9a-f]{4,6})\*/\s+(.*?);", code)]
    bodies = [
        [inner for at, inner in lines if int(target[1], 16) <= at <= place]
        for place, text in lines
        if (target := re.search(r"\bBRA\b.*?\b(0x[0-9a-f]+)", text)) and int(target[1], 16) <= place
    ]
    products = [sum("MMA" in text for text in body) for body in bodies]
    return min(
        (len(body) for body, count in zip(bodies, products, strict=True) if count == max(products) > 0), default=0
    )


def violations(table: Table, name: str, found: Resources, architecture: Architecture, launch: Launch) -> list[str]:
    """What is wrong with a compiled kernel, one sentence for each; nothing if it keeps the table and the limits."""
    where = f"{name} on sm_{architecture.capability}"
    allowed = table.kernels.get(name, {}).get(f"sm_{architecture.capability}")
    if allowed is None:
        return [f"{where} is not in the table: run python -m dg_kernels.aot --update"]
    wrong = [
        f"{where} takes {getattr(found, what)} {unit}, the table allows {getattr(allowed, what)}"
        for what, unit in (
            ("registers", "registers"),
            ("spills", "bytes of spills"),
            ("shared", "bytes shared"),
            ("loop", "instructions in its loop"),
        )
        if getattr(found, what) > getattr(allowed, what)
    ]
    if found.shared > architecture.shared:
        wrong.append(f"{where} takes {found.shared} bytes shared, the device has {architecture.shared}")
    wanted = architecture.tensor_core
    if launch.constants.get("kind") == "native":
        wanted = _FP8_TENSOR_CORES[wanted]
    if "tl.dot(" in launch.kernel.src and found.tensor_core != wanted:
        wrong.append(f"{where} multiplies by {found.tensor_core or 'no tensor core'}, not {wanted}")
    return wrong


def read_table() -> Table:
    """The committed table.

    Raises:
        RuntimeError: it was made with another version of triton.
    """
    table = msgspec.json.decode(FILE.read_bytes(), type=Table)
    if table.triton != triton.__version__:
        raise RuntimeError(f"resources.json is of triton {table.triton}; install that, not {triton.__version__}")
    return table


def main(arguments: list[str] | None = None) -> int:
    """Compile everything; print one line for each kernel and architecture, and check it or write it down."""
    parser = argparse.ArgumentParser(prog="python -m dg_kernels.aot", description="Compile every kernel without a GPU.")
    action = parser.add_mutually_exclusive_group(required=True)
    action.add_argument("--check", action="store_true", help="fail where the committed table is exceeded")
    action.add_argument("--update", action="store_true", help="write the table")
    action.add_argument("--show", action="store_true", help="only print what is found")
    parser.add_argument(
        "--kernels",
        default="",
        metavar="REGEX",
        help="only those whose names match; --update leaves the others as they are",
    )
    chosen = parser.parse_args(arguments)
    table = read_table() if chosen.check or (chosen.update and chosen.kernels) else Table(triton.__version__, {})
    wrong: list[str] = []
    seen: set[str] = set()
    for architecture in ARCHITECTURES:
        for name, launch in launches(architecture, chosen.kernels):
            found = compile_launch(launch, architecture)
            _say(name, architecture, found)
            seen.add(name)
            if chosen.check:
                wrong += violations(table, name, found, architecture, launch)
            if chosen.update:
                table.kernels.setdefault(name, {})[f"sm_{architecture.capability}"] = found
    if not seen:
        parser.error(f"no kernel matches {chosen.kernels!r}")
    if chosen.update:
        replace_file(FILE, msgspec.json.format(msgspec.json.encode(table), indent=1) + b"\n")
    if chosen.check and not chosen.kernels:
        wrong += [f"{name} is in the table but no longer compiled" for name in sorted(table.kernels.keys() - seen)]
    sys.stderr.writelines(f"{line}\n" for line in wrong)
    return int(bool(wrong))


def specialisation(launch: Launch) -> tuple[object, ...]:
    """What triton compiles a kernel anew for; how many programs share some keys is a number like any other."""
    shared = {"splits": 2} if int(launch.constants.get("splits", 1)) > 1 else {}
    source = _source(replace(launch, constants={**launch.constants, **shared}))
    parts = (source.signature, source.constants, source.attrs)
    return (source.fn.__name__, launch.warps, launch.stages, *(tuple(sorted(map(str, one.items()))) for one in parts))


def _source(launch: Launch) -> ASTSource:
    """The kernel with its arguments typed and specialised as triton does when it launches."""
    kernel = launch.kernel
    signature, constants, attributes = {}, dict(launch.constants), {}
    for position, name in enumerate(kernel.arg_names):
        if name in launch.constants:
            signature[name] = "constexpr"
            continue
        argument = launch.arguments[name]
        special = isinstance(argument, int) and not kernel.params[position].do_not_specialize
        if special and argument == 1:
            signature[name], constants[name] = "constexpr", 1
            continue
        signature[name] = _type(argument)
        if isinstance(argument, torch.Tensor) or (special and argument % 16 == 0):
            attributes[(position,)] = [["tt.divisibility", 16]]
    return ASTSource(fn=kernel, signature=signature, constexprs=constants, attrs=attributes)


def _type(argument: Argument) -> str:
    if isinstance(argument, torch.Tensor):
        return "*" + _TYPES[argument.dtype]
    if isinstance(argument, float):
        return "fp32"
    return "i32" if abs(argument) <= _INT32_MAX else "i64"


_TYPES: Mapping[torch.dtype, str] = {
    torch.bfloat16: "bf16",
    torch.float32: "fp32",
    torch.float8_e4m3fn: "fp8e4nv",
    torch.uint8: "u8",
    torch.int32: "i32",
    torch.int64: "i64",
    torch.bool: "i1",
}


def _say(name: str, architecture: Architecture, found: Resources) -> None:
    sys.stdout.write(
        f"sm_{architecture.capability:<4} {name:50} {found.registers:4} registers {found.spills:5} spilt "
        f"{found.shared:7} shared {found.tensor_core}\n"
    )
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
