"""Ctrl-C and a polite kill end long work behind its present step, so that nothing of it is lost."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

_NOTE = b"\nstopping behind this step; once more to stop at once\n"
_STANDARD_ERROR = 2


@contextmanager
def asked_to_stop() -> Iterator[Callable[[], int]]:
    """The number of the signal that asked this process to end, SIGINT or SIGTERM; 0 while none did.

    Whoever asks twice is heard at once, as without this; a signal that was ignored before stays so.
    """
    found = 0
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    heard = {number: handler for number, handler in before.items() if handler != signal.SIG_IGN}

    def hear(number: int, _: FrameType | None) -> None:
        nonlocal found
        found = number
        restore()
        # Past Python's own buffers, which may be in the middle of a line.
        os.write(_STANDARD_ERROR, _NOTE)

    def restore() -> None:
        for number, handler in heard.items():
            signal.signal(number, handler)

    for number in heard:
        signal.signal(number, hear)
    try:
        yield lambda: found
    finally:
        restore()
