"""Work that may never return, as I/O on storage that went away: it is waited for so long, and no longer."""

from __future__ import annotations

import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any, TypeVar

Result = TypeVar("Result")


class Hung(Exception):
    """It does not answer. What it was asked to do may still happen."""


class _Job:
    def __init__(self, work: Callable[[], Any]) -> None:
        self.work = work
        self.over = threading.Event()
        self.result: Any = None
        self.error: BaseException | None = None

    def run(self) -> None:
        try:
            self.result = self.work()
        except BaseException as error:  # it is whoever asked that hears of it
            self.error = error
        self.over.set()


class Patience:
    """One thread that does one thing at a time. While it is stuck, nothing else is begun."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._jobs: SimpleQueue[_Job | None] = SimpleQueue()
        self._thread: threading.Thread | None = None
        self._stuck: _Job | None = None

    @property
    def stuck(self) -> bool:
        return self._stuck is not None and not self._stuck.over.is_set()

    def call(self, work: Callable[[], Result]) -> Result:
        """Its result, or what it raises. Raises `Hung`."""
        if self.stuck:
            raise Hung("it still has not answered")
        self._stuck = None
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="redo-log-device", daemon=True)
            self._thread.start()
        job = _Job(work)
        self._jobs.put(job)
        if not job.over.wait(self.seconds):
            self._stuck = job
            raise Hung(f"no answer for {self.seconds:g} s")
        if job.error is not None:
            raise job.error
        result: Result = job.result
        return result

    def close(self, last: Callable[[], None]) -> None:
        """Does that and ends the thread. While it is stuck both wait until it can, and nobody waits for them."""
        if self._thread is None:
            last()
            return
        job = _Job(last)
        self._jobs.put(job)
        self._jobs.put(None)
        if not self.stuck:
            self._thread.join(self.seconds)
        self._thread = None
        if job.error is not None:
            raise job.error

    def _run(self) -> None:
        while (job := self._jobs.get()) is not None:
            job.run()
