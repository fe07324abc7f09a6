"""The SR type `lvm`: disks as logical volumes of a volume group of this machine, read and written as they are.

Volumes are thin, in one pool, unless `allocation` says thick; only thin ones can be cloned and snapshotted. Branches
share blocks in the pool and depend on nobody, so there are no chains and nothing to coalesce.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from pathlib import Path

import msgspec

from services.storage.plugins import ext
from services.storage.plugins import lvm_commands as commands
from services.storage.plugins.errors import Failure, backend_failure, plugin_failed
from services.storage.plugins.interface import (
    ActivatedOnAnotherHost,
    Domain,
    Handle,
    Held,
    Implementation,
    NewVolume,
    Probed,
    Report,
    SrStat,
    Unimplemented,
    Volume,
)
from services.storage.plugins.lvm_commands import Holder, Label, LogicalVolume
from services.storage.plugins.lvm_configuration import THICK, devices_of, thin_of
from services.storage.plugins.lvm_group import Group, described, parsed
from services.storage.plugins.program import Output, Run, run
from services.storage.plugins.skeleton import DatapathSkeleton, SrSkeleton, VolumeSkeleton
from services.storage.settle import settle
from shared.contracts.storage import DriverInfo
from shared.errors import ApiError

log = logging.getLogger("storage.lvm")

_DRAFT = "draft-"
_MACHINE_ID = Path("/etc/machine-id")


async def _run(arguments: list[str]) -> Output:
    """LVM warns of each file that it inherits, and what it warns of stands in front of what it fails for."""
    return await run(arguments, {"LVM_SUPPRESS_FD_WARNINGS": "1"})


class LvmPlugin:
    """`lvm`: runs LVM's programs. `check`: refuses devices that hold something. `nodes`: where volumes appear.

    `machine`: what this one is called among all, "" if nobody knows.
    """

    def __init__(
        self,
        lvm: Run = _run,
        check: Callable[[str], Awaitable[None]] = ext.need_free,
        nodes: Path = Path("/dev"),
        machine: str | None = None,
    ) -> None:
        self.run = lvm
        self.machine = _this_machine() if machine is None else machine
        self.check = check
        self.nodes = nodes
        self.groups: dict[str, Group] = {}
        self.handles: dict[Handle, tuple[str, str]] = {}
        """To host and SR."""
        self.sr = _Sr(self)
        self.volume = _Volume(self)
        self.datapath = _Datapath(self)

    @property
    def traceless(self) -> bool:
        return False

    @property
    def branches_in_use(self) -> bool:
        """The kernel holds writes up for the moment that it takes."""
        return True

    def query(self) -> DriverInfo:
        return DriverInfo(
            type="lvm",
            name="LVM",
            description="Disks as logical volumes of a local volume group",
            vendor="xapi-toolstack",
            copyright="LGPL-2.1-only",
            version="1.0",
            required_api_version="5.0",
            supported_image_formats=["raw"],
            features=dict.fromkeys(
                [
                    *("SR_CREATE", "SR_DELETE", "SR_ATTACH", "SR_DETACH", "SR_SCAN", "SR_UPDATE", "SR_PROBE"),
                    *("VDI_CREATE", "VDI_DELETE", "VDI_ATTACH", "VDI_DETACH", "VDI_ACTIVATE", "VDI_DEACTIVATE"),
                    *("VDI_CLONE", "VDI_SNAPSHOT", "VDI_REVERT", "VDI_RESIZE", "VDI_INTRODUCE", "VDI_UPDATE"),
                    *("THIN_PROVISIONING", "VDI_MIRROR"),
                ],
                1,
            ),
            configuration={
                "device": "paths of block devices, separated by commas (required); what they hold is lost",
                "allocation": "thin, or thick for disks that have their space from the beginning (default: thin)",
            },
        )

    async def close(self) -> None:
        """Volumes that are active stay so: QEMU has them open."""

    def group(self, sr: str) -> Group:
        return self.groups.setdefault(sr, Group(sr, self.run, self.nodes))

    def attached(self, handle: Handle) -> Group:
        try:
            return self.groups[self.handles[handle][1]]
        except KeyError:
            raise backend_failure(Failure.SR_UNAVAILABLE, f"not attached: {handle}") from None

    def at(self, uri: str, host: str) -> tuple[Group, str]:
        """The attached SR and the key that a disk's URI stands for."""
        sr, _, key = uri.removeprefix("lvm://").partition("/")
        return self.attached(handle_of(host, sr)), key


