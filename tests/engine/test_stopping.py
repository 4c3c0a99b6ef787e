"""Long work ends behind its present step when it is asked to, and at once when it is asked twice."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from types import FrameType
from typing import NoReturn

import pytest

from dg_engine.training.stopping import asked_to_stop


class Stopped(Exception):
    """What a process does with a signal when nobody listens."""


def stop(number: int, _: FrameType | None) -> NoReturn:
    raise Stopped(number)


@pytest.fixture(params=[signal.SIGINT, signal.SIGTERM])
def number(request: pytest.FixtureRequest) -> Iterator[signal.Signals]:
    """A signal that is as this test found it again when it is over."""
    before = signal.getsignal(request.param)
    yield request.param
    signal.signal(request.param, before)


def test_the_first_signal_is_told_and_the_second_does_what_it_always_did(number: signal.Signals) -> None:
    signal.signal(number, stop)
    with asked_to_stop() as asked:
        assert asked() == 0
        signal.raise_signal(number)
        assert asked() == number
        with pytest.raises(Stopped):
            signal.raise_signal(number)


def test_behind_the_work_a_signal_does_what_it_always_did(number: signal.Signals) -> None:
    signal.signal(number, stop)
    with asked_to_stop():
        pass
    with pytest.raises(Stopped):
        signal.raise_signal(number)


def test_a_signal_that_was_ignored_stays_so(number: signal.Signals) -> None:
    signal.signal(number, signal.SIG_IGN)
    with asked_to_stop() as asked:
        signal.raise_signal(number)
        assert asked() == 0
