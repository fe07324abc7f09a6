"""Volumes: the group of methods on disks, by the scripts of a volume plug-in.

SMAPIv3 makes a volume and describes it in several calls, and does not know who asked. So what was asked for and what is
still to be said is kept (`state.Made`) from the moment there is a volume: a request that is repeated finds it, and what
was interrupted is completed when the SR is attached again.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import logging
from collections.abc import Awaitable, Callable, Coroutine
from datetime import UTC, datetime

import msgspec

from services.storage.plugins.errors import Failure, backend_failure, plugin_failed
from services.storage.plugins.interface import (
    ActivatedOnAnotherHost,
    Changed,
    Handle,
    NewVolume,
    Range,
    Report,
    Unimplemented,
    Volume,
)
from services.storage.plugins.skeleton import VolumeSkeleton
from services.storage.settle import settle
from services.storage.smapiv3 import interface_v5 as v5
from services.storage.smapiv3 import metadata
from services.storage.smapiv3.attached import AttachedSrs, Sr
from services.storage.smapiv3.datapaths import DatapathMethods
from services.storage.smapiv3.interface_v5 import VolumeRecord
from services.storage.smapiv3.metadata import CLONE_ON_BOOT
from services.storage.smapiv3.query import NONPERSISTENT
from services.storage.smapiv3.state import Made
from shared.errors import ApiError

log = logging.getLogger("storage.smapiv3")

UNDO_WITHIN = 30.0
"""Seconds."""
_ALL = -1
"""Length of an extent that goes up to the end."""


class VolumeMethods(VolumeSkeleton):
    def __init__(self, srs: AttachedSrs, datapath: DatapathMethods) -> None:
        self._srs, self._datapath = srs, datapath
        self._state = srs.state

    async def create(self, sr: Handle, new: NewVolume, size: int) -> Volume:
        found = self._srs.find(sr)
        return await self._make(
            found,
            new.uuid,
            f"create:{size}",
            lambda: found.calls(v5.Volume.create, found.handle, new.name, new.description, size, new.sharable),
            new.keys,
        )

    async def clone(self, sr: Handle, key: str, new: NewVolume) -> Volume:
        found, source = await self._source(sr, key)
        made = await self._make(
            found,
            new.uuid,
            f"clone:{key}",
            lambda: found.calls(v5.Volume.clone, found.handle, key),
            new.keys or metadata.inherited(source),
        )
        return await self._renamed(found, made, new)

    async def snapshot(self, sr: Handle, key: str, new: NewVolume) -> Volume:
        found, source = await self._source(sr, key)
        made = await self._make(
            found,
            new.uuid,
            f"snapshot:{key}",
            lambda: found.calls(v5.Volume.snapshot, found.handle, key),
            metadata.of_snapshot(source, datetime.now(UTC)) | new.keys,
        )
        return await self._renamed(found, made, new)

    async def copy(self, sr: Handle, key: str, new: NewVolume, report: Report) -> Volume:
        found, source = await self._source(sr, key)
        made = await self._make(
            found,
            new.uuid,
            f"copy:{key}",
            lambda: found.calls(v5.Volume.copy, found.handle, key, dest_sr=found.handle),
            new.keys or metadata.inherited(source),
        )
        await report(1.0)
        return await self._renamed(found, made, new)

    async def destroy(self, sr: Handle, key: str) -> None:
        found, record = await self._source(sr, key)
        if CLONE_ON_BOOT in record.keys:
            await self._destroy_temporary(found, record.keys[CLONE_ON_BOOT])
        await found.calls(v5.Volume.destroy, found.handle, key)
        await self._state.unmake(found.uuid, key)

    async def resize(self, sr: Handle, key: str, size: int) -> Volume:
        found = self._srs.find(sr)
        await found.calls(v5.Volume.resize, found.handle, key, size)
        return await self.stat(sr, key)

    async def stat(self, sr: Handle, key: str) -> Volume:
        """Its data is where the run of a VM writes to, if there is one that is not to be remembered."""
        found, record = await self._source(sr, key)
        data = record
        if CLONE_ON_BOOT in record.keys:
            data = await self._record(found, record.keys[CLONE_ON_BOOT])
        return metadata.volume(found.uuid, record, self._srs.schemes.ordered(data.uri))

    async def describe(self, sr: Handle, key: str, name: str | None, description: str | None) -> None:
        found = self._srs.find(sr)
        if name is not None:
            await found.calls(v5.Volume.set_name, found.handle, key, name)
        if description is not None:
            await found.calls(v5.Volume.set_description, found.handle, key, description)

    async def set(self, sr: Handle, key: str, keys: dict[str, str | None]) -> None:
        found = self._srs.find(sr)
        for name, value in keys.items():
            await self._set(found, key, name, value)

    async def revert(self, sr: Handle, snapshot: str, key: str) -> Volume:
        found = self._srs.find(sr)
        await found.calls(v5.Volume.revert, found.handle, snapshot, key)
        return await self.stat(sr, key)

    async def compose(self, sr: Handle, child: str, parent: str) -> None:
        found = self._srs.find(sr)
        await found.calls(v5.Volume.compose, found.handle, child, parent)

    async def similar_content(self, sr: Handle, key: str) -> list[Volume]:
        found = self._srs.find(sr)
        similar = await found.calls(v5.Volume.similar_content, found.handle, key)
        listed = {each.key: each for each in await found.calls(v5.SR.ls, found.handle)}
        return [self._volume(found, listed[each]) for each in similar if each in listed]

    async def compare(self, sr: Handle, key: str, base: str) -> list[Range]:
        found = self._srs.find(sr)
        blocks = await found.calls(v5.Volume.compare, found.handle, key, base)
        return sorted(Range(first * blocks.blocksize, count * blocks.blocksize) for first, count in blocks.ranges)

    async def enable_cbt(self, sr: Handle, key: str) -> None:
        found = self._srs.find(sr)
        await found.calls(v5.Volume.enable_cbt, found.handle, key)

    async def disable_cbt(self, sr: Handle, key: str) -> None:
        found = self._srs.find(sr)
        await found.calls(v5.Volume.disable_cbt, found.handle, key)

    async def data_destroy(self, sr: Handle, key: str) -> None:
        found = self._srs.find(sr)
        await found.calls(v5.Volume.data_destroy, found.handle, key)
        await self._set(found, key, metadata.TYPE, "cbt_metadata")

    async def changed_blocks(self, sr: Handle, key: str, later: str) -> Changed:
        found = self._srs.find(sr)
        changed = await found.calls(v5.Volume.list_changed_blocks, found.handle, key, later, 0, _ALL)
        try:
            return Changed(granularity=changed.granularity, bitmap=base64.b64decode(changed.bitmap, validate=True))
        except binascii.Error as error:
            raise plugin_failed(f"Volume.list_changed_blocks returned no base64: {error}") from error

    # -- disks that forget at each run of a VM what the last one wrote -----------------------------------------------

    async def epoch(self, sr: Handle, key: str, vm: str, begin: bool, persistent: bool) -> None:
        """By the datapath plug-in if it can; otherwise the run writes to a clone that is destroyed afterwards."""
        found, record = await self._source(sr, key)
        uri = self._srs.schemes.choose(record.uri, persistent)
        if self._srs.schemes.has(uri, NONPERSISTENT):
            if begin:
                await self._datapath.open(uri, found.host, persistent)
            else:
                await self._datapath.close(uri, found.host)
            return
        if CLONE_ON_BOOT in record.keys:
            await self._destroy_temporary(found, record.keys[CLONE_ON_BOOT])
        if begin and not persistent:
            await self._clone_for_run(found, key)
        elif CLONE_ON_BOOT in record.keys:
            await found.calls(v5.Volume.unset, found.handle, key, CLONE_ON_BOOT)

    async def _clone_for_run(self, sr: Sr, key: str) -> None:
        clone = await sr.calls(v5.Volume.clone, sr.handle, key)
        try:
            await self._state.add_temporary(sr.uuid, clone.key, key)
            await sr.calls(v5.Volume.set, sr.handle, key, CLONE_ON_BOOT, clone.key)
        except (ApiError, Unimplemented, asyncio.CancelledError):
            await settle(self._undo(sr, clone.key, self._destroy_temporary(sr, clone.key)))
            raise
        await self._state.forget_temporary(sr.uuid, clone.key)

    async def _destroy_temporary(self, sr: Sr, key: str) -> None:
        """Also one that an interrupted call has destroyed already."""
        try:
            await sr.calls(v5.Volume.destroy, sr.handle, key)
        except ApiError as error:
            if error.code != "VDI_MISSING":
                raise
        await self._state.forget_temporary(sr.uuid, key)

    # -- after a crash ----------------------------------------------------------------------------------------------

    async def recover(self, sr: Handle) -> None:
        """Completes what was interrupted; what still cannot be is left for the next time."""
        found = self._srs.find(sr)
        for clone, of in self._state.temporaries(found.uuid).items():
            try:
                if (await self._record(found, of)).keys.get(CLONE_ON_BOOT) == clone:
                    await self._state.forget_temporary(found.uuid, clone)
                else:
                    await self._destroy_temporary(found, clone)
            except (ApiError, Unimplemented) as error:
                log.warning("SR %s: the clone %s of %s stays: %s", found.uuid, clone, of, error)
        for request, made in self._state.unfinished(found.uuid).items():
            try:
                await self._complete(found, request, made)
            except (ApiError, Unimplemented) as error:
                log.warning("SR %s: volume %s lacks %s: %s", found.uuid, made.key, list(made.pending), error)

    # -- making volumes ---------------------------------------------------------------------------------------------

    async def _make(
        self, sr: Sr, request: str, origin: str, make: Callable[[], Awaitable[VolumeRecord]], keys: dict[str, str]
    ) -> Volume:
        """Raises SR_BACKEND_FAILURE_43 where the request made something else before."""
        earlier = self._state.made(sr.uuid, request)
        if earlier is not None:
            if earlier.origin != origin:
                raise backend_failure(Failure.VDI_EXISTS, f"{request} was asked for already, and not the same")
            try:
                record = await self._record(sr, earlier.key)
            except ApiError as error:
                if error.code != "VDI_MISSING":
                    raise
                await self._state.unmake(sr.uuid, earlier.key)
            else:
                return self._volume(sr, record, await self._complete(sr, request, earlier))
        record = await make()
        made = Made(key=record.key, origin=origin, pending=keys)
        try:
            await self._state.make(sr.uuid, request, made)
            return self._volume(sr, record, await self._complete(sr, request, made))
        except (ApiError, asyncio.CancelledError):
            await settle(self._undo(sr, made.key, self._unmake(sr, made.key)))
            raise

    async def _unmake(self, sr: Sr, key: str) -> None:
        await sr.calls(v5.Volume.destroy, sr.handle, key)
        await self._state.unmake(sr.uuid, key)

    async def _undo(self, sr: Sr, key: str, work: Coroutine[object, object, None]) -> None:
        """Removes a volume that was made for what then failed or was cancelled; who cancels does not wait for ever."""
        try:
            async with asyncio.timeout(UNDO_WITHIN):
                await work
        except (ApiError, Unimplemented, ActivatedOnAnotherHost, TimeoutError) as error:
            log.error("SR %s: volume %s, which nobody wants, stays: %s", sr.uuid, key, error or "it takes too long")

    async def _complete(self, sr: Sr, request: str, made: Made) -> dict[str, str]:
        """Says what is still to be said of a volume; returns what was."""
        for name, value in made.pending.items():
            try:
                await self._set(sr, made.key, name, value)
            except Unimplemented as error:
                log.warning("SR %s: only the database knows %s of volume %s: %s", sr.uuid, name, made.key, error)
                break
        if made.pending:
            await self._state.make(sr.uuid, request, Made(key=made.key, origin=made.origin))
        return made.pending

    async def _set(self, sr: Sr, key: str, name: str, value: str | None) -> None:
        if value is None:
            await sr.calls(v5.Volume.unset, sr.handle, key, name)
        else:
            await sr.calls(v5.Volume.set, sr.handle, key, name, value)

    async def _renamed(self, sr: Sr, made: Volume, new: NewVolume) -> Volume:
        """The plug-in has given it its source's name."""
        name, description = new.name or made.name, new.description or made.description
        if (name, description) == (made.name, made.description):
            return made
        try:
            if name != made.name:
                await sr.calls(v5.Volume.set_name, sr.handle, made.key, name)
            if description != made.description:
                await sr.calls(v5.Volume.set_description, sr.handle, made.key, description)
        except Unimplemented as error:
            log.info("SR %s: only the database knows what volume %s is called: %s", sr.uuid, made.key, error)
        return msgspec.structs.replace(made, name=name, description=description)

    # -- looking ----------------------------------------------------------------------------------------------------

    async def _source(self, sr: Handle, key: str) -> tuple[Sr, VolumeRecord]:
        found = self._srs.find(sr)
        return found, await self._record(found, key)

    async def _record(self, sr: Sr, key: str) -> VolumeRecord:
        return await sr.calls(v5.Volume.stat, sr.handle, key)

    def _volume(self, sr: Sr, record: VolumeRecord, keys: dict[str, str] | None = None) -> Volume:
        return metadata.volume(sr.uuid, record, self._srs.schemes.ordered(record.uri), keys)
