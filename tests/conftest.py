"""Fixtures of the whole suite live in `tests/support`, one module for each thing a test may need."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest
import uvloop

pytest_plugins = ["tests.support.accounts", "tests.support.broker", "tests.support.pool"]


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Tests run on the loop that the services run on: its transports are not asyncio's."""
    return {"uvloop": uvloop.new_event_loop}


MACHINE = (
    *("clients", "conformance", "e2e", "ha", "network", "pool", "vm"),
    *("storage/conformance", "storage/smapiv1", "storage/test_ext.py", "storage/test_mounted.py"),
    *("storage/test_udev.py", "storage/test_memory.py"),
)
"""Folders and files whose tests look at what the whole machine has (mounts, links, processes), or need much of it: they
run one after the other, whatever else runs at the same time.
"""


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """For runs on several processes: the machine's tests are one group, and begin first; else each file is one."""
    if not config.pluginmanager.hasplugin("xdist"):
        return
    tests = Path(__file__).parent

    def group(item: pytest.Item) -> str:
        place = item.path.relative_to(tests)
        return "machine" if any(place.is_relative_to(one) for one in MACHINE) else str(place)

    for item in items:
        item.add_marker(pytest.mark.xdist_group(group(item)))
    items.sort(key=lambda item: group(item) != "machine")


SECOND_TRIES = 5
"""Tests of one run that may pass at the second try only, where CI asks for one (`--reruns 1`): a machine that stalls
for a moment hits one or two of thousands. They are listed; each is a fault to look into, more of them fail the run.
"""


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if reporter is None or session.exitstatus != pytest.ExitCode.OK:
        return
    tries = len(reporter.stats.get("rerun", []))
    if tries > SECOND_TRIES:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
        reporter.write_line(f"\n{tries} tests needed a second try, {SECOND_TRIES} may")
