"""Bytes in, bodies out: the base protocol's headers, over standard streams or one TCP connection.

What pygls does otherwise and why it matters is in the comments. Knows nothing of JSON.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import sys
import threading
from collections.abc import AsyncIterator
from typing import BinaryIO, NamedTuple

CHUNK_BYTES = 1 << 16
MAX_BODY_BYTES = 256 * 1024 * 1024
"""A longer body is read past and reported as `TOO_LONG`: a wrong header must not fill the memory."""
MAX_HEADER_BYTES = 1 << 16

_LENGTH = re.compile(rb"\s*content-length\s*:\s*(\d{1,18})\s*", re.IGNORECASE)


class Body(NamedTuple):
    """One message's content; `too_long` when it was read past because of its length."""

    content: bytes
    too_long: bool


async def bodies(reader: asyncio.StreamReader) -> AsyncIterator[Body]:
    """Yield the content of each message until the stream ends.

    Header names count in any case, other headers are read past, and so is anything that is no header at all.
    """
    while True:
        try:
            length = await _headers(reader)
            if length is None:
                return
            if length > MAX_BODY_BYTES:
                await _read_past(reader, length)
                yield Body(b"", too_long=True)
            else:
                yield Body(await reader.readexactly(length), too_long=False)
        except asyncio.IncompleteReadError:
            return


async def _headers(reader: asyncio.StreamReader) -> int | None:
    """The content length of the next message; None at the end of the stream."""
    length: int | None = None
    while True:
        try:
            line = await reader.readline()
        except ValueError:
            continue  # A line over the stream's limit; `readline` has thrown it away.
        if not line:
            return None
        if match := _LENGTH.fullmatch(line):
            length = int(match[1])
        elif not line.strip() and length is not None:
            return length


async def _read_past(reader: asyncio.StreamReader, length: int) -> None:
    while length:
        length -= len(await reader.readexactly(min(length, CHUNK_BYTES)))


def read_descriptor(descriptor: int, loop: asyncio.AbstractEventLoop) -> asyncio.StreamReader:
    """A stream fed from a file descriptor of any kind (pipe, file, terminal) by a thread of its own.

    Not the loop's thread pool, which other work could fill: then `shutdown` would wait behind it. The thread reads the
    bare descriptor, because a daemon thread inside `sys.stdin.buffer` aborts the interpreter at exit.
    """
    reader = asyncio.StreamReader(limit=MAX_HEADER_BYTES, loop=loop)

    def pump() -> None:
        # The loop is closed when the server ends before its input does.
        with contextlib.suppress(RuntimeError):
            while chunk := _read(descriptor):
                loop.call_soon_threadsafe(reader.feed_data, chunk)
            loop.call_soon_threadsafe(reader.feed_eof)

    threading.Thread(target=pump, name="stdin", daemon=True).start()
    return reader


def _read(descriptor: int) -> bytes:
    try:
        return os.read(descriptor, CHUNK_BYTES)
    except OSError:
        return b""


def claim_stdout() -> BinaryIO:
    """Take standard output for the protocol; whatever else prints there lands on standard error from now on."""
    sys.stdout.flush()
    own = os.dup(1)
    os.dup2(2, 1)
    return os.fdopen(own, "wb", buffering=0)


class DescriptorWriter:
    """Writes whole messages to an unbuffered binary stream."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream

    def write(self, data: bytes) -> None:
        """Write all of `data`.

        Raises:
            OSError: the other side has closed.
        """
        view = memoryview(data)
        while view:
            view = view[self._stream.write(view) :]

    def close(self) -> None:
        """Close the stream; a reader that has gone already is no error."""
        with contextlib.suppress(OSError):
            self._stream.close()
