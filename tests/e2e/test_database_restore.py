"""A pool that goes on with an older database: `xe pool-dump-database`, `xe pool-restore-database`."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.e2e.test_xe import xe
from tests.support.pool import PoolUnderTest

pytestmark = [pytest.mark.pool, pytest.mark.timeout(240)]


def done(pool: PoolUnderTest, *words: str) -> str:
    result = xe(pool, *words)
    assert result.returncode == 0, result.stderr
    return result.stdout.strip()


def until(holds: Callable[[], bool], what: str, timeout: float = 40.0) -> None:
    deadline = time.monotonic() + timeout
    while not holds():
        assert time.monotonic() < deadline, what
        time.sleep(0.2)


def test_a_pool_goes_on_with_the_database_that_was_dumped(new_pool: PoolUnderTest, tmp_path: Path) -> None:
    """The VM was started after the dump: the rows say it is halted, until its host is asked."""
    pool, file = new_pool, str(tmp_path / "state.db")
    pool.up()
    vm = done(pool, "vm-install", "template=Tiny guest", "new-name-label=survivor")
    assert done(pool, "pool-dump-database", f"file-name={file}") == ""
    assert (
        done(pool, "vm-list", f"database:filename={file}", f"uuid={vm}", "params=name-label", "--minimal") == "survivor"
    )
    done(pool, "vm-start", f"uuid={vm}")
    done(pool, "network-create", "name-label=later")
    done(pool, "pool-restore-database", f"file-name={file}", "--dry-run")
    assert done(pool, "network-list", "name-label=later", "--minimal")
    assert xe(pool, "pool-restore-database", f"file-name={file}").returncode == 1
    said = done(pool, "pool-restore-database", f"file-name={file}", "--force")
    assert "30 seconds" in said
    assert done(pool, "network-list", "name-label=later", "--minimal") == ""
    database, api = pool.kill("db"), pool.kill("api")  # which spares the test the 30 seconds
    pool.wait_restarted("db", other_than=database)
    pool.wait_restarted("api", other_than=api)
    pool.wait_ready()
    assert done(pool, "network-list", "name-label=later", "--minimal") == ""
    until(
        lambda: done(pool, "vm-param-get", f"uuid={vm}", "param-name=power-state") == "running",
        "the VM that runs is not known to run",
    )
    done(pool, "vm-shutdown", f"uuid={vm}", "--force")
    pool.down()
