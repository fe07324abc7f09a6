"""Disks copied from one host to another that does not see them, and what ends meanwhile."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import psutil
import pytest

from services.api.edge.tls import Certificates, Shown
from services.storage.datapaths import Datapaths
from services.storage.motion.receptions import Reception
from services.storage.motion.sending import Far, Reached, Sending
from services.storage.nbd.address import Address
from services.storage.nbd.client import NbdClient, NbdError
from services.storage.nbd.credentials import Identity
from services.storage.nbd.doors import Door, entered
from shared.bus.context import CallContext
from shared.config import HostConfig
from shared.contracts import motion, storage, transfer
from shared.contracts.task import CANCEL, PROGRESS, Cancel, Progress
from shared.errors import ApiError
from tests.storage.motion.two_hosts import SIZE, SRS, TwoHosts, two_hosts
from tests.storage.support import HOST_A, HOST_B, MIB, new_uuid
from tests.storage.transfer.bench import Model


@pytest.fixture
async def hosts(short_folder: Path, certificates: Path) -> AsyncIterator[TwoHosts]:
    async with two_hosts(short_folder, certificates) as made:
        yield made


async def hurry(hosts: TwoHosts) -> None:
    """The second host waits for the first a moment only."""
    await hosts.kill("storage", HOST_B)
    await hosts.start("storage", HOST_B, client_patience=1.0)


class Gate:
    """Copies stop where both ends are open and nothing is written yet."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.reached, self.go = asyncio.Event(), asyncio.Event()
        really = Sending.reached
        gate = self

        @asynccontextmanager
        async def held(sending: Sending, far: Far) -> AsyncIterator[Reached]:
            async with really(sending, far) as found:
                gate.reached.set()
                await gate.go.wait()
                yield found

        monkeypatch.setattr(Sending, "reached", held)


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Gate:
    return Gate(monkeypatch)


async def filled(hosts: TwoHosts, size: int = SIZE) -> tuple[str, Model]:
    source, model = await hosts.disk(HOST_A, size), Model(size, 3)
    async with hosts.opened(HOST_A, source) as client:
        await model.change(client)
    return source, model


async def test_a_copy_on_another_host_has_the_same_content_and_holes(hosts: TwoHosts) -> None:
    source, model = await filled(hosts)
    target = await hosts.disk(HOST_B, SIZE + MIB)
    moved = await hosts.call(HOST_A, transfer.COPY, hosts.copy(source, target))
    assert 0 < moved.data < SIZE // 2
    assert await hosts.content(HOST_B, target) == bytes(model.content) + bytes(MIB)
    images = [hosts.image(HOST_A, source), hosts.image(HOST_B, target)]
    assert images[1].stat().st_blocks <= 2 * images[0].stat().st_blocks
    await hosts.nothing_is_left()


async def test_a_copy_to_another_host_may_be_of_what_differs(hosts: TwoHosts) -> None:
    base, model = await filled(hosts)
    target = await hosts.disk(HOST_B)
    await hosts.call(HOST_A, transfer.COPY, hosts.copy(base, target))
    clone = storage.VdiClone(sr=SRS[HOST_A], location=base, uuid=new_uuid(), snapshot=True)
    snapshot = (await hosts.call(HOST_A, storage.VDI_CLONE, clone)).location
    async with hosts.opened(HOST_A, base) as client:
        await model.change(client, 3)
    await hosts.call(HOST_A, transfer.COPY, hosts.copy(base, target, base=snapshot, zeroed=False))
    assert await hosts.content(HOST_B, target) == bytes(model.content)


