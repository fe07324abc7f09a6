"""A client of a storm: it makes disks, writes to them and copies them about, and knows what each of them has to hold.

A step that fails leaves it open what has been done; the client says what may have been, and takes no further step
before the disks have been compared.
"""

from __future__ import annotations

import asyncio
import random
import secrets
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

from bench.storm_content import BLOCK, Content
from bench.storm_pool import FAILED_CALL, MIB, NULL, RECOVERS_WITHIN, Refused, Repository, StormPool
from services.storage.nbd.client import NbdClient
from services.storage.nbd.server import NbdServer
from shared.contracts.storage import CLOSE, OPEN, Close, DiskOpen, Open
from shared.errors import ApiError

SIZE, LARGEST = 8 * MIB, 12 * MIB
DISKS = 7
"""Of one client, after which it destroys more than it makes."""


@dataclass(eq=False)
class Disk:
    """`contents`: one of them is what it holds. `base`: the disk it is a snapshot of. `doomed`: asked to be destroyed.
    `history`: what was done, for who finds it wrong.
    """

    ref: str
    name: str
    place: Repository
    contents: list[Content]
    base: Disk | None = None
    doomed: bool = False
    history: list[str] = field(default_factory=list)

    @property
    def content(self) -> Content:
        (content,) = self.contents
        return content


@dataclass(eq=False)
class Making:
    """A disk that a call was to make, of which nothing is known."""

    name: str
    places: list[Repository]
    contents: list[Content]
    base: Disk | None
    what: str


