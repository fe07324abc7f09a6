"""Disks of a `file` SR beside a model of what each must hold: operations on both, and a comparison of every block.

Writes go through qemu-io, reads through qemu-img: what is tested is believed by nobody.
"""

from __future__ import annotations

import asyncio
import os
import random
from dataclasses import dataclass, field
from pathlib import Path

from services.storage.plugins.file import qcow2
from services.storage.plugins.file.changes import BLOCK
from services.storage.plugins.file.folder import Folder
from services.storage.plugins.file.plugin import FilePlugin
from services.storage.plugins.interface import Domain, Handle, Volume
from tests.storage.support import HOST_A, new

CLUSTER = 64 << 10
_OFFSET = 0x00FF_FFFF_FFFF_FE00
GUEST = Domain(host=HOST_A, dp="vbd/model/0")


async def run(*command: str, ok: tuple[int, ...] = (0,)) -> str:
    process = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    out, _ = await process.communicate()
    assert process.returncode in ok, f"{command}: {out.decode()}"
    return out.decode()


async def write_image(image: str, writes: list[tuple[int, int, int]]) -> None:
    """(offset, length, byte) each; byte 0 is written as zeros."""
    commands = [
        argument
        for offset, length, value in writes
        for argument in ("-c", f"write -z {offset} {length}" if not value else f"write -P {value} {offset} {length}")
    ]
    await run("qemu-io", "-f", "qcow2", *commands, image)


async def content(image: str, scratch: Path) -> bytes:
    target = scratch / "content.raw"
    await run("qemu-img", "convert", "-U", "-f", "qcow2", "-O", "raw", image, str(target))
    data = await asyncio.to_thread(target.read_bytes)
    target.unlink()
    return data


