"""A disk that changes its SR in a whole pool, under a guest that writes."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

import pytest
import XenAPI

from tests.e2e import client
from tests.e2e.guest_disk import Writer
from tests.e2e.test_faults_qemu import Machine
from tests.e2e.test_live_disks import Rig, left
from tests.pool.conditions import eventually
from tests.support.pool import PoolUnderTest

pytestmark = [pytest.mark.pool, pytest.mark.qemu, pytest.mark.timeout(300)]


def test_a_disk_moves_to_another_sr_and_back_under_a_guest_that_writes(
    qemu_pool: PoolUnderTest, tmp_path: Path
) -> None:
    """With its snapshot; the second time the VM service is killed at some moment."""
    qemu_pool.wait_ready()
    with client.logged_in(qemu_pool) as session, ExitStack() as consoles:
        machine = Machine(qemu_pool, session, "moving")
        before = set(machine.api.VDI.get_all())
        machine.start()
        rig, api = Rig(machine, consoles), machine.api
        host = api.VM.get_resident_on(machine.ref)
        shared = {"location": str(tmp_path / "sr")}
        sr = api.SR.create(host, shared, "0", "other", "", "file", "", True, {})
        home, vdi = rig.sr, machine.vdi
        rig.disk.write("A", 0, 8)
        writer = Writer(rig.shell, rig.disk, 900)

        def written(number: int) -> None:
            eventually("the guest writes", lambda: writer.count > number, 60)

        written(10)
        snapshot = api.VM.snapshot(machine.ref, "before")
        moved = api.VDI.pool_migrate(vdi, sr, {})
        assert moved != vdi
        assert api.VDI.get_SR(moved) == sr
        assert {api.VDI.get_SR(api.VBD.get_VDI(vbd)) for vbd in api.VM.get_VBDs(snapshot)} == {sr}
        with pytest.raises(XenAPI.Failure, match="HANDLE_INVALID"):
            api.VDI.get_uuid(vdi)
        written(writer.count + 10)
        task = api.Async.VDI.pool_migrate(moved, home, {})
        pid = qemu_pool.kill("vm", rig.host)
        qemu_pool.wait_restarted("vm", rig.host, other_than=pid)
        eventually("the move has ended", lambda: api.task.get_status(task) != "pending", 60)
        vbd = next(vbd for vbd in api.VM.get_VBDs(machine.ref) if api.VBD.get_type(vbd) == "Disk")
        vdi = api.VBD.get_VDI(vbd)
        if api.task.get_status(task) != "success":  # the service was away when it was asked
            assert vdi == moved
            vdi = api.VDI.pool_migrate(vdi, home, {})
        assert (api.VDI.get_SR(vdi), api.SR.get_VDIs(sr)) == (home, [])
        rig.reconnect()
        written(writer.count + 10)
        writer.stop()
        last = api.VDI.snapshot(vdi, {})
        rig.holds(last, bytes(rig.disk.content))
        api.VM.destroy(snapshot)
        client.remove(api, machine.ref, *(set(api.VDI.get_all()) - before))
        assert api.SR.get_VDIs(sr) == []
        for pbd in api.SR.get_PBDs(sr):
            api.PBD.unplug(pbd)
        api.SR.destroy(sr)
    assert left(qemu_pool) == []


def test_a_disk_is_copied_between_hosts_that_do_not_see_each_others_srs(
    qemu_pool: PoolUnderTest, tmp_path: Path
) -> None:
    """By the hosts' own certificates."""
    qemu_pool.wait_ready()
    with client.logged_in(qemu_pool) as session:
        api, srs = session.xenapi, []
        for host in api.host.get_all()[:2]:
            config = {"location": str(tmp_path / api.host.get_name_label(host))}
            srs.append(api.SR.create(host, config, "0", "local", "", "file", "", False, {}))
        record = {"name_label": "far", "SR": srs[0], "virtual_size": str(16 << 20), "type": "user", "sharable": False}
        vdi = api.VDI.create({**record, "read_only": False, "other_config": {}})
        copies = [api.VDI.copy(vdi, srs[1], "OpaqueRef:NULL", "OpaqueRef:NULL")]
        copies.append(api.VDI.copy(copies[0], srs[0], "OpaqueRef:NULL", "OpaqueRef:NULL"))
        assert len({api.VDI.checksum(each) for each in (vdi, *copies)}) == 1
        for each in (vdi, *copies):
            api.VDI.destroy(each)
        for sr in srs:
            for pbd in api.SR.get_PBDs(sr):
                api.PBD.unplug(pbd)
            api.SR.destroy(sr)
    assert left(qemu_pool) == []