class Client(threading.Thread):
    """One round: some steps, until one fails. `failures`: how often which."""

    stamps = count(1)

    def __init__(self, pool: StormPool, folder: Path, seed: int, name: str, disks: list[Disk], steps: int) -> None:
        super().__init__(name=name)
        self._pool, self._api, self._folder = pool, pool.api, folder
        self._random = random.Random(seed)
        self._steps = steps
        self.disks = disks
        self.making: list[Making] = []
        self.done: Counter[str] = Counter()
        self.failures: Counter[str] = Counter()
        self.broken: BaseException | None = None

    def run(self) -> None:
        try:
            for _ in range(self._steps):
                if not self._step():
                    return
        except BaseException as error:  # for who joins: it is raised there
            self.broken = error

    def _step(self) -> bool:
        work, disk = self._choose()
        name = work.__name__.strip("_")
        begun = time.monotonic()
        try:
            work(disk)
        except FAILED_CALL as error:
            self.failures[f"{name}: {_said(error)}"] += 1
            if disk is not None:
                disk.history.append(f"{name} failed after {time.monotonic() - begun:.2f} s: {error}")
            return False
        self.done[name] += 1
        return True

    def _choose(self) -> tuple[Callable[[Any], None], Disk | None]:
        live = [disk for disk in self.disks if disk.base is None]
        if not live:
            return self._create, None
        if len(self.disks) >= DISKS and self._random.random() < 0.6:
            return self._destroy, self._random.choice(self.disks)
        disk = self._random.choice(self.disks)
        ways: list[Callable[[Any], None]] = [self._clone, self._copy, self._carry, self._destroy]
        if disk.base is None:
            ways += [*[self._write] * 5, *[self._snapshot] * 3, self._resize, self._overwrite]
            if disk.place.scripts:
                ways.append(self._destroy_snapshots)
            elif any(other.base is disk for other in self.disks):
                ways += [*[self._delta] * 3, self._revert, self._revert, *[self._destroy_snapshots] * 2]
        return self._random.choice(ways), disk

    # ---- steps

    def _create(self, _: None) -> None:
        place = self._random.choice(self._pool.repositories)
        self._new_disk(f"{self.name}-{secrets.token_hex(3)}", place, SIZE)

    def _write(self, disk: Disk) -> None:
        asyncio.run(self._write_by_nbd(disk))

    def _snapshot(self, disk: Disk) -> None:
        self._make("VDI.snapshot", disk, [disk.place], disk, disk.ref, {})

    def _clone(self, disk: Disk) -> None:
        self._make("VDI.clone", disk, [disk.place], None, disk.ref, {})

    def _copy(self, disk: Disk) -> None:
        place = self._random.choice(self._pool.repositories)
        self._make("VDI.copy", disk, [place], None, disk.ref, place.ref, NULL, NULL)

    def _carry(self, disk: Disk) -> None:
        """Exported whole, imported into a new one elsewhere."""
        form = self._random.choice(("raw", "vhd", "qcow2", "tar"))
        data = self._pool.content(self._host(disk.place), disk.ref, format=form)
        place = self._random.choice(self._pool.repositories)
        new = self._new_disk(f"{self.name}-{secrets.token_hex(3)}", place, disk.content.size)
        new.history.append(f"import as {form} of {disk.ref}")
        self._import(new, data, form, disk.contents)

    def _delta(self, disk: Disk) -> None:
        """What has changed since a snapshot, brought onto a copy of that."""
        older = self._random.choice([other for other in self.disks if other.base is disk and not other.doomed])
        if disk.content.size != older.content.size:
            return
        newer = self._make("VDI.snapshot", disk, [disk.place], disk, disk.ref, {})
        form = self._random.choice(("vhd", "qcow2", ""))
        if form:
            host = self._host(disk.place)
            data = self._pool.content(host, newer.ref, format=form, base=self._api("VDI.get_uuid", older.ref))
        place = self._random.choice(self._pool.repositories)
        onto = self._make("VDI.copy", older, [place], None, older.ref, place.ref, NULL, NULL)
        onto.history.append(f"delta {form} from {older.ref} to {newer.ref}")
        if form:
            self._import(onto, data, form, newer.contents)
            return
        onto.contents = [_mixed(onto.contents, newer.contents)]
        self._api("VDI.copy", newer.ref, NULL, older.ref, onto.ref)
        onto.contents = [content.copy() for content in newer.contents]

    def _overwrite(self, disk: Disk) -> None:
        """All of it, by an import."""
        content = disk.content.grown(disk.content.size)
        content.stamps.clear()
        for _ in range(12):
            first, length = self._range(content.size)
            stamp = next(self.stamps)
            for number in range(first, first + length):
                content.is_now(number, stamp)
        self._import(disk, content.data, "raw", [content])

    def _resize(self, disk: Disk) -> None:
        size = disk.content.size + MIB
        if size > LARGEST:
            return
        before = disk.contents
        disk.contents = [*before, *(content.grown(size) for content in before)]
        self._api("VDI.resize", disk.ref, str(size))
        disk.contents = disk.contents[len(before) :]

    def _revert(self, disk: Disk) -> None:
        snapshot = self._random.choice([other for other in self.disks if other.base is disk])
        disk.contents = [*disk.contents, *(content.copy() for content in snapshot.contents)]
        self._api("VDI.revert", snapshot.ref)
        disk.contents = [content.copy() for content in snapshot.contents]

    def _destroy_snapshots(self, disk: Disk) -> None:
        for snapshot in [other for other in self.disks if other.base is disk]:
            self._destroy(snapshot)

    def _destroy(self, disk: Disk) -> None:
        disk.doomed = True
        self._api("VDI.destroy", disk.ref)
        self.disks.remove(disk)
        for other in self.disks:
            if other.base is disk:
                other.base = Disk("gone", other.name, other.place, [])

    # ---- what they are made of

    def _host(self, place: Repository) -> str:
        return self._random.choice(place.hosts)

    def _range(self, size: int) -> tuple[int, int]:
        """First and number of some blocks."""
        length = self._random.choice((1, 1, 3, 16, 40, 100))
        return self._random.randrange(0, size // BLOCK - length), length

    def _new_disk(self, name: str, place: Repository, size: int) -> Disk:
        making = Making(name, [place], [Content(size)], None, "VDI.create")
        self.making.append(making)
        row = {"name_label": name, "name_description": "", "SR": place.ref, "virtual_size": str(size), "type": "user"}
        ref = self._api("VDI.create", {**row, "sharable": False, "read_only": False, "other_config": {}})
        return self._made(making, ref)

    def _make(self, message: str, of: Disk, places: list[Repository], base: Disk | None, *arguments: Any) -> Disk:
        contents = [content.copy() for content in of.contents]
        making = Making(of.name, places, contents, base, f"{message} of {of.ref}")
        self.making.append(making)
        return self._made(making, self._api(message, *arguments))

    def _made(self, making: Making, ref: str) -> Disk:
        self.making.remove(making)
        disk = Disk(ref, making.name, making.places[0], making.contents, making.base, history=[making.what])
        self.disks.append(disk)
        return disk

    def _import(self, disk: Disk, data: bytes, form: str, contents: list[Content]) -> None:
        disk.contents = [_mixed(disk.contents, contents)]
        self._pool.put(self._host(disk.place), disk.ref, data, form)
        disk.contents = [content.copy() for content in contents]

    # ---- writes

    async def _write_by_nbd(self, disk: Disk) -> None:
        """As a hypervisor would: the disk is opened on a host, and a server of our own has its image open."""
        host, dp = self._host(disk.place), f"storm/{secrets.token_hex(4)}"
        location = self._api("VDI.get_location", disk.ref)
        bus = await self._pool.connect()
        try:
            try:
                wanted = DiskOpen(dp=dp, sr=disk.place.uuid, location=location, writable=True)
                opened = await bus.call(OPEN, Open(disks=[wanted]), host=self._pool.uuids[host])
                async with (
                    await NbdServer.start(opened.backends[0], self._folder) as server,
                    await NbdClient.connect(server.address) as client,
                ):
                    await self._write_blocks(disk, client)
            finally:
                await self._close(bus, host, dp)
        finally:
            await bus.close()

    async def _write_blocks(self, disk: Disk, client: NbdClient) -> None:
        content = disk.content
        for _ in range(self._random.randrange(1, 5)):
            written: dict[int, int] = {}
            for _ in range(self._random.randrange(1, 12)):
                first, length = self._range(content.size)
                stamp = next(self.stamps) if self._random.random() < 0.85 else 0
                for number in range(first, first + length):
                    content.may_be(number, stamp)
                    written[number] = stamp
                if stamp:
                    await client.write(first * BLOCK, stamp.to_bytes(8) * (length * BLOCK // 8))
                else:
                    await client.zero(first * BLOCK, length * BLOCK)
            await client.flush()
            for number, stamp in written.items():
                content.is_now(number, stamp)

    async def _close(self, bus: Any, host: str, dp: str) -> None:
        """Until it is closed: no writer is left."""
        deadline = time.monotonic() + RECOVERS_WITHIN
        while True:
            try:
                await bus.call(CLOSE, Close(dps=[dp]), host=self._pool.uuids[host])
                return
            except ApiError:
                if time.monotonic() > deadline:
                    raise
                await asyncio.sleep(0.2)


def _said(error: BaseException) -> str:
    """The code; with its words where it says nothing."""
    code = error.code if isinstance(error, Refused | ApiError) else type(error).__name__
    return str(error)[:150] if code == "INTERNAL_ERROR" else code


def _mixed(before: list[Content], after: list[Content]) -> Content:
    mixed = before[0]
    for each in (*before[1:], *after):
        mixed = mixed.or_in_part(each)
    return mixed.copy()
