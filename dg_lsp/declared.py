"""What the lines of a block say that none of them says twice: the names it declares, imports, branches, attributes.

A small model that is asked for a new definition likes to give the one that stands above. Of 93 wrong offers at places
in 14 packages 19 were such, and of 168 right ones none. In C, C#, CSS, Java, JSON, PHP and TypeScript 26 of 262
wrong ones were, and of 795 right ones none.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from dg_lsp.brackets import CLOSER_OF
from dg_lsp.indentation import width
from dg_lsp.lines import Lines, content
from dg_lsp.planning import Plan

_REACH = 400
"""So many lines are looked at in each direction, and so many characters of the one with the answer."""

_ONCE = re.compile(r"(?:(?:#\s*include|from|import|require|use|using)\b.*\w|(?:self|this)\.\w+ = .)")
_BRANCH = re.compile(r"\}?\s*(?:case|catch|elif|else\s+if|elsif|except|when)\b.*\w")
# `@overload`, `@name.setter` and the like, `#[cfg(unix)]`: what follows has a namesake.
_NAMESAKE = re.compile(r"@.*(?:overload|\.)|#\[cfg")


def is_declared(plan: Plan, line: str) -> bool:
    """Whether `line`, the cursor's with an answer in it, says again what another line of its block says already."""
    declaration = _begins(plan.language.declaration, line) or _begins(plan.language.overload, line)
    if declaration is not None:
        is_given = declaration.end() <= len(plan.line_prefix)
        return not is_given and not _NAMESAKE.match(plan.line_before.strip()) and _has(plan, line, declaration[1])
    if not plan.language.module:
        return False  # what the words mean is not known: `from` begins a line of SQL, and of prose
    if _BRANCH.match(line.strip()):
        return any(_same(line, one) for step in (-1, 1) for one in _branches(plan, line, step))
    return _ONCE.match(line.strip()) is not None and any(_same(line, one) for one in _block(plan, line))


def _begins(pattern: str, line: str) -> re.Match[str] | None:
    return re.match(rf"\s*({pattern})", line[:_REACH]) if pattern else None


def _has(plan: Plan, line: str, declaration: str) -> bool:
    """Whether the block of `line` holds such a declaration; of an overload without its first parameter, one of none."""
    is_bare = _begins(plan.language.declaration, line) is None and re.search(r"\(\s*\w|\)", declaration) is None
    start = re.escape(declaration.rstrip("(")) + (r"\(\)" if is_bare else r"(?!\w)")
    prototype = plan.language.prototype
    found = (one for one in _block(plan, line) if re.match(start, one))
    return any(not prototype or re.search(prototype, one) is None for one in found)


def _same(line: str, other: str) -> bool:
    return line.strip().rstrip(":;{ ") == other.rstrip(":;{ ")


def _branches(plan: Plan, line: str, step: int) -> Iterator[str]:
    """The branches beside that of `line`, in one direction."""
    for one in _siblings(plan.snapshot.lines, plan.point.row, width(line), step):
        if not _BRANCH.match(one):
            return
        yield one


def _block(plan: Plan, line: str) -> Iterator[str]:
    for step in (-1, 1):
        yield from _siblings(plan.snapshot.lines, plan.point.row, width(line), step)


def _siblings(lines: Lines, row: int, depth: int, step: int) -> Iterator[str]:
    """The lines of a block that lie `depth` columns deep, as it does, from `row` on in one direction, unindented."""
    for at in range(row + step, row + step * _REACH, step):
        if not 0 <= at < len(lines):
            return
        line = content(lines[at])
        if not line.strip():
            continue
        if width(line) < depth and not _only_closes(line.strip()):
            return
        if width(line) == depth:
            yield line.strip()


def _only_closes(line: str) -> bool:
    """Whether a line ends what was opened, and does not begin anew as `} else {` does."""
    return line[0] in CLOSER_OF.values() and line[-1] not in CLOSER_OF
