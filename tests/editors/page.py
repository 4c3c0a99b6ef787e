"""The tables of `editors/README.md`, the protocol for authors of clients."""

from __future__ import annotations

import re
from pathlib import Path

PAGE = (Path(__file__).parents[2] / "editors" / "README.md").read_text(encoding="utf-8")


def section(title: str) -> str:
    """The text under a heading, up to the next one."""
    (found,) = re.findall(rf"^#+ {re.escape(title)}\n(.*?)(?=^#|\Z)", PAGE, re.MULTILINE | re.DOTALL)
    return str(found)


def rows(title: str) -> list[list[str]]:
    """The cells of the table in a section, without its head."""
    lines = [line for line in section(title).split("\n") if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def code(cell: str) -> list[str]:
    """What a cell names in the face of code."""
    return re.findall(r"`([^`]+)`", cell)


def fields(cell: str) -> dict[str, list[str]]:
    """The fields that a cell names, each with what is in code in the brackets behind it."""
    return {name: code(inner) for name, inner in re.findall(r"`([^`]+)`(?: \(([^)]*)\))?", cell)}
