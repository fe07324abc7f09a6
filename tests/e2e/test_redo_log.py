"""The redo log on a disk of an SR in a pool of processes: all of them killed, the coordinator's own log lost, and the
coordinator itself.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import xmlrpc.client
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import XenAPI

from pool import processes, programs, roles
from tests.e2e import client
from tests.e2e.test_change_of_coordinator import AWAY, coordinator, eventually, pool
from tests.e2e.test_xe import xe
from tests.support.pool import ROOT, PoolUnderTest

__all__ = ["pool"]

pytestmark = [pytest.mark.pool, pytest.mark.timeout(300)]


class Writer(threading.Thread):
    """Makes networks, one after the other, until it is told to stop. `acknowledged`: their names."""

    def __init__(self, url: str, password: str, name: str) -> None:
        super().__init__(daemon=True)
        self.acknowledged: list[str] = []
        self._url, self._password, self._name = url, password, name
        self._ending = threading.Event()

    def run(self) -> None:
        session = XenAPI.Session(self._url)
        session.login_with_password("root", self._password, "1.0", "tests")
        record = {"name_description": "", "MTU": "1500", "other_config": {}, "bridge": "", "managed": True, "tags": []}
        while not self._ending.is_set():
            name = f"{self._name}-{len(self.acknowledged)}"
            try:
                session.xenapi.network.create({**record, "name_label": name})
            except AWAY:
                return
            self.acknowledged.append(name)

    def end(self) -> None:
        self._ending.set()
        self.join()


@pytest.fixture
def disk(pool: PoolUnderTest, tmp_path: Path) -> Iterator[Path]:
    """The file that a shared SR has for the redo log, which is enabled."""
    place = tmp_path / "sr"
    place.mkdir()
    with client.logged_in(pool) as session:
        api = session.xenapi
        config = {"location": str(place)}
        hosts = list(api.host.get_all())
        sr = api.SR.create(hosts[0], config, "0", "redo log", "", "file", "user", True, {})
        done = xe(pool, "pool-enable-redo-log", f"sr-uuid={api.SR.get_uuid(sr)}")
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
        [row] = api.pool.get_all_records().values()
        assert row["redo_log_enabled"]
        assert api.VDI.get_type(row["redo_log_vdi"]) == "redo_log"
    [found] = place.glob(".raw-*")
    yield found
    with client.logged_in(pool) as session:
        api = session.xenapi
        done = xe(pool, "pool-disable-redo-log", host=roles.coordinator(pool.directory, pool.plan).name)
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
        [row] = api.pool.get_all_records().values()
        assert not row["redo_log_enabled"]
        for network, named in api.network.get_all_records().items():
            if named["name_label"].startswith("redo-"):
                api.network.destroy(network)
        api.VDI.destroy(row["redo_log_vdi"])
        for pbd in api.SR.get_PBDs(sr):
            api.PBD.unplug(pbd)
        api.SR.destroy(sr)
    assert list(place.glob(".raw-*")) == []


def exported(disk: Path, to: Path) -> str:
    """The database on the disk, with all that follows it; also while it is used."""
    command = [sys.executable, "-m", "services.db.redo.block", "export", str(disk), str(to)]
    subprocess.run(command, cwd=ROOT, capture_output=True, timeout=60, check=True)
    return to.read_text()


def kill_everything(pool: PoolUnderTest) -> None:
    """Every process of every host, at once; the supervisor and the broker go on."""
    for program in programs.load(pool.directory):
        if "/" not in program.name:
            continue
        process = processes.find(program.pid_file(pool.directory), program.argv)
        if process is not None:
            with process:
                os.kill(process.pid, signal.SIGKILL)


def names(api: Any) -> set[str]:
    return {row["name_label"] for row in api.network.get_all_records().values()}


def test_no_acknowledged_write_is_lost_when_all_processes_are_killed_and_the_coordinators_own_log_is_gone(
    pool: PoolUnderTest,
    disk: Path,
    tmp_path: Path,
) -> None:
    writer = Writer(pool.url, pool.password, "redo-one")
    writer.start()
    eventually("something is written", lambda: len(writer.acknowledged) > 20 or None)
    state = pool.directory / "host1" / "db"
    lost = [path for path in (state / "redo", *state.glob("state.db*")) if path.exists()]
    for path in lost:
        path.rename(tmp_path / path.name)
    kill_everything(pool)
    writer.join()
    text = exported(disk, tmp_path / "at-the-kill.xml")
    assert all(name in text for name in writer.acknowledged)
    pool.wait_ready()
    with client.logged_in(pool) as session:
        assert names(session.xenapi) >= set(writer.acknowledged)
    assert f"the redo log {disk} goes up to generation" in pool.log("db"), "it was read"


def test_the_disk_goes_with_the_coordinator(pool: PoolUnderTest, disk: Path, tmp_path: Path) -> None:
    mark = {"bridge": "", "name_description": "", "MTU": "1500", "other_config": {}, "managed": True, "tags": []}
    with client.logged_in(pool) as session:
        session.xenapi.network.create({**mark, "name_label": "redo-by-host1"})
    done = pool.command("host-down", "host1")
    assert done.returncode == 0, done.stderr
    host2 = xmlrpc.client.ServerProxy(pool.host_url("host2"))
    local: Any = host2.session.slave_local_login_with_password("root", pool.password)
    answer: Any = host2.pool.emergency_transition_to_master(local["Value"])
    assert answer["Status"] == "Success", answer
    new = coordinator(pool, "host2")
    assert "redo-by-host1" in names(new.xenapi)
    new.xenapi.network.create({**mark, "name_label": "redo-by-host2"})

    def there() -> bool | None:
        text = exported(disk, tmp_path / "export.xml")
        (tmp_path / "export.xml").unlink()
        return "redo-by-host2" in text or None

    eventually("host2 writes there", there)
    done = pool.command("host-up", "host1")
    assert done.returncode == 0, done.stderr
    pool.wait_ready()
