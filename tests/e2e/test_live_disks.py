"""Disks of a guest that runs: its writes, compared with what comes out of the pool by other ways."""

from __future__ import annotations

import asyncio
import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import XenAPI

from pool import processes, programs
from shared import config
from shared.bus import amqp
from shared.bus.contract import Empty, Method, Reply, Request
from shared.contracts.storage import DATAPATHS, Datapath
from shared.contracts.vm_disks import DISK_CHAIN, Chain, DiskId
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

    def __init__(self, machine: Machine, consoles: ExitStack) -> None:
        self.machine, self._consoles = machine, consoles
        self.shell = Shell(consoles.enter_context(machine.console()))
        self.pool, self.api, self.vm = machine.pool, machine.api, machine.ref
        self.host = "host2"
        assert self.pool.plan.sr is not None
        self.folder = Path(self.pool.plan.sr.location)
        self.sr = self.api.VDI.get_SR(machine.vdi)
        self.disk = GuestDisk(self.shell, "/dev/vda", 64 * MIB)

    def reconnect(self) -> None:
        """After a restart of what passes the console on."""
        self._consoles.close()
        self.shell.go_on(self._consoles.enter_context(self.machine.console()))

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

    def process(self, vm: str) -> int:
        """Pid of its QEMU."""
        uuid = self.api.VM.get_uuid(vm)
        return next(pid for pid in processes.marked(self.pool.directory) if uuid in processes.command_line(pid))

    def chain(self, device: str) -> set[str]:
        """Names of the images that the guest's service knows to be open for a device."""
        return {Path(image).name for image in self.opened(device).images}

    def opened(self, device: str) -> Chain:
        disk = DiskId(dp=f"vbd/{self.api.VM.get_uuid(self.vm)}/{device}")
        return asked(self.pool, self.host, DISK_CHAIN, disk)

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


def asked(pool: PoolUnderTest, host: str, method: Method[Request, Reply], request: Request) -> Reply:
    """What a service of a host answers."""
    url = config.load(programs.config_file(pool.directory, host, "storage")).bus.url
    uuid = next(row.uuid for row in pool.plan.hosts if row.name == host)

    async def ask() -> Reply:
        bus = await amqp.connect(url, name="tests")
        try:
            return await bus.call(method, request, host=uuid)
        finally:
            await bus.close()

    return asyncio.run(ask())


def datapaths(pool: PoolUnderTest, host: str) -> list[Datapath]:
    """Everything that a host has open."""
    return asked(pool, host, DATAPATHS, Empty()).datapaths


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
        before = set(session.xenapi.VDI.get_all())
        machine = Machine(qemu_pool, session, "live disks")
        machine.start()
        with ExitStack() as consoles:
            yield Rig(machine, consoles)
        client.remove(machine.api, machine.ref, *(set(machine.api.VDI.get_all()) - before))
    assert left(qemu_pool) == []


def test_a_snapshot_of_a_running_disk_has_what_was_written_before_it(rig: Rig) -> None:
    api, vdi = rig.api, rig.machine.vdi
    rig.disk.write("A", 0, 8)
    rig.disk.write("B", 500, 4)
    before = bytes(rig.disk.content)
    first = api.VDI.snapshot(vdi, {})
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


def test_needless_images_are_merged_under_a_guest_that_writes_whatever_service_is_killed(rig: Rig) -> None:
    api, pool, vdi, disk = rig.api, rig.pool, rig.machine.vdi, rig.disk
    snapshots = []
    for number, letter in enumerate("FGHI"):
        disk.write(letter, 100 + 10 * number, 200)
        snapshots.append(api.VDI.snapshot(vdi, {}))
    eventually("each snapshot has an image", lambda: len(rig.images) >= 5)
    writer = Writer(rig.shell, disk, 900)
    for snapshot in snapshots:
        api.VDI.destroy(snapshot)
    eventually("the merging has begun", lambda: "begin" if _merging(rig) else None, MERGED)
    for service in ("storage", "vm", "storage"):
        pid = pool.kill(service, rig.host)
        pool.wait_restarted(service, rig.host, other_than=pid)
    pool.wait_ready()
    eventually("the images are merged", lambda: len(rig.images) == 1, MERGED)
    rig.reconnect()
    eventually("the guest goes on", lambda: writer.count > 100, 60)
    assert writer.stop() > 100
    last = api.VDI.snapshot(vdi, {})
    rig.holds(last, bytes(disk.content))
    api.VDI.destroy(last)
    eventually("nothing is left to merge", lambda: not _merging(rig) and len(rig.images) == 1, MERGED)


def _merging(rig: Rig) -> bool:
    path = rig.folder / ".leases" / "merging"
    return path.exists() and bool(json.loads(path.read_bytes()).get("top"))


def test_a_disk_grows_under_its_guest_and_stays_so(rig: Rig) -> None:
    api, vdi, shell = rig.api, rig.machine.vdi, rig.shell
    assert shell.run("blockdev --getsize64 /dev/vda") == str(64 * MIB)
    assert "resize_online" in api.VDI.get_allowed_operations(vdi)
    api.VDI.resize_online(vdi, str(96 * MIB))
    assert int(api.VDI.get_virtual_size(vdi)) == 96 * MIB
    rig.disk.content.extend(bytes(32 * MIB))
    eventually("the guest sees it", lambda: shell.run("blockdev --getsize64 /dev/vda") == str(96 * MIB))
    rig.disk.write("J", 1500, 10)
    snapshot = api.VDI.snapshot(vdi, {})
    rig.holds(snapshot, bytes(rig.disk.content))
    api.VDI.destroy(snapshot)


