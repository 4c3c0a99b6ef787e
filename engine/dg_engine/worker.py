"""One thread that does all the model's work, a unit of each document's request in turn.

A request is an iterator; each item is one unit of work (a chunk encoded, a step denoised). The thread takes the waiting
requests round robin, so a long one delays a short one by a unit, not by its length. A newer request of a document ends
the older one; a cancelled request is dropped before its next unit.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Iterator

from dg_engine.api import Draft, Failure, Infill, Score
from dg_engine.errors import RequestError

Item = Draft | Infill | Score
Deliver = Callable[[Item | Failure], None]

FAREWELL_S = 2.0
"""So long the end waits for the unit at hand, of which most take milliseconds."""

_log = logging.getLogger(__name__)

SUPERSEDED = Infill(
    text="",
    tokens=0,
    steps=0,
    milliseconds=0.0,
    score=None,
    stop_reason="superseded",
    prefix_tokens=0,
    cached_tokens=0,
)


class Job:
    """One request in the worker's hands."""

    def __init__(self, work: Iterator[Item], document: str, deliver: Deliver) -> None:
        self.work = work
        self.document = document
        self.deliver = deliver
        self.cancelled = False


class Worker:
    """The thread. `submit` and `cancel` may be called from any other."""

    def __init__(self) -> None:
        self._jobs: deque[Job] = deque()
        self._wake = threading.Condition()
        self._running: Job | None = None
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="engine-worker", daemon=True)

    def start(self) -> None:
        """Begin to take jobs."""
        self._thread.start()

    def submit(self, work: Iterator[Item], document: str, deliver: Deliver) -> Job:
        """Queue a request. `deliver` is called from the worker's thread, last with an `Infill`, `Score` or `Failure`.

        An unfinished request of the same document is ended with the stop reason `superseded`; an empty name is no
        document.
        """
        job = Job(work, document, deliver)
        with self._wake:
            older = self._unfinished(document) if document else []
            for old in older:
                old.cancelled = True
            self._jobs.append(job)
            self._wake.notify()
        for old in older:
            old.deliver(SUPERSEDED)
        return job

    def cancel(self, job: Job) -> None:
        """Stop working on a request before its next unit; nothing more is delivered."""
        job.cancelled = True

    @property
    def active(self) -> int:
        """Requests queued or running."""
        with self._wake:
            return len([job for job in (*self._jobs, self._running) if job is not None and not job.cancelled])

    def close(self) -> None:
        """Finish the unit at hand, then end the thread; one that takes longer, as where it loads, dies with us."""
        with self._wake:
            self._closed = True
            self._wake.notify()
        if self._thread.is_alive():
            self._thread.join(FAREWELL_S)

    def _unfinished(self, document: str) -> list[Job]:
        waiting = [*self._jobs] if self._running is None else [*self._jobs, self._running]
        return [job for job in waiting if job.document == document and not job.cancelled]

    def _run(self) -> None:
        while (job := self._next()) is not None:
            unfinished = not job.cancelled and self._advance(job)
            with self._wake:
                self._running = None
                if unfinished and not job.cancelled:
                    self._jobs.append(job)

    def _next(self) -> Job | None:
        with self._wake:
            self._wake.wait_for(lambda: self._jobs or self._closed)
            if self._closed:
                return None
            self._running = self._jobs.popleft()
            return self._running

    def _advance(self, job: Job) -> bool:
        """Do one unit; whether there is more."""
        try:
            item = next(job.work)
        except StopIteration:
            return False
        except (RequestError, ValueError) as error:
            return self._deliver(job, Failure(message=str(error)))
        except Exception as error:  # the border of a request: whatever breaks, the next request works
            _log.exception("a request failed")
            return self._deliver(job, Failure(message=f"the engine failed on this request: {error!r}"))
        self._deliver(job, item)
        return isinstance(item, Draft)

    def _deliver(self, job: Job, item: Item | Failure) -> bool:
        # Under the lock that `submit` takes to supersede: a job gets either its own end or SUPERSEDED, never both.
        with self._wake:
            if job.cancelled:
                return False
            if not isinstance(item, Draft):
                job.cancelled = True
        job.deliver(item)
        return False
