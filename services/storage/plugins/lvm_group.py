"""One volume group of this host: its volumes as LVM reports them, and what is done to them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

import msgspec

from services.storage.plugins import lvm_commands as commands
from services.storage.plugins.errors import Failure, backend_failure, plugin_failed, sr_full, volume_missing
from services.storage.plugins.interface import SrStat, Volume
from services.storage.plugins.lvm_commands import Holder, Label, LogicalVolume, VolumeGroup
from services.storage.plugins.program import Output, Run
from services.storage.settle import settle

log = logging.getLogger("storage.lvm")

Parsed = TypeVar("Parsed")

METADATA_FULL = 0.95
"""Share of a pool's metadata beyond which nothing is made in it: a pool whose metadata is full has to be repaired."""


class Group:
    """`lock`: held while something is decided by the tags and then changed. `devices`: folder of the volumes' nodes."""

    def __init__(self, sr: str, run: Run, devices: Path) -> None:
        self.sr, self.name = sr, commands.group_name(sr)
        self.lock = asyncio.Lock()
        self._run, self._devices = run, devices

    def path(self, volume: LogicalVolume) -> Path:
        return self._devices / self.name / volume.name

    async def do(self, command: list[str], failure: Failure, what: str) -> str:
        """Its answer. Raises SR_BACKEND_FAILURE_<n> with its words.

        LVM is let come to its end, whoever is cancelled: killed, it may leave devices suspended.
        """
        running = self._start(command)
        output = await (settle(running) if command[0] == "lvm" else running)
        if output.status:
            raise backend_failure(failure, what, output.words)
        return output.stdout

    async def _start(self, command: list[str]) -> Output:
        return await self._run(command)

    async def find(self) -> VolumeGroup | None:
        """None: there is no such group."""
        output = await self._run(commands.list_groups(self.name))
        if output.status:
            if "not found" in output.stderr:
                return None
            raise backend_failure(Failure.SR_UNAVAILABLE, f"cannot look for the volume group {self.name}", output.words)
        return next(iter(parsed(commands.parse_groups, output.stdout)), None)

    async def need(self) -> VolumeGroup:
        """Raises SR_BACKEND_FAILURE_47."""
        found = await self.find()
        if found is None:
            raise backend_failure(Failure.SR_UNAVAILABLE, f"there is no volume group {self.name}")
        return found

    async def volumes(self) -> dict[str, LogicalVolume]:
        """By name, with the pool and those that are not ours."""
        what = f"cannot list the volumes of {self.name}"
        text = await self.do(commands.list_volumes(self.name), Failure.SR_UNAVAILABLE, what)
        return {volume.name: volume for volume in parsed(commands.parse_volumes, text)}

    async def disk(self, key: str) -> LogicalVolume:
        """Raises VDI_MISSING."""
        found = (await self.volumes()).get(commands.volume_name(key))
        if found is None or found.label is None or found.label.draft:
            raise volume_missing(self.sr, key)
        return found

    async def thin(self) -> bool:
        return any(volume.pool and volume.name == commands.POOL for volume in (await self.volumes()).values())

    async def claim(self, machine: str) -> None:
        """LVM keeps those apart who share a kernel, and nobody else: without a lock manager two machines would destroy
        each other's changes. Raises SR_BACKEND_FAILURE_47.
        """
        found = await self.need()
        if machine and not found.machines:
            what = f"cannot tag the volume group {self.name}"
            await self.do(commands.tag_group(self.name, commands.machine_tag(machine)), Failure.IO, what)
        elif machine and machine not in found.machines:
            tag = commands.machine_tag(next(iter(sorted(found.machines))))
            raise backend_failure(
                Failure.SR_UNAVAILABLE,
                f"the volume group {self.name} belongs to another machine, and LVM cannot share it",
                f"if that one is gone for good: vgchange --deltag {tag} {self.name}",
            )

    async def begin(self) -> None:
        """The pool is active as long as the SR is attached: otherwise LVM does not say how full it is."""
        if await self.thin():
            command = commands.activate_volume(self.name, commands.POOL)
            await self.do(command, Failure.MOUNT, f"cannot activate the pool of {self.name}")

    async def end(self) -> None:
        if await self.thin():
            command = commands.deactivate_volume(self.name, commands.POOL)
            await self.do(command, Failure.UNMOUNT, f"cannot deactivate the pool of {self.name}")

    async def stat(self) -> SrStat:
        """Of a thin group, its pool: what else is free is not for disks."""
        group, volumes = await self.need(), await self.volumes()
        pool = volumes.get(commands.POOL)
        if pool is None or not pool.pool:
            return SrStat(uuid=self.sr, free_space=group.free, total_space=group.size)
        used = pool.used
        if used is None:
            promised = sum(volume.size for volume in volumes.values() if volume.thin)
            used = min(1.0, promised / pool.size)
            log.warning("SR %s: LVM does not say how full its pool is; all of each disk is counted", self.sr)
        return SrStat(uuid=self.sr, free_space=int(pool.size * (1 - used)), total_space=pool.size)

    async def need_metadata(self, size: int) -> None:
        """Raises SR_FULL."""
        pool = (await self.volumes()).get(commands.POOL)
        if pool is not None and (pool.used_metadata or 0.0) >= METADATA_FULL:
            log.error("SR %s: the metadata of its pool are full: lvextend --poolmetadatasize", self.sr)
            raise sr_full(size, 0)

    async def add(self, name: str, label: Label, size: int) -> LogicalVolume:
        """A new volume that reads as zeros. Raises SR_FULL."""
        thin, group = await self.thin(), await self.need()
        await self.need_metadata(size)
        size = -(-size // group.extent) * group.extent
        space = await self.stat()
        if space.free_space <= 0 or (not thin and size > space.free_space):
            raise sr_full(size, space.free_space)
        command = commands.create_volume(self.name, name, size, commands.label_tags(label), thin)
        await self.do(command, Failure.VDI_CREATE, f"cannot create the volume {name}")
        made = (await self.volumes())[name]
        if not thin:
            await self.zero(made)
        return made

    async def grow(self, volume: LogicalVolume, size: int) -> None:
        """What a thick volume gets is cleared, as in a new one; a crash in between is made up for by `sweep`."""
        command = commands.resize_volume(self.name, volume.name, size)
        label = volume.label
        if not volume.thin and label is not None:
            await self.relabel(volume, msgspec.structs.replace(label, unclear=label.unclear or volume.size))
        await self.do(command, Failure.VDI_RESIZE, f"cannot resize the volume {volume.name}")
        await self.clear((await self.volumes())[volume.name])

    async def clear(self, volume: LogicalVolume) -> None:
        """What a growing volume has got, if that is still to be done."""
        label = volume.label
        if label is None or not label.unclear:
            return
        if volume.size > label.unclear:
            await self.zero(volume, label.unclear)
        await self.relabel(volume, msgspec.structs.replace(label, unclear=0))

    async def zero(self, volume: LogicalVolume, begin: int = 0) -> None:
        """What another disk had there is nobody's to read. `begin`: bytes."""
        await self.activate(volume)
        try:
            command = ["blkdiscard", "--zeroout", "--offset", str(begin), str(self.path(volume))]
            await self.do(command, Failure.VDI_CREATE, f"cannot clear the volume {volume.name}")
        finally:
            await self.deactivate(volume)

    async def branch(self, source: LogicalVolume, name: str, label: Label, writable: bool, failure: Failure) -> None:
        await self.need_metadata(source.size)
        command = commands.branch_volume(self.name, source.name, name, commands.label_tags(label), writable)
        await self.do(command, failure, f"cannot branch the volume {source.name}")

    async def relabel(self, volume: LogicalVolume, label: Label) -> None:
        holders = frozenset(map(commands.holder_tag, volume.holders))
        await self._tag(volume, commands.label_tags(label) | holders)

    async def hold(self, volume: LogicalVolume, holders: Sequence[Holder]) -> None:
        label = volume.label
        kept = commands.label_tags(label) if label is not None else frozenset()
        await self._tag(volume, kept | frozenset(map(commands.holder_tag, holders)))

    async def _tag(self, volume: LogicalVolume, after: frozenset[str]) -> None:
        if after != volume.tags:
            command = commands.change_tags(self.name, volume.name, volume.tags, after)
            await self.do(command, Failure.IO, f"cannot change the tags of {volume.name}")

    async def activate(self, volume: LogicalVolume) -> None:
        command = commands.activate_volume(self.name, volume.name)
        await self.do(command, Failure.MOUNT, f"cannot activate the volume {volume.name}")

    async def deactivate(self, volume: LogicalVolume) -> None:
        command = commands.deactivate_volume(self.name, volume.name)
        await self.do(command, Failure.UNMOUNT, f"cannot deactivate the volume {volume.name}")

    async def remove(self, name: str) -> None:
        await self.do(commands.remove_volume(self.name, name), Failure.LVM_DELETE, f"cannot remove the volume {name}")

    async def replace(self, name: str, by: str) -> None:
        """The second becomes the first."""
        if name in await self.volumes():
            await self.remove(name)
        command = commands.rename_volume(self.name, by, name)
        await self.do(command, Failure.LVM_CREATE, f"cannot rename the volume {by}")
        renamed = (await self.volumes())[name]
        if renamed.label is not None:
            await self.relabel(renamed, msgspec.structs.replace(renamed.label, draft=False, replaces=""))

    async def sweep(self) -> None:
        """Finishes or removes what a crash left."""
        for volume in list((await self.volumes()).values()):
            label = volume.label
            if label is not None and label.replaces and volume.name != label.replaces:
                await self.replace(label.replaces, volume.name)
            elif label is not None and label.replaces:
                await self.relabel(volume, msgspec.structs.replace(label, draft=False, replaces=""))
            elif label is not None and label.draft:
                await self.remove(volume.name)
            elif label is not None and label.unclear and not volume.holders:
                await self.clear(volume)


def described(sr: str, volume: LogicalVolume, label: Label) -> Volume:
    key = volume.name.removeprefix(commands.VOLUME_PREFIX)
    return Volume(
        key=key,
        uuid=label.uuid,
        name=label.name,
        description=label.description,
        read_write=volume.writable,
        virtual_size=volume.size,
        physical_utilisation=int(volume.size * (volume.used or 0.0)) if volume.thin else volume.size,
        uri=[f"lvm://{sr}/{key}"],
        keys=label.keys,
        sharable=label.sharable,
    )


def parsed(parse: Callable[[str], Parsed], text: str) -> Parsed:
    try:
        return parse(text)
    except ValueError as error:
        raise plugin_failed("LVM's report cannot be read", error) from error
