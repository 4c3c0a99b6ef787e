"""What reaches the log: the server's own trouble, and nobody else's noise."""

from __future__ import annotations

import asyncio
import logging

import pytest

from dg_lsp.logs import on_loop_error


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("error", "is_told"), [(asyncio.InvalidStateError("invalid state"), False), (ValueError("ours"), True)]
)
async def test_a_wait_that_ended_twice_is_nothing_to_tell(
    caplog: pytest.LogCaptureFixture, error: Exception, *, is_told: bool
) -> None:
    def fail() -> None:
        raise error

    loop = asyncio.get_running_loop()
    loop.set_exception_handler(on_loop_error)
    loop.call_soon(fail)
    await asyncio.sleep(0)
    assert [record.levelno for record in caplog.records] == ([logging.ERROR] if is_told else [])
