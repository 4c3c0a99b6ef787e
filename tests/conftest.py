"""One thread for every test, as for the engine (`dg_engine.cli.DEFAULT_THREADS`).

OpenMP's barriers wait for whichever thread was put aside: beside another program that wants a core, a test that takes
14 s on one thread took more than 300 s on two.
"""

from __future__ import annotations

import os
from typing import Any

import pytest
from groups import group_of
from xdist.remote import Producer  # type: ignore[import-untyped]
from xdist.scheduler import LoadScopeScheduling  # type: ignore[import-untyped]

# Before torch is imported, and for the processes that tests start.
os.environ.setdefault("OMP_NUM_THREADS", "1")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print what tests have measured, wherever they ran."""
    for report in terminalreporter.getreports("passed"):
        for name, value in report.user_properties:
            if name == "measured":
                terminalreporter.write_line(str(value))


class ByGroup(LoadScopeScheduling):  # type: ignore[misc]
    """Sends a group of tests to one process, the largest groups first."""

    def _split_scope(self, nodeid: str) -> str:
        return group_of(nodeid)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> Any:
    """Keep tests that share an editor in one process."""
    return ByGroup(config, log)
