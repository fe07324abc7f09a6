"""Tests that take too long end, wherever they wait.

pytest-timeout raises in the main thread. uvloop drops what is raised there while it waits, so that what the loop was
asked to run is cancelled instead: a test, or the set-up or the end of one of its fixtures. Each of them is cancelled
that comes too late, and left where it is if that does not end it. What all tasks were waiting for is in the report.
"""

from __future__ import annotations

import asyncio
import io
import itertools
import os
import signal
from collections.abc import Callable, Generator
from types import FrameType
from typing import Any, Final

import pytest
import pytest_timeout
import uvloop

AGAIN: Final = float(os.environ.get("TESTS_CANCEL_AGAIN_AFTER", "20"))
"""Seconds between what is cancelled of one test."""
TO_END: Final = 3 * AGAIN
"""Seconds that fixtures have when their test has failed."""
_STOPPED: Final = pytest.StashKey[bool]()
_LATE: Final = pytest.StashKey[Callable[[int, FrameType | None], None]]()


class Loop(uvloop.Loop):
    """Knows what it runs until it is complete."""

    running: asyncio.Future[Any] | None = None

    def run_until_complete(self, future: Any) -> Any:
        self.running = asyncio.ensure_future(future, loop=self)
        try:
            return super().run_until_complete(self.running)
        finally:
            self.running = None


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Tests run on the loop that the services run on: its transports are not asyncio's."""
    return {"uvloop": Loop}


def pytest_timeout_set_timer(item: pytest.Item, settings: Any) -> bool | None:
    if settings.method != "signal":
        return None

    alarms = itertools.count()

    def late(_: int, frame: FrameType | None) -> None:
        loop = asyncio._get_running_loop()
        number = next(alarms)
        if not isinstance(loop, Loop) or (number and asyncio.current_task(loop) is not None):
            pytest_timeout.timeout_sigalrm(item, settings)  # something that the loop waits for
            return
        item.add_report_section("call", "tasks", stacks(loop))
        if number > 1:
            loop.stop()  # it does not want to be cancelled
            item.stash[_STOPPED] = True
        elif loop.running is not None:
            loop.running.cancel(f"more than {settings.timeout:g} seconds")

    def cancel() -> None:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, signal.SIG_DFL)

    item.cancel_timeout = cancel  # type: ignore[attr-defined]
    signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, settings.timeout, AGAIN)
    item.stash[_LATE] = late
    return True


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_teardown(item: pytest.Item) -> Generator[None]:
    """pytest-timeout lets go of a test that has failed, whose fixtures have yet to end. pytest-asyncio only warns of a
    loop that does not end.
    """
    late = item.stash.get(_LATE, None)
    if late is not None and signal.getsignal(signal.SIGALRM) is not late:
        signal.signal(signal.SIGALRM, late)
        signal.setitimer(signal.ITIMER_REAL, TO_END, AGAIN)
    yield
    if item.stash.get(_STOPPED, False):
        pytest.fail("a task that was cancelled went on")


def stacks(loop: asyncio.AbstractEventLoop) -> str:
    text = io.StringIO()
    for task in asyncio.all_tasks(loop):
        task.print_stack(file=text)
    return text.getvalue()


_running: dict[str, None] = {}
"""Tests that have begun and not ended, in this process or its workers."""


def pytest_runtest_logstart(nodeid: str) -> None:
    _running[nodeid] = None


def pytest_runtest_logfinish(nodeid: str) -> None:
    _running.pop(nodeid, None)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Of a run that is interrupted: where it was."""
    for nodeid in _running:
        terminalreporter.write_line(f"STILL RUNNING {nodeid}")
