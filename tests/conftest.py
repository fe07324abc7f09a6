"""Fixtures of the whole suite live in `tests/support`, one module for each thing a test may need."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

pytest_plugins = ["tests.support.accounts", "tests.support.broker", "tests.support.pool", "tests.support.time_limit"]


settings.register_profile("busy machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("busy machine")
"""An example that takes long once is no fault: a machine may stall. All else stays as CI or the caller chose it."""

LONG = ("conformance", "e2e", "vm", "clients", "pool", "ha", "network", "storage", "cli", "db")
"""Folders whose files take long: runs on several processes, which give out whole files, begin with them, so that none
is left alone at the end.
"""


def pytest_configure() -> None:
    """Modules are compiled once, whatever the environment says: pools start some hundred processes, and each of them
    would compile its own, a third of what a start costs.
    """
    sys.dont_write_bytecode = False
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    tests = Path(__file__).parent

    def rank(item: pytest.Item) -> int:
        folder = item.path.relative_to(tests).parts[0]
        return LONG.index(folder) if folder in LONG else len(LONG)

    items.sort(key=rank)


SECOND_TRIES = 10
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


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Why what needed a second try failed at the first: the summary names it only."""
    for report in terminalreporter.getreports("rerun"):
        terminalreporter.section(f"first try of {report.nodeid}", sep="_")
        terminalreporter.write_line(report.longreprtext[-4000:])
