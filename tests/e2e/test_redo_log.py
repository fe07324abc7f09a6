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

from pool import processes, programs
from tests.e2e import client
from tests.e2e.test_change_of_coordinator import AWAY, coordinator, designate, eventually, login, pool
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
        api.pool.enable_redo_log(sr)
        [row] = api.pool.get_all_records().values()
        assert row["redo_log_enabled"]
        assert api.VDI.get_type(row["redo_log_vdi"]) == "redo_log"
    [found] = place.glob(".raw-*")
    yield found
    with client.logged_in(pool) as session:
        api = session.xenapi
        api.pool.disable_redo_log()
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


def dump(disk: Path) -> str:
    """What is on the disk, also while it is used."""
    command = [sys.executable, "-m", "services.db.redo.block", "dump", str(disk)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=True).stdout


def exported(disk: Path, to: Path) -> str:
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


def test_no_acknowledged_write_is_lost_whatever_is_killed_and_whichever_log_is_left(
    pool: PoolUnderTest,
    disk: Path,
    tmp_path: Path,
) -> None:
    writer = Writer(pool.url, pool.password, "redo-one")
    writer.start()
    eventually("something is written", lambda: len(writer.acknowledged) > 20 or None)
    kill_everything(pool)
    writer.join()
    pool.wait_ready()
    first = set(writer.acknowledged)
    with client.logged_in(pool) as session:
        assert names(session.xenapi) >= first
    text = exported(disk, tmp_path / "first.xml")
    assert all(name in text for name in first)

    writer = Writer(pool.url, pool.password, "redo-two")
    writer.start()
    eventually("something is written", lambda: len(writer.acknowledged) > 20 or None)
    state = pool.directory / "host1" / "db"
    lost = [path for path in (state / "redo", *state.glob("state.db*")) if path.exists()]
    for path in lost:
        path.rename(tmp_path / path.name)
    kill_everything(pool)
    writer.join()
    pool.wait_ready()
    with client.logged_in(pool) as session:
        assert names(session.xenapi) >= first | set(writer.acknowledged)
    assert f"the redo log {disk} goes up to generation" in pool.log("db"), "it was read"

    eventually("the disk is used again", lambda: "delta" in _after_write(pool, disk) or None)


def _after_write(pool: PoolUnderTest, disk: Path) -> str:
    with client.logged_in(pool) as session:
        [row] = session.xenapi.pool.get_all()
        session.xenapi.pool.remove_from_other_config(row, "redo")
        session.xenapi.pool.add_to_other_config(row, "redo", "again")
    return dump(disk)


def test_the_disk_goes_with_the_coordinator(pool: PoolUnderTest, disk: Path, tmp_path: Path) -> None:
    session = login(pool, "host1")
    second = designate(pool, session.xenapi, "host2")
    mark = {"bridge": "", "name_description": "", "MTU": "1500", "other_config": {}, "managed": True, "tags": []}
    second.xenapi.network.create({**mark, "name_label": "redo-by-host2"})

    def there(name: str) -> bool | None:
        text = exported(disk, tmp_path / "export.xml")
        (tmp_path / "export.xml").unlink()
        return name in text or None

    eventually("host2 writes there", lambda: there("redo-by-host2"))

    done = pool.command("host-down", "host2")
    assert done.returncode == 0, done.stderr
    host1 = xmlrpc.client.ServerProxy(pool.host_url("host1"))
    local: Any = host1.session.slave_local_login_with_password("root", pool.password)
    answer: Any = host1.pool.emergency_transition_to_master(local["Value"])
    assert answer["Status"] == "Success", answer
    third = coordinator(pool, "host1")
    assert "redo-by-host2" in names(third.xenapi)
    third.xenapi.network.create({**mark, "name_label": "redo-by-host1"})
    eventually("host1 writes there", lambda: there("redo-by-host1"))
    done = pool.command("host-up", "host2")
    assert done.returncode == 0, done.stderr
    pool.wait_ready()