def read_disk(folder: Folder, key: str) -> bytes:
    """What a disk holds, read here: quicker than qemu-img, for what is done very often."""
    chain = folder.chain(key)
    size = folder.header(chain[0]).virtual_size
    data = bytearray(size)
    for name in reversed(chain):
        header = folder.header(name)
        data[header.virtual_size :] = bytes(max(0, size - header.virtual_size))
        with folder.image(name).open("rb") as image:
            for at, length in qcow2.allocated(folder.image(name), header):
                for offset in range(at, at + length, CLUSTER):
                    image.seek(header.l1_offset + offset // (CLUSTER * CLUSTER // 8) * 8)
                    table = int.from_bytes(image.read(8)) & _OFFSET
                    image.seek(table + offset // CLUSTER % (CLUSTER // 8) * 8)
                    entry = int.from_bytes(image.read(8))
                    image.seek(entry & _OFFSET)
                    content = bytes(CLUSTER) if entry & 1 or not entry & _OFFSET else image.read(CLUSTER)
                    data[offset : offset + CLUSTER] = content.ljust(CLUSTER, b"\0")
    return bytes(data[:size])


@dataclass
class World:
    """`held`: what each disk must hold. `line`: per tracked snapshot, what its disk held then."""

    plugin: FilePlugin
    sr: Handle
    scratch: Path
    random: random.Random
    disks: dict[str, bytearray] = field(default_factory=dict)
    writable: set[str] = field(default_factory=set)
    parents: dict[str, str] = field(default_factory=dict)
    """Of tracked disks: the snapshot that each continues, "" for none."""
    log: list[str] = field(default_factory=list)

    async def image(self, key: str) -> str:
        uri = (await self.plugin.volume.stat(self.sr, key)).uri[0]
        return (await self.plugin.datapath.attach(uri, GUEST)).path

    def added(self, made: Volume, data: bytes | bytearray, writable: bool) -> None:
        self.disks[made.key] = bytearray(data)
        if writable:
            self.writable.add(made.key)

    async def create(self, size: int) -> str:
        made = await self.plugin.volume.create(self.sr, new(), size)
        self.added(made, bytes(size), writable=True)
        return made.key

    def some_writes(self, size: int) -> list[tuple[int, int, int]]:
        writes = []
        for _ in range(self.random.randint(1, 4)):
            offset = self.random.randrange(0, size, 512)
            length = min(self.random.choice([512, 4096, CLUSTER, 3 * CLUSTER]), size - offset)
            writes.append((offset, length, self.random.randrange(0, 256)))
        return writes

    def note_writes(self, key: str, writes: list[tuple[int, int, int]]) -> None:
        for offset, length, value in writes:
            self.disks[key][offset : offset + length] = bytes([value]) * length

    async def write(self, key: str) -> None:
        volume = await self.plugin.volume.stat(self.sr, key)
        await self.plugin.datapath.activate(volume.uri[0], GUEST)
        writes = self.some_writes(volume.virtual_size)
        await write_image(await self.image(key), writes)
        await self.plugin.datapath.deactivate(volume.uri[0], GUEST)
        self.note_writes(key, writes)

    async def snapshot(self, key: str) -> str:
        made = await self.plugin.volume.snapshot(self.sr, key, new())
        self.added(made, self.disks[key], writable=False)
        if key in self.parents and key in self.writable:
            self.parents[made.key], self.parents[key] = self.parents[key], made.key
        return made.key

    async def clone(self, key: str) -> str:
        made = await self.plugin.volume.clone(self.sr, key, new())
        self.added(made, self.disks[key], writable=True)
        return made.key

    async def destroy(self, key: str) -> None:
        await self.plugin.volume.destroy(self.sr, key)
        self.gone(key)

    def gone(self, key: str) -> None:
        del self.disks[key]
        self.writable.discard(key)
        parent = self.parents.pop(key, "")
        for child, known in self.parents.items():
            if known == key:
                self.parents[child] = parent

    async def resize(self, key: str) -> None:
        size = len(self.disks[key]) + self.random.choice([512, CLUSTER, 5 * CLUSTER])
        await self.plugin.volume.resize(self.sr, key, size)
        self.disks[key].extend(bytes(size - len(self.disks[key])))

    async def revert(self, snapshot: str, key: str) -> None:
        await self.plugin.volume.revert(self.sr, snapshot, key)
        self.disks[key] = bytearray(self.disks[snapshot])
        if key in self.parents:
            self.parents.pop(key)
            await self.plugin.volume.disable_cbt(self.sr, key)

    async def track(self, key: str) -> None:
        await self.plugin.volume.enable_cbt(self.sr, key)
        self.parents.setdefault(key, "")

    async def check(self) -> None:
        """Every block of every disk, and that no file is left that no disk needs."""
        listed = {volume.key: volume for volume in await self.plugin.sr.ls(self.sr)}
        assert set(listed) == set(self.disks), self.log
        for key, data in self.disks.items():
            assert listed[key].virtual_size == len(data), self.log
            assert listed[key].read_write == (key in self.writable)
            assert await content(await self.image(key), self.scratch) == data, (key, self.log)
        folder = self.plugin.attached(self.sr).folder
        tree = folder.tree()
        assert tree.damaged == []
        assert tree.garbage() == []
        assert {image for key in self.disks for image in tree.chain_of(key)} == set(folder.names()[0]), self.log
        assert not list(folder.path.glob(".tmp-*"))

    async def check_changes(self, older: str, later: str) -> None:
        """Whatever differs is told, by bitmaps and by ranges."""
        said = await self.plugin.volume.changed_blocks(self.sr, older, later)
        for number, differs in enumerate(self._different(older, later)):
            told = said.bitmap[number // 8] >> 7 - number % 8 & 1
            assert told or not differs, (number, self.log)

    async def check_compare(self, one: str, other: str) -> None:
        ranges = await self.plugin.volume.compare(self.sr, one, other)
        told = {number for at in ranges for number in range(at.offset // BLOCK, -(-(at.offset + at.length) // BLOCK))}
        for number, differs in enumerate(self._different(one, other)):
            assert number in told or not differs, (number, self.log)

    def _different(self, one: str, other: str) -> list[bool]:
        size = max(len(self.disks[one]), len(self.disks[other]))
        first, second = (bytes(self.disks[key]).ljust(size, b"\0") for key in (one, other))
        return [first[at : at + BLOCK] != second[at : at + BLOCK] for at in range(0, size, BLOCK)]

    def lineage(self, key: str) -> list[str]:
        """The snapshots that a tracked disk continues, nearest first."""
        found: list[str] = []
        while self.parents.get(key):
            key = self.parents[key]
            found.append(key)
        return found


def rounds(default: int) -> int:
    """How often random histories are tried; more with XAPI_IMAGE_ROUNDS."""
    return int(os.environ.get("XAPI_IMAGE_ROUNDS", default))