async def test_a_copy_tells_its_task_how_far_it_is_and_ends_with_it(
    hosts: TwoHosts, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, _ = await filled(hosts, 64 * MIB)
    target = await hosts.disk(HOST_B, 64 * MIB)
    told = asyncio.Event()

    def hear(progress: Progress, _: str) -> None:
        told.set()

    await hosts.client.subscribe(PROGRESS, hear, task="t1")
    monkeypatch.setattr("services.storage.transfer.transfers.REPORT_EVERY", 0.01)
    context = CallContext(task="t1")
    copying = asyncio.create_task(
        hosts.call(HOST_A, transfer.COPY, hosts.copy(source, target, zeroed=False), context=context)
    )
    async with asyncio.timeout(20):
        await told.wait()
    await hosts.client.publish(CANCEL, Cancel(task="t1"), task="t1")
    with pytest.raises(ApiError, match="TASK_CANCELLED"):
        await copying
    await hosts.nothing_is_left()
    await hosts.destroy(HOST_B, target)


async def test_a_copy_that_is_cancelled_where_both_ends_are_open_leaves_nothing(hosts: TwoHosts, gate: Gate) -> None:
    source, _ = await filled(hosts)
    target = await hosts.disk(HOST_B)
    copying = await begun(hosts, gate, source, target, context=CallContext(task="t1"))
    await hosts.client.publish(CANCEL, Cancel(task="t1"), task="t1")
    with pytest.raises(ApiError, match="TASK_CANCELLED"):
        await copying
    await hosts.nothing_is_left()
    await hosts.destroy(HOST_B, target)


async def begun(
    hosts: TwoHosts, gate: Gate, source: str, target: str, **named: CallContext
) -> asyncio.Task[transfer.Moved]:
    """Stands where both ends are open."""
    gate.reached.clear()
    gate.go.clear()
    copying = asyncio.create_task(hosts.call(HOST_A, transfer.COPY, hosts.copy(source, target), **named))
    reached = asyncio.create_task(gate.reached.wait())
    await asyncio.wait({copying, reached}, return_when=asyncio.FIRST_COMPLETED)
    if copying.done():
        reached.cancel()
        raise AssertionError("it does not stand there") from copying.exception()
    return copying


async def test_a_program_or_service_that_is_killed_leaves_nothing_on_either_host(hosts: TwoHosts, gate: Gate) -> None:
    source, model = await filled(hosts)
    target = await hosts.disk(HOST_B)
    for host in (HOST_A, HOST_B):
        copying = await begun(hosts, gate, source, target)
        [program] = hosts.programs(host)
        program.kill()
        gate.go.set()
        with pytest.raises(ApiError):
            await copying
        await hosts.nothing_is_left()
    for host in (HOST_A, HOST_B):
        copying = await begun(hosts, gate, source, target)
        await hosts.kill("storage", host)
        gate.go.set()
        copying.cancel()
        with pytest.raises((ApiError, asyncio.CancelledError)):
            await copying
        await hosts.start("storage", host)
        await hosts.nothing_is_left()
    gate.go.set()
    await hosts.call(HOST_A, transfer.COPY, hosts.copy(source, target, zeroed=False))
    assert await hosts.content(HOST_B, target) == bytes(model.content)


async def received(hosts: TwoHosts) -> tuple[motion.Receive, motion.Receiving]:
    """A disk that the first host is to write to."""
    target = await hosts.disk(HOST_B)
    shown = Identity(hosts.certificates, HOST_A).shown()
    wanted = motion.Receive(
        dp=f"copy/{target}/far", sr=SRS[HOST_B], location=target, source=HOST_A, certificate=shown.certificate
    )
    return wanted, await hosts.call(HOST_B, motion.RECEIVE, wanted)


async def test_a_disk_is_written_to_by_one_copy_at_a_time(hosts: TwoHosts, gate: Gate) -> None:
    """Also of a host that has it itself."""
    source, model = await filled(hosts)
    target, near = await hosts.disk(HOST_B), await hosts.disk(HOST_B)
    copying = await begun(hosts, gate, source, target)
    with pytest.raises(ApiError, match="VDI_IN_USE"):
        await hosts.call(HOST_A, transfer.COPY, hosts.copy(source, target))
    other = transfer.Copy(dp=f"copy/{target}", sr=SRS[HOST_B], location=near, to_sr=SRS[HOST_B], to_location=target)
    with pytest.raises(ApiError, match="VDI_IN_USE"):
        await hosts.call(HOST_B, transfer.COPY, other)
    gate.go.set()
    await copying
    assert await hosts.content(HOST_B, target) == bytes(model.content)
    await hosts.nothing_is_left()


async def test_a_disk_whose_writer_does_not_come_is_closed(hosts: TwoHosts) -> None:
    await hurry(hosts)
    wanted, _ = await received(hosts)
    assert await hosts.datapaths(HOST_B) == [wanted.dp]
    await hosts.nothing_is_left()
    with pytest.raises(ApiError, match="is not served"):
        await hosts.call(HOST_B, motion.RECEIVE_HELD, motion.Reception(dp=wanted.dp))


async def test_a_disk_that_is_being_closed_already_is_not_said_to_be_kept(
    hosts: TwoHosts, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted, _ = await received(hosts)
    closing, asked = asyncio.Event(), asyncio.Event()
    close, end = Datapaths.close, Reception.end

    async def late(self: Datapaths, dps: Iterable[str]) -> None:
        closing.set()
        await asked.wait()
        await close(self, dps)

    async def noted(self: Reception, keep: str = "") -> None:
        asked.set()
        await end(self, keep)

    monkeypatch.setattr(Datapaths, "close", late)
    monkeypatch.setattr(Reception, "end", noted)
    [program] = hosts.programs(HOST_B)
    program.kill()
    await closing.wait()
    with pytest.raises(ApiError, match="is not handed over"):
        await hosts.call(HOST_B, motion.RECEIVE_END, motion.ReceiveEnd(dp=wanted.dp, keep="vbd/vm/0"))
    await hosts.nothing_is_left()


async def test_a_disk_is_served_to_nobody_else(hosts: TwoHosts, tmp_path: Path) -> None:
    """Not without TLS, not to another host of the pool, not by another name."""
    wanted, there = await received(hosts)
    with pytest.raises(NbdError):
        await NbdClient.connect(Address(host=there.address, port=there.port, export=there.export))
    other = HostConfig(uuid=new_uuid(), name="c", address="127.0.0.13")
    Certificates(tmp_path).pem(other, Shown.HOSTS)
    mine = Identity(hosts.certificates, HOST_A)
    strangers = [
        (Identity(tmp_path, other.uuid), there.export, there.certificate),
        (mine, "disk", there.certificate),
        (mine, there.export, mine.shown().certificate),  # who is not the host that it takes it for
    ]
    for identity, export, certificate in strangers:
        door = Door(there.address, there.port, export, certificate, there.name)
        with pytest.raises(ApiError):
            async with entered(door, hosts.folder, identity):
                pass
    door = Door(there.address, there.port, there.export, there.certificate, there.name)
    async with entered(door, hosts.folder, mine) as link, await NbdClient.connect(link.address) as client:
        assert (client.size, client.writable) == (SIZE, True)
    await hosts.call(HOST_B, motion.RECEIVE_END, motion.ReceiveEnd(dp=wanted.dp))
    await hosts.nothing_is_left()


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root")
async def test_an_sr_that_is_full_on_another_host_says_so(hosts: TwoHosts) -> None:
    source, size = await hosts.disk(HOST_A), 4 * MIB
    async with hosts.opened(HOST_A, source) as client:
        await client.write(0, os.urandom(size + MIB))
    sr = new_uuid()
    config = {"size": "4MiB"}
    await hosts.call(HOST_B, storage.SR_CREATE, storage.SrCreate(sr=sr, type="memory", device_config=config))
    await hosts.call(HOST_B, storage.SR_ATTACH, storage.SrAttach(sr=sr, type="memory", device_config=config))
    made = await hosts.call(HOST_B, storage.VDI_CREATE, storage.VdiCreate(sr=sr, uuid=new_uuid(), virtual_size=SIZE))
    wanted = msgspec.structs.replace(hosts.copy(source, made.location), to_sr=sr)
    with pytest.raises(ApiError) as failure:
        await hosts.call(HOST_A, transfer.COPY, wanted)
    assert (failure.value.code, int(failure.value.params[1]) < size) == ("SR_FULL", True)
    await hosts.nothing_is_left()
    await hosts.call(HOST_B, storage.VDI_DESTROY, storage.VdiRef(sr=sr, location=made.location))
    await hosts.call(HOST_B, storage.SR_DESTROY, storage.SrRef(sr=sr))


async def test_a_simulated_disk_takes_anything_from_another_host(hosts: TwoHosts) -> None:
    source, _ = await filled(hosts)
    sr = new_uuid()
    await hosts.call(HOST_B, storage.SR_CREATE, storage.SrCreate(sr=sr, type="dummy", device_config={}))
    await hosts.call(HOST_B, storage.SR_ATTACH, storage.SrAttach(sr=sr, type="dummy", device_config={}))
    made = await hosts.call(HOST_B, storage.VDI_CREATE, storage.VdiCreate(sr=sr, uuid=new_uuid(), virtual_size=SIZE))
    wanted = hosts.copy(source, made.location)
    moved = await hosts.call(HOST_A, transfer.COPY, msgspec.structs.replace(wanted, to_sr=sr))
    assert moved.data > 0
    assert not [child for child in psutil.Process().children() if "qemu-nbd" in child.name()]
    await hosts.nothing_is_left()
