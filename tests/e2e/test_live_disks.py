"""Disks of a guest that runs: its writes, compared with what comes out of the pool by other ways."""

from __future__ import annotations

import asyncio
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import XenAPI

from pool import programs
from shared import config
from shared.bus import amqp
from shared.contracts.storage import DATAPATHS, Datapath
from shared.bus.contract import Empty
from tests.e2e import client
from tests.e2e.guest_disk import GuestDisk, Shell, Writer, opened_below
from tests.e2e.test_faults_qemu import Machine
from tests.pool.conditions import eventually
from tests.support.pool import PoolUnderTest

pytestmark = [pytest.mark.pool, pytest.mark.qemu, pytest.mark.timeout(400)]

MIB = 1 << 20
SIZE = 16 * MIB
MERGED = 60.0
"""Seconds in which images that are needless apart are merged: the pool begins 5 s after a change."""


class Rig:
    """A guest with a disk, on a member, and a shell in it."""

    def __init__(self, machine: Machine, shell: Shell) -> None:
        self.machine, self.shell = machine, shell
        self.pool, self.api, self.vm = machine.pool, machine.api, machine.ref
        self.host = "host2"
        assert self.pool.plan.sr is not None
        self.folder = Path(self.pool.plan.sr.location)
        self.sr = self.api.VDI.get_SR(machine.vdi)
        self.disk = GuestDisk(shell, "/dev/vda", 64 * MIB)

    def content(self, vdi: str, **query: str) -> bytes:
        words = {"session_id": self.machine.session._session, "vdi": vdi, "format": "raw", **query}
        address = f"{self.pool.url}/export_raw_vdi?" + "&".join(f"{key}={value}" for key, value in words.items())
        with urllib.request.urlopen(address, timeout=60) as response:
            found: bytes = response.read()
        return found

    def put(self, vdi: str, body: bytes, **query: str) -> None:
        words = {"session_id": self.machine.session._session, "vdi": vdi, **query}
        address = f"{self.pool.url}/import_raw_vdi?" + "&".join(f"{key}={value}" for key, value in words.items())
        with urllib.request.urlopen(urllib.request.Request(address, body, method="PUT"), timeout=60) as response:
            response.read()

    def holds(self, vdi: str, wanted: bytes) -> None:
        found = self.content(vdi)
        assert len(found) == len(wanted)
        wrong = [at for at in range(0, len(wanted), 512) if found[at : at + 512] != wanted[at : at + 512]]
        assert not wrong, f"{len(wrong)} sectors differ, from {wrong[0]}: {found[wrong[0] : wrong[0] + 16]!r}"

    @property
    def images(self) -> set[str]:
        """What QEMU has open."""
        return opened_below(self.machine.process, self.folder)

    def datapaths(self, host: str) -> list[Datapath]:
        return datapaths(self.pool, host)

    def new_disk(self, size: int, device: str, **more: Any) -> tuple[str, str]:
        """(VDI, VBD), not plugged."""
        vdi = self.api.VDI.create(
            {
                "name_label": "second",
                "SR": self.sr,
                "virtual_size": str(size),
                "type": "user",
                "sharable": False,
                "read_only": False,
                "other_config": {},
            }
        )
        return vdi, self.new_vbd(vdi, device, **more)

    def new_vbd(self, vdi: str, device: str, **more: Any) -> str:
        vbd: str = self.api.VBD.create(
            {
                "VM": self.vm,
                "VDI": vdi,
                "userdevice": device,
                "bootable": False,
                "mode": "RW",
                "type": "Disk",
                "empty": False,
                "other_config": {},
                "qos_algorithm_type": "",
                "qos_algorithm_params": {},
                **more,
            }
        )
        return vbd


def datapaths(pool: PoolUnderTest, host: str) -> list[Datapath]:
    """Everything that a host has open."""
    url = config.load(programs.config_file(pool.directory, host, "storage")).bus.url
    uuid = next(row.uuid for row in pool.plan.hosts if row.name == host)

    async def ask() -> list[Datapath]:
        bus = await amqp.connect(url, name="tests")
        try:
            return (await bus.call(DATAPATHS, Empty(), host=uuid)).datapaths
        finally:
            await bus.close()

    return asyncio.run(ask())


def left(pool: PoolUnderTest) -> list[str]:
    """Leases of the default SR, and datapaths of all hosts."""
    assert pool.plan.sr is not None
    leases = Path(pool.plan.sr.location) / ".leases"
    files = [path.name for path in leases.iterdir() if ".writer" in path.name or ".reader" in path.name]
    return files + [found.dp for host in pool.hosts for found in datapaths(pool, host)]


@pytest.fixture(scope="module")
def rig(qemu_pool: PoolUnderTest) -> Iterator[Rig]:
    qemu_pool.wait_ready()
    with client.logged_in(qemu_pool) as session:
        machine = Machine(qemu_pool, session, "live disks")
        before = set(machine.api.VDI.get_all())
        machine.start()
        with machine.console() as console:
            yield Rig(machine, Shell(console))
        client.remove(machine.api, machine.ref, *(set(machine.api.VDI.get_all()) - before), machine.vdi)
    assert left(qemu_pool) == []


def test_a_snapshot_of_a_running_disk_has_what_was_written_before_it(rig: Rig) -> None:
    api, vdi = rig.api, rig.machine.vdi
    rig.disk.write("A", 0, 8)
    rig.disk.write("B", 500, 4)
    before = bytes(rig.disk.content)
    begin = time.monotonic()
    first = api.VDI.snapshot(vdi, {})
    print("snapshot", time.monotonic() - begin)
    rig.disk.write("C", 4, 8)
    rig.disk.write("D", 1000, 2)
    after = bytes(rig.disk.content)
    second = api.VDI.snapshot(vdi, {})
    rig.disk.write("E", 0, 2)

    assert api.VDI.get_snapshot_of(first) == vdi
    rig.holds(first, before)
    rig.holds(second, after)

    delta = rig.content(second, format="vhd", base=api.VDI.get_uuid(first))
    assert len(delta) < 4 * MIB + 64 * 1024
    restored = api.VDI.clone(first, {})
    rig.holds(restored, before)
    rig.put(restored, delta, format="vhd")
    rig.holds(restored, after)
    rig.holds(first, before)
    for disk in (first, second, restored):
        api.VDI.destroy(disk)