def handle_of(host: str, sr: str) -> Handle:
    return Handle(f"{host} {sr}")


class _Sr(SrSkeleton):
    def __init__(self, plugin: LvmPlugin) -> None:
        self._plugin = plugin

    async def probe(self, configuration: dict[str, str]) -> list[Probed]:
        devices = devices_of(configuration)
        output = await self._plugin.run(commands.list_devices(devices))
        found: dict[str, str] = {}
        if not output.status:
            found = parsed(commands.parse_devices, output.stdout)
        elif "device not found" in output.stderr:
            raise backend_failure(Failure.NO_SUCH_DEVICE, f"there is no device {', '.join(devices)}", output.words)
        elif "Failed to find physical volume" not in output.stderr:
            raise plugin_failed("LVM cannot look at its devices", output.words)
        srs = {commands.sr_of(group) for group in found.values()} - {""}
        there = [Probed(configuration=configuration, uuid=sr) for sr in sorted(srs)]
        return there if any(found.values()) else [Probed(configuration=configuration, uuid="")]

    async def create(self, uuid: str, configuration: dict[str, str], name: str, description: str) -> dict[str, str]:
        devices, thin = devices_of(configuration), thin_of(configuration)
        group = self._plugin.group(uuid)
        async with group.lock:
            if await group.find() is None:
                for device in devices:
                    await self._plugin.check(device)
                what = f"cannot create the volume group {group.name}"
                tags = [commands.machine_tag(self._plugin.machine)] if self._plugin.machine else []
                await group.do(commands.create_group(group.name, devices, tags), Failure.LVM_GROUP_CREATE, what)
            if thin and not await group.thin():
                what = f"cannot create a thin pool; with allocation={THICK} there is none"
                await group.do(commands.create_pool(group.name), Failure.LVM_CREATE, what)
                try:
                    await group.do(commands.fail_when_full(group.name), Failure.LVM_CREATE, "the pool stays as it is")
                except ApiError as error:  # an old kernel: writes that find no room hang for a minute first
                    log.warning("SR %s: its pool cannot be told to fail at once when it is full: %s", uuid, error)
        return configuration

    async def attach(self, uuid: str, configuration: dict[str, str], host: str) -> Handle:
        devices_of(configuration)
        group = self._plugin.group(uuid)
        async with group.lock:
            await group.claim(self._plugin.machine)
            await group.begin()
            await group.sweep()
        handle = handle_of(host, uuid)
        self._plugin.handles[handle] = (host, uuid)
        return handle

    async def detach(self, sr: Handle) -> None:
        """The last host of this process deactivates the pool; where that is gone, there is nothing to do."""
        _, uuid = self._plugin.handles.pop(sr, ("", ""))
        if uuid and all(other != uuid for _, other in self._plugin.handles.values()):
            group = self._plugin.group(uuid)
            async with group.lock:
                try:
                    await group.end()
                except ApiError as error:
                    log.warning("SR %s: its pool is left as it is: %s", uuid, error)

    async def destroy(self, sr: Handle) -> None:
        group = self._plugin.attached(sr)
        async with group.lock:
            if await self.ls(sr):
                raise ApiError("SR_NOT_EMPTY")
            listed = await group.do(commands.list_devices([]), Failure.SR_DELETE, "cannot list LVM's devices")
            owners = parsed(commands.parse_devices, listed)
            devices = [device for device, owner in owners.items() if owner == group.name]
            what = f"cannot remove the volume group {group.name}"
            await group.do(commands.remove_group(group.name), Failure.SR_DELETE, what)
            await group.do(commands.free_devices(devices), Failure.SR_DELETE, f"cannot free {', '.join(devices)}")
        self._plugin.handles.pop(sr, None)

    async def stat(self, sr: Handle) -> SrStat:
        return await self._plugin.attached(sr).stat()

    async def ls(self, sr: Handle) -> list[Volume]:
        group = self._plugin.attached(sr)
        return [
            described(group.sr, volume, label)
            for volume in (await group.volumes()).values()
            if (label := volume.label) is not None and not label.draft
        ]


