"""The scenarios and the editors in which each is run, as a Markdown table. Run as a program it prints it."""

from __future__ import annotations

import ast
from pathlib import Path

from registry import EDITORS


def scenarios() -> list[str]:
    """The names of all scenarios, in their order."""
    tree = ast.parse(Path(__file__).with_name("test_scenarios.py").read_text(encoding="utf-8"))
    functions = [node.name for node in tree.body if isinstance(node, ast.FunctionDef)]
    return [name.removeprefix("test_") for name in functions if name.startswith("test_")]


def table() -> str:
    """One row for each scenario, one column for each editor, and the reason for each that is impossible."""
    reasons = list(dict.fromkeys(reason for known in EDITORS.values() for reason in known.cannot.values()))
    head = [f"| | {' | '.join(EDITORS)} |", f"|---|{'---|' * len(EDITORS)}"]
    body = []
    for name in scenarios():
        cells = (_cell(known.cannot.get(name), reasons) for known in EDITORS.values())
        body.append(f"| {name.replace('_', ' ')} | {' | '.join(cells)} |")
    notes = [f"{number}. Impossible: {reason}." for number, reason in enumerate(reasons, 1)]
    return "\n".join([*head, *body, "", *notes]).rstrip()


def _cell(reason: str | None, reasons: list[str]) -> str:
    return "yes" if reason is None else f"no ({reasons.index(reason) + 1})"


if __name__ == "__main__":
    print(table())  # noqa: T201  (its purpose)
