"""Which tests pytest-xdist keeps in one process: those of one editor, so that each is started once.

By the tests' names, for pytest-xdist's own marker has no effect on pytest 9.2, whose items compute their names anew.
"""

from __future__ import annotations

import re

EDITORS = re.compile(r"(?:.*/)?tests/editors/(?P<file>\w+)\.py::\w+(?:\[(?P<first>[^\]-]+))?")


def group_of(test: str) -> str:
    """The group of a test by its node id; one that shares nothing is a group of its own."""
    found = EDITORS.match(test)
    if found is None:
        return test
    if found["file"] == "test_scenarios" and found["first"]:
        return found["first"]
    return "VS Code" if found["file"].startswith("test_vscode") else found["file"]