class _Volume(VolumeSkeleton):
    def __init__(self, plugin: LvmPlugin) -> None:
        self._plugin = plugin

    async def create(self, sr: Handle, new: NewVolume, size: int) -> Volume:
        if size <= 0:
            raise backend_failure(Failure.VDI_SIZE, f"a disk of {size} bytes makes no sense")
        group = self._plugin.attached(sr)
        async with group.lock:
            found = await self._earlier(group, new.uuid, "")
            if found is not None:
                extent = (await group.need()).extent
                if found.virtual_size != -(-size // extent) * extent:
                    raise backend_failure(Failure.VDI_EXISTS, f"there is a disk {new.uuid} of another size")
                return found
            label = Label(
                uuid=new.uuid, name=new.name, description=new.description, keys=new.keys, sharable=new.sharable
            )
            return await settle(self._complete(group, label, size))

    async def clone(self, sr: Handle, key: str, new: NewVolume) -> Volume:
        return await self._branch(sr, key, new, writable=True, failure=Failure.VDI_CLONE)

    async def snapshot(self, sr: Handle, key: str, new: NewVolume) -> Volume:
        return await self._branch(sr, key, new, writable=False, failure=Failure.VDI_SNAPSHOT)

    async def copy(self, sr: Handle, key: str, new: NewVolume, report: Report) -> Volume:
        """Through the host, as LVM copies nothing. Both are active meanwhile."""
        group = self._plugin.attached(sr)
        origin = f"copy:{key}"
        async with group.lock:
            found = await self._earlier(group, new.uuid, origin)
            if found is not None:
                return found
            source = await group.disk(key)
            label = _derived(source, new, origin)
            draft = _DRAFT + new.uuid
            if draft in await group.volumes():
                await group.remove(draft)
            target = await group.add(draft, msgspec.structs.replace(label, draft=True), source.size)
        try:
            await self._convert(group, source, target)
        except BaseException:
            await settle(group.remove(target.name))
            raise
        async with group.lock:
            await settle(group.replace(commands.volume_name(new.uuid), target.name))
        await report(1.0)
        return await self.stat(sr, new.uuid)

    async def destroy(self, sr: Handle, key: str) -> None:
        group = self._plugin.attached(sr)
        async with group.lock:
            volume = await group.disk(key)
            self._refuse_holders(sr, volume, writers_only=False)
            await group.remove(volume.name)

    async def resize(self, sr: Handle, key: str, size: int) -> Volume:
        group = self._plugin.attached(sr)
        async with group.lock:
            volume = await group.disk(key)
            if not volume.writable:
                raise ApiError("VDI_READONLY", key)
            extent = (await group.need()).extent
            size = -(-size // extent) * extent
            if size < volume.size:
                raise backend_failure(Failure.VDI_SIZE, f"a disk cannot shrink: it has {volume.size} bytes")
            self._refuse_holders(sr, volume, writers_only=False)
            if size > volume.size:
                await settle(group.grow(volume, size))
        return await self.stat(sr, key)

    async def stat(self, sr: Handle, key: str) -> Volume:
        group = self._plugin.attached(sr)
        return _described(group, await group.disk(key))

    async def describe(self, sr: Handle, key: str, name: str | None, description: str | None) -> None:
        def change(label: Label) -> Label:
            return msgspec.structs.replace(
                label,
                name=label.name if name is None else name,
                description=label.description if description is None else description,
            )

        await self._relabel(sr, key, change)

    async def set(self, sr: Handle, key: str, keys: dict[str, str | None]) -> None:
        def change(label: Label) -> Label:
            kept = {name: value for name, value in (label.keys | keys).items() if value is not None}
            return msgspec.structs.replace(label, keys=kept)

        await self._relabel(sr, key, change)

    async def revert(self, sr: Handle, snapshot: str, key: str) -> Volume:
        """A branch of the snapshot takes the disk's place. Its label says so, so that a crash does not matter."""
        group = self._plugin.attached(sr)
        async with group.lock:
            source, target = await group.disk(snapshot), await group.disk(key)
            if not source.thin:
                raise Unimplemented("Volume.revert of thick volumes")
            self._refuse_holders(sr, target, writers_only=False)
            label, draft = _label(target), f"{_DRAFT}{key}"
            if draft in await group.volumes():
                await group.remove(draft)
            replacing = msgspec.structs.replace(label, draft=True, replaces=target.name)
            await settle(self._replace(group, source, target, draft, replacing))
        return await self.stat(sr, key)

    async def _replace(
        self, group: Group, source: LogicalVolume, target: LogicalVolume, draft: str, label: Label
    ) -> None:
        await group.branch(source, draft, label, writable=True, failure=Failure.VDI_SNAPSHOT)
        await group.replace(target.name, draft)

    async def _branch(self, sr: Handle, key: str, new: NewVolume, writable: bool, failure: Failure) -> Volume:
        group = self._plugin.attached(sr)
        origin = f"{failure.name}:{key}"
        async with group.lock:
            found = await self._earlier(group, new.uuid, origin)
            if found is not None:
                return found
            source = await group.disk(key)
            if not source.thin:
                raise Unimplemented("Volume.clone and Volume.snapshot of thick volumes")
            self._refuse_holders(sr, source, writers_only=True)
            name = commands.volume_name(new.uuid)
            await settle(group.branch(source, name, _derived(source, new, origin), writable, failure))
            return _described(group, await group.disk(new.uuid))

    async def _complete(self, group: Group, label: Label, size: int) -> Volume:
        """A volume that has to be cleared first is a draft until then."""
        if await group.thin():
            return described(group.sr, await group.add(commands.volume_name(label.uuid), label, size), label)
        draft = _DRAFT + label.uuid
        if draft in await group.volumes():
            await group.remove(draft)
        await group.add(draft, msgspec.structs.replace(label, draft=True), size)
        await group.replace(commands.volume_name(label.uuid), draft)
        return _described(group, await group.disk(label.uuid))

    async def _convert(self, group: Group, source: LogicalVolume, target: LogicalVolume) -> None:
        try:
            await group.activate(source)
            await group.activate(target)
            paths = (str(group.path(source)), str(group.path(target)))
            command = ["qemu-img", "convert", "-n", "--target-is-zero", "-f", "raw", "-O", "raw", *paths]
            await group.do(command, Failure.VDI_CLONE, f"cannot copy the volume {source.name}")
        finally:
            await settle(self._deactivate(group, [target.name, source.name]))

    async def _deactivate(self, group: Group, names: list[str]) -> None:
        """But what a datapath has."""
        async with group.lock:
            volumes = await group.volumes()
            for name in names:
                if name in volumes and not volumes[name].holders:
                    await group.deactivate(volumes[name])

    async def _relabel(self, sr: Handle, key: str, change: Callable[[Label], Label]) -> None:
        group = self._plugin.attached(sr)
        async with group.lock:
            volume = await group.disk(key)
            await group.relabel(volume, change(_label(volume)))

    async def _earlier(self, group: Group, uuid: str, origin: str) -> Volume | None:
        """The disk that an earlier run of the same request made. Raises SR_BACKEND_FAILURE_43 if it is another one."""
        found = (await group.volumes()).get(commands.volume_name(uuid))
        if found is None:
            return None
        if found.label is None or found.label.origin != origin:
            raise backend_failure(Failure.VDI_EXISTS, f"there is a disk {uuid} already")
        return _described(group, found)

    def _refuse_holders(self, sr: Handle, volume: LogicalVolume, writers_only: bool) -> None:
        """Hosts that are not this one. What this host itself has open, the service knows."""
        host = self._plugin.handles[sr][0]
        for holder in volume.holders:
            if holder.host != host and (holder.writable or not writers_only):
                raise ActivatedOnAnotherHost(holder.host, holder.dp)


class _Datapath(DatapathSkeleton):
    def __init__(self, plugin: LvmPlugin) -> None:
        self._plugin = plugin

    async def attach(self, uri: str, domain: Domain) -> Implementation:
        """The node is there once it is activated."""
        group, key = self._plugin.at(uri, domain.host)
        return Implementation(kind="block", path=str(group.path(await group.disk(key))), format="raw")

    async def activate(self, uri: str, domain: Domain) -> None:
        """Raises VDI_READONLY."""
        await self._activate(uri, domain, writable=True)

    async def activate_readonly(self, uri: str, domain: Domain) -> None:
        await self._activate(uri, domain, writable=False)

    async def deactivate(self, uri: str, domain: Domain) -> None:
        """The node first: a tag without it does no harm."""
        group, key = self._plugin.at(uri, domain.host)
        async with group.lock:
            volume = (await group.volumes()).get(commands.volume_name(key))
            if volume is None:
                return
            others = [holder for holder in volume.holders if holder.host != domain.host]
            if not others:
                await group.deactivate(volume)
            await group.hold(volume, others)

    async def detach(self, uri: str, domain: Domain) -> None:
        """Nothing to let go of."""

    async def held(self, sr: Handle) -> list[Held]:
        group, host = self._plugin.attached(sr), self._plugin.handles[sr][0]
        return [
            Held(key=key, uri=f"lvm://{group.sr}/{key}", dp=holder.dp, writable=holder.writable)
            for name, volume in (await group.volumes()).items()
            for holder in volume.holders
            if holder.host == host and (key := name.removeprefix(commands.VOLUME_PREFIX))
        ]

    async def fence(self, sr: Handle, host: str) -> int:
        group, count = self._plugin.attached(sr), 0
        async with group.lock:
            for volume in (await group.volumes()).values():
                kept = [holder for holder in volume.holders if holder.host != host]
                if len(kept) < len(volume.holders):
                    await group.hold(volume, kept)
                    count += len(volume.holders) - len(kept)
        return count

    async def _activate(self, uri: str, domain: Domain, writable: bool) -> None:
        group, key = self._plugin.at(uri, domain.host)
        async with group.lock:
            volume = await group.disk(key)
            if writable and not volume.writable:
                raise ApiError("VDI_READONLY", key)
            if _label(volume).unclear and not volume.holders:
                await group.clear(volume)
                volume = await group.disk(key)
            other = commands.foreign(volume.holders, domain, writable)
            if other is not None and not _label(volume).sharable:
                raise ActivatedOnAnotherHost(other.host, other.dp)
            mine = Holder(host=domain.host, dp=domain.dp, writable=writable)
            others = [holder for holder in volume.holders if holder.host != domain.host]
            await group.hold(volume, [*others, mine])
            await group.activate(volume)


def _this_machine() -> str:
    """Containers of one machine may have names of their own; they do not share its devices."""
    try:
        return _MACHINE_ID.read_text().strip()
    except OSError:
        return ""


def _label(volume: LogicalVolume) -> Label:
    label = volume.label
    if label is None:
        raise backend_failure(Failure.VDI_LOAD, f"the volume {volume.name} has no label")
    return label


def _described(group: Group, volume: LogicalVolume) -> Volume:
    return described(group.sr, volume, _label(volume))


def _derived(source: LogicalVolume, new: NewVolume, origin: str) -> Label:
    label = _label(source)
    return Label(
        uuid=new.uuid,
        name=new.name or label.name,
        description=new.description or label.description,
        keys=new.keys or label.keys,
        origin=origin,
        sharable=label.sharable,
    )
