"""Disks of a driver."""

from __future__ import annotations

import base64
import binascii
import hashlib
import uuid as uuids
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from services.storage.plugins.errors import Failure, backend_failure, plugin_failed
from services.storage.plugins.interface import Changed, Handle, NewVolume, Report, Unimplemented, Volume
from services.storage.plugins.skeleton import VolumeSkeleton
from services.storage.smapiv1.call import struct, text
from services.storage.smapiv1.rows import CONTENT_ID, similar

if TYPE_CHECKING:
    from services.storage.smapiv1.plugin import Attached, DriverPlugin

EPOCH = "19700101T00:00:00Z"
_SM_CONFIG = "_sm_config_"
_KEPT = ("base_mirror",)
"""Keys of `sm_config` that a snapshot or clone has from who asked for it."""
NO_CONTENT = "/No content: this is a cbt_metadata VDI/"
GRANULARITY = 65536
"""Bytes of a block of the bitmaps that drivers keep (storage 5.6)."""


class VolumeGroup(VolumeSkeleton):
    def __init__(self, plugin: DriverPlugin) -> None:
        self._plugin = plugin

    async def create(self, sr: Handle, new: NewVolume, size: int) -> Volume:
        """The driver chooses the uuid, but for the disk of the pool's metadata, whose uuid derives from the SR's."""
        at = self._plugin.of(sr)
        is_backup = new.uuid == str(uuids.UUID(bytes=hashlib.md5(at.uuid.encode(), usedforsecurity=False).digest()))
        facts = new.keys
        made = await at.host.sr_call(
            self._plugin.program,
            at.sr,
            "vdi_create",
            _bytes(size),
            new.name,
            new.description,
            facts.get("metadata_of_pool", ""),
            "true" if facts.get("is_a_snapshot") == "true" else "false",
            facts.get("snapshot_time", "") or EPOCH,
            facts.get("snapshot_of", ""),
            "true" if new.read_only else "false",
            members={
                "vdi_type": facts.get("vdi-type", "user"),
                "vdi_sm_config": _sm_config(facts),
                **({"vdi_uuid": new.uuid} if is_backup else {}),
            },
        )
        volume = await self._made(at, "vdi_create", made)
        if volume.virtual_size < size:
            raise plugin_failed("Disk too small", f"{size} bytes were asked for, it has {volume.virtual_size}")
        return volume

    async def clone(self, sr: Handle, key: str, new: NewVolume) -> Volume:
        return await self._branch(sr, key, new, "vdi_clone")

    async def snapshot(self, sr: Handle, key: str, new: NewVolume) -> Volume:
        return await self._branch(sr, key, new, "vdi_snapshot")

    async def copy(self, sr: Handle, key: str, new: NewVolume, report: Report) -> Volume:
        raise Unimplemented("vdi_copy")

    async def destroy(self, sr: Handle, key: str) -> None:
        await self._ask(self._plugin.of(sr), key, "vdi_delete")

    async def resize(self, sr: Handle, key: str, size: int) -> Volume:
        at = self._plugin.of(sr)
        return await self._made(at, "vdi_resize", await self._ask(at, key, "vdi_resize", _bytes(size)))

    async def stat(self, sr: Handle, key: str) -> Volume:
        """As the driver last said."""
        return await self._plugin.find(self._plugin.of(sr), key)

    async def update(self, sr: Handle, key: str) -> Volume:
        at = self._plugin.of(sr)
        await self._ask(at, key, "vdi_update")
        return await self._plugin.find(at, key)

    async def introduce(self, sr: Handle, uuid: str, key: str, keys: dict[str, str]) -> Volume:
        at = self._plugin.of(sr)
        members = {"vdi_location": key, "new_uuid": uuid, "vdi_sm_config": _sm_config(keys)}
        made = await at.host.sr_call(self._plugin.program, at.sr, "vdi_introduce", location=key, members=members)
        return await self._made(at, "vdi_introduce", made)

    async def describe(self, sr: Handle, key: str, name: str | None, description: str | None) -> None:
        """The driver reads the names in the row, and may keep them elsewhere, too."""
        at = self._plugin.of(sr)
        ref, _ = await at.host.disk(at.sr, at.uuid, key)
        for field, value in (("name_label", name), ("name_description", description)):
            if value is not None:
                await at.host.xapi.call(at.sr, f"VDI.set_{field}", ref, value)
        if self._plugin.can("VDI_UPDATE"):
            await self._ask(at, key, "vdi_update")

    async def set(self, sr: Handle, key: str, keys: dict[str, str | None]) -> None:
        """Of what others may change, only the identity of the content is the adapter's to write."""
        at = self._plugin.of(sr)
        if CONTENT_ID in keys:
            ref, _ = await at.host.disk(at.sr, at.uuid, key)
            await set_content_id(at, ref, keys[CONTENT_ID])

    async def revert(self, sr: Handle, snapshot: str, key: str) -> Volume:
        """Drivers take the snapshot for the disk that the call is about."""
        at = self._plugin.of(sr)
        ref, _ = await at.host.disk(at.sr, at.uuid, key)
        await self._ask(at, snapshot, "vdi_revert", ref)
        return await self._plugin.find(at, key)

    async def compose(self, sr: Handle, child: str, parent: str) -> None:
        at = self._plugin.of(sr)
        ref, _ = await at.host.disk(at.sr, at.uuid, parent)
        await self._ask(at, child, "vdi_compose", ref)

    async def similar_content(self, sr: Handle, key: str) -> list[Volume]:
        at = self._plugin.of(sr)
        rows = {row["location"]: row for row in (await at.host.disks(at.sr)).values()}
        volumes = {volume.key: volume for volume in await self._plugin.volumes(at)}
        return [volumes[location] for location in similar(key, rows) if location in volumes]

    async def enable_cbt(self, sr: Handle, key: str) -> None:
        await self._ask(self._plugin.of(sr), key, "vdi_enable_cbt")

    async def disable_cbt(self, sr: Handle, key: str) -> None:
        await self._ask(self._plugin.of(sr), key, "vdi_disable_cbt")

    async def data_destroy(self, sr: Handle, key: str) -> None:
        at = self._plugin.of(sr)
        await self._ask(at, key, "vdi_data_destroy")
        ref, _ = await at.host.disk(at.sr, at.uuid, key)
        await set_content_id(at, ref, NO_CONTENT)

    async def changed_blocks(self, sr: Handle, key: str, later: str) -> Changed:
        at = self._plugin.of(sr)
        ref, _ = await at.host.disk(at.sr, at.uuid, later)
        command = "vdi_list_changed_blocks"
        said = text(command, await self._ask(at, key, command, ref))
        try:
            return Changed(granularity=GRANULARITY, bitmap=base64.b64decode(said, validate=True))
        except binascii.Error as error:
            raise plugin_failed(f"{command}: the driver's answer is not base64", error) from None

    async def generate_config(self, sr: Handle, key: str) -> str:
        command = "vdi_generate_config"
        return text(command, await self._ask(self._plugin.of(sr), key, command))

    async def epoch(self, sr: Handle, key: str, vm: str, begin: bool, persistent: bool) -> None:
        """The driver sees in the row whether the disk forgets."""
        if not self._plugin.can("VDI_RESET_ON_BOOT"):
            raise Unimplemented("vdi_epoch_begin")
        await self._ask(self._plugin.of(sr), key, "vdi_epoch_begin" if begin else "vdi_epoch_end")

    async def set_persistent(self, sr: Handle, key: str, persistent: bool) -> None:
        """A disk that is to forget gets an empty leaf: what a clone that is deleted at once leaves behind."""
        if persistent:
            return
        at = self._plugin.of(sr)
        made = await self._ask(at, key, "vdi_clone", driver_params={})
        clone = struct("vdi_clone", made, "uuid", "location")["location"]
        await self._ask(at, clone, "vdi_delete")

    async def _branch(self, sr: Handle, key: str, new: NewVolume, command: str) -> Volume:
        at = self._plugin.of(sr)
        _, source = await at.host.disk(at.sr, at.uuid, key)
        made = await self._ask(at, key, command, driver_params=dict(new.params))
        location = struct(command, made, "uuid", "location")["location"]
        ref, _ = await at.host.disk(at.sr, at.uuid, location)

        async def write(field: str, value: Any) -> None:
            await at.host.xapi.call(at.sr, f"VDI.set_{field}", ref, value)

        await write("name_label", new.name or source["name_label"])
        await write("name_description", new.description or source["name_description"])
        await write("snapshot_time", datetime.now(UTC).strftime("%Y%m%dT%H:%M:%SZ"))
        await write("is_a_snapshot", command == "vdi_snapshot")
        await set_content_id(at, ref, source["other_config"].get(CONTENT_ID) or str(uuids.uuid4()))
        for name in _KEPT:
            if name in new.params:
                await at.host.xapi.call(at.sr, "VDI.remove_from_sm_config", ref, name)
                await at.host.xapi.call(at.sr, "VDI.add_to_sm_config", ref, name, new.params[name])
        if self._plugin.can("VDI_UPDATE"):
            await self._ask(at, location, "vdi_update")
        return await self._plugin.find(at, location)

    async def _ask(self, at: Attached, key: str, command: str, *args: str, **members: Any) -> Any:
        return await at.host.vdi_call(self._plugin.program, at.sr, at.uuid, key, command, *args, **members)

    async def _made(self, at: Attached, command: str, answer: Any) -> Volume:
        """The row that the driver has written, found by the uuid that it names."""
        said = struct(command, answer, "uuid", "location")
        for volume in await self._plugin.volumes(at):
            if volume.uuid == said["uuid"]:
                return volume
        raise backend_failure(Failure.VDI_LOAD, f"{command}: the driver has written no row for {said['uuid']}")


async def set_content_id(at: Attached, ref: str, value: str | None) -> None:
    await at.host.xapi.call(at.sr, "VDI.remove_from_other_config", ref, CONTENT_ID)
    if value is not None:
        await at.host.xapi.call(at.sr, "VDI.add_to_other_config", ref, CONTENT_ID, value)


def _bytes(size: int) -> str:
    """Sizes are unsigned to drivers: what is negative is more than any of them has."""
    return str(size % 2**64)


def _sm_config(keys: dict[str, str]) -> dict[str, str]:
    return {key.removeprefix(_SM_CONFIG): value for key, value in keys.items() if key.startswith(_SM_CONFIG)}