def test_a_second_disk_comes_and_goes_while_the_guest_runs(rig: Rig) -> None:
    api, shell = rig.api, rig.shell
    vdi, vbd = rig.new_disk(8 * MIB, "3")
    api.VBD.plug(vbd)
    assert api.VBD.get_currently_attached(vbd) is True
    shell.run("until [ -b /dev/vdb ]; do sleep 0.1; done")
    second = GuestDisk(shell, "/dev/vdb", 8 * MIB)
    second.write("K", 3, 5)
    with pytest.raises(XenAPI.Failure, match="VDI_IN_USE"):
        api.VDI.destroy(vdi)
    snapshots = [api.VDI.snapshot(vdi, {}) for _ in range(2)]
    second.write("K", 6)
    opened = rig.chain("3")
    assert len(opened) == 3
    assert opened <= rig.images
    api.VBD.unplug(vbd)
    assert api.VBD.get_currently_attached(vbd) is False
    shell.run("until [ ! -b /dev/vdb ]; do sleep 0.1; done")
    assert opened.isdisjoint(rig.images)
    rig.holds(vdi, bytes(second.content))
    api.VBD.plug(vbd)
    shell.run("until [ -b /dev/vdb ]; do sleep 0.1; done")
    api.VBD.unplug_force(vbd)
    assert opened.isdisjoint(rig.images)
    assert [found.dp for found in rig.datapaths(rig.host)] == [f"vbd/{api.VM.get_uuid(rig.vm)}/0"]
    api.VBD.destroy(vbd)
    for disk in (vdi, *snapshots):
        api.VDI.destroy(disk)


def test_a_disk_that_is_active_on_one_host_is_not_opened_on_another(rig: Rig) -> None:
    api, vdi = rig.api, rig.machine.vdi
    with client.temporary_vm(api, "other") as other:
        rig.new_vbd(vdi, "0", VM=other)
        for host in ("host1", "host3"):
            with pytest.raises(XenAPI.Failure, match="VDI_IN_USE"):
                api.VM.start_on(other, api.host.get_by_name_label(host)[0], False, False)
        assert api.VM.get_power_state(other) == "Halted"
    with pytest.raises(urllib.error.HTTPError):
        rig.put(vdi, bytes(64 * 1024))
    rig.disk.write("L", 0)


@pytest.fixture
def discs(rig: Rig, tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """An SR with one image of a CD, on the guest's host; its folder."""
    api = rig.api
    (tmp_path / "one.iso").write_bytes(b"1" * MIB)
    host = api.host.get_by_name_label(rig.host)[0]
    where = {"location": str(tmp_path), "legacy_mode": "true"}
    sr = api.SR.create(host, where, "0", "discs", "", "iso", "iso", False, {})
    yield sr, tmp_path
    for pbd in api.SR.get_PBDs(sr):
        api.PBD.unplug(pbd)
    api.SR.forget(sr)


def test_a_disc_is_put_into_a_drive_and_taken_out(rig: Rig, discs: tuple[str, Path]) -> None:
    api, (sr, folder) = rig.api, discs
    [disc] = api.SR.get_VDIs(sr)
    vm = api.VM.clone(api.VM.get_by_name_label("Other install media")[0], "bare machine")
    api.VM.provision(vm)
    disk, vbd = rig.new_disk(8 * MIB, "0", VM=vm)
    try:
        drive = rig.new_vbd("OpaqueRef:NULL", "3", VM=vm, type="CD", mode="RO", empty=True)
        api.VM.start_on(vm, api.host.get_by_name_label(rig.host)[0], False, False)
        process = rig.process(vm)

        api.VBD.insert(drive, disc)
        assert (api.VBD.get_empty(drive), api.VBD.get_VDI(drive)) == (False, disc)
        assert opened_below(process, folder) == {"one.iso"}
        api.VBD.eject(drive)
        assert (api.VBD.get_empty(drive), api.VBD.get_VDI(drive)) == (True, "OpaqueRef:NULL")
        assert opened_below(process, folder) == set()
        api.VBD.insert(drive, disc)

        api.VBD.unplug_force(vbd)  # nothing runs there that could let go of it
        assert not api.VBD.get_currently_attached(vbd)
        api.VM.hard_shutdown(vm)
        assert not [found.dp for found in rig.datapaths(rig.host) if api.VM.get_uuid(vm) in found.dp]
    finally:
        client.remove(api, vm, disk)


def test_a_vm_goes_back_to_its_snapshot(rig: Rig) -> None:
    """The last of this file: the guest is at its end afterwards."""
    api, vm = rig.api, rig.vm
    rig.disk.write("M", 20, 4)
    before = bytes(rig.disk.content)
    snapshot = api.VM.snapshot(vm, "before")
    rig.disk.write("N", 20, 4)
    api.VM.revert(snapshot)
    assert api.VM.get_power_state(vm) == "Halted"
    [vbd] = api.VM.get_VBDs(vm)
    disk = api.VBD.get_VDI(vbd)
    rig.holds(disk, before)
    assert left(rig.pool) == []

    rig.machine.start()
    assert rig.opened("0").virtual_size == len(before)
    assert rig.chain("0") == rig.images
    api.VM.destroy(snapshot)
