"""Random work of two hosts on the same few disks, with a witness; see `witness`.

Whatever the hosts answer, these hold: who has a disk open to write is alone; a disk that is deleted, reverted or
resized is used by nobody; a copy has what one writer has written, never half of it.
"""

from __future__ import annotations

import asyncio
import random
import tempfile
import uuid
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path

from shared.bus.contract import Empty
from shared.bus.interface import BusError
from shared.contracts import storage as contract
from shared.errors import ApiError
from tests.storage.support import MIB, SR
from tests.storage.two_hosts.hosts import HOSTS, TwoHosts
from tests.storage.two_hosts.witness import Violation, Witness

REFUSALS = frozenset({"VDI_IN_USE", "VDI_MISSING", "VDI_READONLY", "SR_VDI_LOCKING_FAILED", "HOST_OFFLINE"})
"""What a host may answer. HOST_OFFLINE: there is no VM service, which would have changed the image of an open disk."""
_FAR = MIB
"""Offset of the second place that every writer writes the same to."""


class Races:
    """`content`: how often, of 1, a writer writes to the image and a copy's is compared; slow, as it takes programs."""

    def __init__(self, hosts: TwoHosts, witness: Witness, seed: int, content: float = 0.1) -> None:
        self._hosts, self._witness, self._content = hosts, witness, content
        self._random = random.Random(seed)
        self._disks: list[str] = []
        self.done: Counter[str] = Counter()
        self.refused: Counter[str] = Counter()
        self.lost: Counter[str] = Counter()
        """Calls that got no answer, since their host was cut off or killed."""

    async def run(
        self, rounds: int, disks: int = 3, workers: int = 4, disturb: Callable[[], Awaitable[None]] | None = None
    ) -> None:
        """`rounds`: works in all. `workers`: on each host. `disturb`: runs beside it, again and again."""
        for _ in range(disks):
            await self._make()
        left = iter(range(rounds))

        async def work(host: int) -> None:
            for _ in left:
                await self._one(host)

        async def disturbances(of: Callable[[], Awaitable[None]]) -> None:
            while True:
                await of()

        async with asyncio.TaskGroup() as group:
            disturbing = group.create_task(disturbances(disturb)) if disturb else None
            working = [group.create_task(work(host)) for host in range(len(HOSTS)) for _ in range(workers)]
            await asyncio.wait(working)
            if disturbing is not None:
                disturbing.cancel()

    async def settled(self) -> None:
        """Nothing is left open, and each host can use every disk."""
        for host in range(len(HOSTS)):
            held = await self._hosts.ask(host, contract.DATAPATHS, Empty())
            assert held.datapaths == []
        listed = [await self._hosts.ask(host, contract.SR_SCAN, contract.SrRef(sr=SR)) for host in range(len(HOSTS))]
        assert [disk.location for disk in listed[0].disks] == [disk.location for disk in listed[1].disks]
        for disk in listed[0].disks:
            for host in range(len(HOSTS)):
                dp = f"vbd/{uuid.uuid4()}/0"
                wanted = contract.DiskOpen(dp=dp, sr=SR, location=disk.location, writable=not disk.read_only)
                await self._hosts.ask(host, contract.OPEN, contract.Open(disks=[wanted]))
                await self._hosts.ask(host, contract.CLOSE, contract.Close(dps=[dp]))

    async def _one(self, host: int) -> None:
        works: list[tuple[str, int, Callable[[int, str], Awaitable[None]]]] = [
            ("write", 10, self._write),
            ("read", 4, self._read),
            ("copy", 1, self._copy),
            ("snapshot", 2, self._snapshot),
            ("clone", 1, self._clone),
            ("resize", 2, self._resize),
            ("destroy", 1, self._destroy),
        ]
        [(name, _, work)] = self._random.choices(works, [weight for _, weight, _ in works])
        try:
            await work(host, self._random.choice(self._disks or ["nothing"]))
            self.done[name] += 1
        except BusError as error:
            (self.refused if error.code in REFUSALS else self.lost)[f"{name} {error.code}"] += 1
        except ApiError as error:
            if error.code not in REFUSALS:
                raise
            self.refused[f"{name} {error.code}"] += 1

    async def _make(self) -> None:
        request = contract.VdiCreate(sr=SR, uuid=str(uuid.uuid4()), virtual_size=2 * MIB)
        while True:  # on whichever host is there
            try:
                made = await self._hosts.ask(self._random.randrange(len(HOSTS)), contract.VDI_CREATE, request)
            except BusError:
                await asyncio.sleep(0.1)
                continue
            self._disks.append(made.location)
            return

    async def _write(self, host: int, disk: str) -> None:
        await self._use(host, disk, writable=True)

    async def _read(self, host: int, disk: str) -> None:
        await self._use(host, disk, writable=False)

    async def _use(self, host: int, disk: str, writable: bool) -> None:
        dp = f"vbd/{uuid.uuid4()}/0"
        wanted = contract.DiskOpen(dp=dp, sr=SR, location=disk, writable=writable)
        try:
            opened = await self._hosts.ask(host, contract.OPEN, contract.Open(disks=[wanted]))
            with self._witness.using(disk, f"{dp} on host {host}", writable):
                await asyncio.sleep(self._random.uniform(0, 0.01))
                if writable and self._random.random() < self._content:
                    await self._mark(opened.backends[0].path)
        finally:
            await self._hosts.ask(host, contract.CLOSE, contract.Close(dps=[dp]))

    async def _mark(self, image: str) -> None:
        """The same at two places, one after the other: who sees them differ has seen a write that is not over."""
        pattern = self._random.randrange(1, 256)
        await _program("qemu-io", "-f", "qcow2", *("-c", f"write -P {pattern} 0 4k"), image)
        await _program("qemu-io", "-f", "qcow2", *("-c", f"write -P {pattern} {_FAR} 4k"), image)

    async def _copy(self, host: int, disk: str) -> None:
        request = contract.VdiClone(sr=SR, location=disk, uuid=str(uuid.uuid4()))
        made = await self._hosts.ask(host, contract.VDI_COPY, request)
        await self._compare_and_delete(host, made.location)

    async def _snapshot(self, host: int, disk: str) -> None:
        request = contract.VdiClone(sr=SR, location=disk, uuid=str(uuid.uuid4()), snapshot=True)
        made = await self._hosts.ask(host, contract.VDI_CLONE, request)
        await self._compare_and_delete(host, made.location)

    async def _clone(self, host: int, disk: str) -> None:
        request = contract.VdiClone(sr=SR, location=disk, uuid=str(uuid.uuid4()))
        made = await self._hosts.ask(host, contract.VDI_CLONE, request)
        await self._compare_and_delete(host, made.location)

    async def _compare_and_delete(self, host: int, disk: str) -> None:
        if self._random.random() < self._content:
            dp = f"vbd/{uuid.uuid4()}/0"
            wanted = contract.DiskOpen(dp=dp, sr=SR, location=disk, writable=False)
            opened = await self._hosts.ask(host, contract.OPEN, contract.Open(disks=[wanted]))
            raw = await _content(Path(opened.backends[0].path))
            if raw[:4096] != raw[_FAR : _FAR + 4096]:
                raise Violation(f"the disk {disk} has half of a write: {raw[0]} and {raw[_FAR]}")
            await self._hosts.ask(host, contract.CLOSE, contract.Close(dps=[dp]))
            self.done["compare"] += 1
        await self._hosts.ask(host, contract.VDI_DESTROY, contract.VdiRef(sr=SR, location=disk))

    async def _resize(self, host: int, disk: str) -> None:
        size = 2 * MIB + self._random.randrange(64) * 65536
        try:
            await self._hosts.ask(
                host, contract.VDI_RESIZE, contract.VdiResize(sr=SR, location=disk, virtual_size=size)
            )
        except ApiError as error:
            if error.code != "SR_BACKEND_FAILURE_79":  # it is larger by now
                raise

    async def _destroy(self, host: int, disk: str) -> None:
        try:
            await self._hosts.ask(host, contract.VDI_DESTROY, contract.VdiRef(sr=SR, location=disk))
        except ApiError as error:
            if error.code != "VDI_MISSING":  # else whoever has deleted it may have been killed before he could say so
                raise
        if disk not in self._disks:
            return
        self._disks.remove(disk)
        with self._witness.using(disk, f"who deleted it on host {host}", writable=True):
            await self._make()


async def _program(*arguments: str) -> None:
    process = await asyncio.create_subprocess_exec(
        *arguments, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    output, _ = await process.communicate()
    if process.returncode or b"lock" in output:
        raise Violation(f"{arguments[0]}: {output.decode(errors='replace').strip()}")


async def _content(image: Path) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        raw = Path(folder, "raw")
        await _program("qemu-img", "convert", "-f", "qcow2", "-O", "raw", str(image), str(raw))
        return await asyncio.to_thread(raw.read_bytes)
