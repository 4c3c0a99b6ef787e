"""The worker's promises: round robin, supersession, cancellation before the next unit, failures that end one job."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from dg_engine import worker as module
from dg_engine.api import Draft, Failure, Infill
from dg_engine.worker import SUPERSEDED, Item, Worker

DONE = Infill(
    text="done",
    tokens=1,
    steps=1,
    milliseconds=0.0,
    score=None,
    stop_reason="converged",
    prefix_tokens=1,
    cached_tokens=0,
)


class Recorder:
    """Collects what a job delivers and tells when it has ended."""

    def __init__(self) -> None:
        self.items: list[Item | Failure] = []
        self.ended = threading.Event()

    def __call__(self, item: Item | Failure) -> None:
        self.items.append(item)
        if not isinstance(item, Draft):
            self.ended.set()


@pytest.fixture
def worker() -> Iterator[Worker]:
    worker = Worker()
    yield worker
    worker.close()


def units(name: str, count: int, log: list[str]) -> Iterator[Item]:
    for step in range(count):
        log.append(name)
        yield Draft(step=step, pieces=(), milliseconds=0.0)
    yield DONE


def test_requests_of_different_documents_take_turns_unit_by_unit(worker: Worker) -> None:
    log: list[str] = []
    first, second = Recorder(), Recorder()
    worker.submit(units("a", 3, log), "a", first)
    worker.submit(units("b", 3, log), "b", second)
    worker.start()
    assert first.ended.wait(60)
    assert second.ended.wait(60)
    assert log == ["a", "b", "a", "b", "a", "b"]
    assert first.items[-1] == second.items[-1] == DONE


def test_a_newer_request_of_a_document_replaces_the_older_exactly_once(worker: Worker) -> None:
    log: list[str] = []
    older, newer, other = Recorder(), Recorder(), Recorder()
    worker.submit(units("old", 100, log), "a", older)
    worker.submit(units("other", 2, log), "b", other)
    worker.submit(units("new", 2, log), "a", newer)
    worker.start()
    assert newer.ended.wait(60)
    assert other.ended.wait(60)
    assert older.items == [SUPERSEDED]
    assert log.count("old") == 0
    assert newer.items[-1] == other.items[-1] == DONE


def test_a_running_request_is_replaced_within_one_unit(worker: Worker) -> None:
    reached, go_on = threading.Event(), threading.Event()
    worked: list[int] = []

    def slow() -> Iterator[Item]:
        for step in range(50):
            worked.append(step)
            reached.set()
            assert go_on.wait(60)
            yield Draft(step=step, pieces=(), milliseconds=0.0)
        yield DONE

    older, newer = Recorder(), Recorder()
    worker.start()
    worker.submit(slow(), "a", older)
    assert reached.wait(60)
    worker.submit(units("new", 1, []), "a", newer)
    go_on.set()
    assert newer.ended.wait(60)
    assert older.items == [SUPERSEDED]
    assert worked == [0]


def test_the_end_does_not_wait_for_a_unit_that_lasts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FAREWELL_S", 0.01)
    reached, go_on, worker = threading.Event(), threading.Event(), Worker()

    def loading() -> Iterator[Item]:
        reached.set()
        assert go_on.wait(60)
        yield DONE

    worker.start()
    worker.submit(loading(), "", Recorder())
    assert reached.wait(60)
    worker.close()
    assert not go_on.is_set()
    go_on.set()


def test_a_cancelled_request_is_dropped_before_its_next_unit(worker: Worker) -> None:
    reached, go_on, closed = threading.Event(), threading.Event(), threading.Event()

    def slow() -> Iterator[Item]:
        try:
            reached.set()
            assert go_on.wait(60)
            yield Draft(step=1, pieces=(), milliseconds=0.0)
            raise AssertionError("worked on after cancellation")
        finally:
            closed.set()

    cancelled, next_one = Recorder(), Recorder()
    worker.start()
    job = worker.submit(slow(), "", cancelled)
    assert reached.wait(60)
    worker.cancel(job)
    worker.submit(units("next", 1, []), "", next_one)
    go_on.set()
    assert next_one.ended.wait(60)
    assert cancelled.items == []
    assert worker.active == 0
    del job
    assert closed.wait(60)


def test_a_failing_request_is_answered_and_the_next_one_works(worker: Worker) -> None:
    def broken() -> Iterator[Item]:
        yield Draft(step=1, pieces=(), milliseconds=0.0)
        raise RuntimeError("out of tensors")

    failed, fine = Recorder(), Recorder()
    worker.start()
    worker.submit(broken(), "a", failed)
    worker.submit(units("b", 1, []), "b", fine)
    assert fine.ended.wait(60)
    assert failed.ended.wait(60)
    assert isinstance(failed.items[-1], Failure)
    assert "out of tensors" in failed.items[-1].message
    assert fine.items[-1] == DONE


def test_requests_without_a_document_never_replace_one_another(worker: Worker) -> None:
    first, second = Recorder(), Recorder()
    worker.submit(units("a", 1, []), "", first)
    worker.submit(units("b", 1, []), "", second)
    worker.start()
    assert first.ended.wait(60)
    assert second.ended.wait(60)
    assert first.items[-1] == second.items[-1] == DONE
