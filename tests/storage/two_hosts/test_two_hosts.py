"""Two hosts in network namespaces, with one folder that both see: nobody's disk is written to by another one too.

`python -m tests.storage.two_hosts` does the same for as long as one likes.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Awaitable, Iterator
from pathlib import Path

import pytest

from pool.guest import build
from shared.contracts import storage as contract
from shared.contracts import vm as vm_contract
from shared.contracts import vm_disks
from shared.contracts.vm import VmShutdown, VmSpec, VmStart
from shared.errors import ApiError
from tests.storage.support import MIB, SR, new_uuid
from tests.storage.two_hosts.hosts import HOSTS, TwoHosts, two_hosts
from tests.storage.two_hosts.races import Races
from tests.storage.two_hosts.witness import Openers, Witness
from tests.vm import specs

pytestmark = [pytest.mark.root, pytest.mark.broker, pytest.mark.timeout(120)]


@pytest.fixture
def folder() -> Iterator[Path]:
    """Paths of sockets must be short; pytest's own folders may not be."""
    if os.geteuid() != 0 or shutil.which("ip") is None:
        pytest.skip("needs root and iproute2")
    made = Path(tempfile.mkdtemp(prefix="two-"))
    yield made
    shutil.rmtree(made)


@pytest.fixture
async def hosts(folder: Path, broker_url: str) -> AsyncIterator[TwoHosts]:
    async with two_hosts(folder, broker_url, storage={"coalesce_delay": 0.1}) as made:
        yield made


async def test_a_disk_has_one_writer_whatever_two_hosts_do_with_it_at_once_even_cut_off(
    hosts: TwoHosts, folder: Path
) -> None:
    races = Races(hosts, Witness(folder / "witness"), seed=1)

    async def cut_off() -> None:
        await asyncio.sleep(0.5)
        await hosts.cut(1)
        try:
            await asyncio.sleep(0.5)
        finally:
            await hosts.heal(1)

    await races.run(rounds=150, disturb=cut_off)
    await races.settled()
    assert races.done["write"] > 10
    assert races.refused["write VDI_IN_USE"] > 3


async def outcome(work: Awaitable[object]) -> str:
    """ "" for success, else the error's code."""
    try:
        await work
    except ApiError as error:
        return error.code
    return ""


@pytest.mark.qemu
async def test_two_hosts_never_run_qemu_on_one_disk(folder: Path, broker_url: str) -> None:
    """The VMs are paused: QEMU has their disks open all the same."""
    guest = {"backend": "qemu", "accel": "tcg", "guest_dir": str(build().kernel.parent)}
    async with two_hosts(folder, broker_url, ("storage", "vm"), vm=guest) as hosts:
        with Openers(hosts.shared) as openers:
            await one_round(hosts)
    assert openers.violations == set()
    assert openers.seen != set()  # it has looked while QEMU had a disk open


async def one_round(hosts: TwoHosts) -> None:
    request = contract.VdiCreate(sr=SR, uuid=new_uuid(), virtual_size=4 * MIB)
    disk = contract.VdiRef(sr=SR, location=(await hosts.ask(0, contract.VDI_CREATE, request)).location)
    vbd = specs.disk("0", sr=SR, location=disk.location)
    vms = [specs.vm(f"vm{host}", vbds=[vbd]) for host in range(len(HOSTS))]

    async def start(host: int, vm: VmSpec) -> str:
        return await outcome(hosts.ask(host, vm_contract.START, VmStart(vm=vm, paused=True)))

    async def shut_down(host: int) -> str:
        return await outcome(hosts.ask(host, vm_contract.SHUTDOWN, VmShutdown(vm=vms[host].uuid)))

    async def plug(host: int) -> str:
        return await outcome(hosts.ask(host, vm_disks.VBD_PLUG, vm_disks.VbdPlug(vm=vms[host].uuid, vbd=vbd)))

    started = await asyncio.gather(*(start(host, vm) for host, vm in enumerate(vms)))
    assert sorted(started) == ["", "VDI_IN_USE"]
    winner, loser = started.index(""), started.index("VDI_IN_USE")
    assert await start(loser, specs.vm("bare", uuid=vms[loser].uuid)) == ""
    await hosts.cut(winner)
    try:
        assert await plug(loser) == "VDI_IN_USE"
        assert await outcome(hosts.ask(loser, contract.VDI_DESTROY, disk)) == "VDI_IN_USE"
    finally:
        await hosts.heal(winner)
    grown = contract.VdiResize(sr=SR, location=disk.location, virtual_size=8 * MIB)
    snapshot = contract.VdiClone(sr=SR, location=disk.location, uuid=new_uuid(), snapshot=True)
    copy = contract.VdiClone(sr=SR, location=disk.location, uuid=new_uuid())
    refused = await asyncio.gather(
        plug(loser),
        outcome(hosts.ask(loser, contract.VDI_DESTROY, disk)),
        outcome(hosts.ask(loser, contract.VDI_COPY, copy)),
    )
    assert set(refused) == {"VDI_IN_USE"}
    done = await asyncio.gather(  # on the host that has it, whichever was asked
        outcome(hosts.ask(loser, contract.VDI_RESIZE, grown)), outcome(hosts.ask(loser, contract.VDI_CLONE, snapshot))
    )
    assert set(done) == {""}
    ended, plugged = await asyncio.gather(shut_down(winner), plug(loser))
    assert (ended, plugged in ("", "VDI_IN_USE")) == ("", True)
    assert await shut_down(loser) == ""
    assert await outcome(hosts.ask(winner, contract.VDI_DESTROY, disk)) == ""
