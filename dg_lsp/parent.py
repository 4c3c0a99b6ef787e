"""Ends the server when the editor that started it is gone without a word."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable

log = logging.getLogger(__name__)

POLL_S = 0.5


async def watch_parent(pid: int, on_death: Callable[[], None]) -> None:
    """Call `on_death` once no process `pid` exists any more.

    A process that cannot be seen from the start (the client runs in another container or on another machine) is not
    watched: the end of the input has to do.
    """
    if not _exists(pid):
        log.info("The client's process %d cannot be seen from here and is not watched.", pid)
        return
    while _exists(pid):
        await asyncio.sleep(POLL_S)
    log.info("The client's process %d is gone.", pid)
    on_death()


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True
