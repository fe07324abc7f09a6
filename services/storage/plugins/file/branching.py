"""How a disk is given a new image to write to, while its content stays below: also while a guest writes to it.

Snapshots, clones, resets and tracking all need the disk's content frozen in an image that nobody writes to. The order
of steps is such that a crash anywhere leaves every disk with its content:

1. a new empty image over the present one, hidden: nobody's yet;
2. the disk's sidecar names it, which changes nothing of what the disk reads;
3. the hypervisor, if one has the disk open, is told to continue in it.

Between 2 and 3 a hypervisor still writes below, which is as good: nothing is recorded there. `align` brings it to where
the record is, and only when it is there is the lower image handed to anybody else. If it ends before that, whoever
opens the disk next begins with the new image. So no intent has to be kept: the sidecar is the intent.
"""

from __future__ import annotations

import asyncio
import logging
import uuid
from pathlib import Path

import msgspec

from services.storage.live import Live
from services.storage.plugins.errors import Failure, backend_failure, in_use, sr_full
from services.storage.plugins.file import qcow2
from services.storage.plugins.file.attached import Attached
from services.storage.plugins.file.folder import SUFFIX, Sidecar, paused_note
from shared.errors import ApiError

log = logging.getLogger("storage.file")

MAX_DEPTH = 100
"""Images above one another. Each is a file that QEMU keeps open."""

VMS = "vbd/"
"""Prefix of the datapaths of VMs; nobody else's images are opened by a hypervisor."""

_BUSY_RETRIES = 20
_RESUME_LOOKS = 100
_BUSY_PAUSE = 0.05
"""Seconds; a block job that was told to stop needs a moment."""


class Branching:
    def __init__(self, live: Live) -> None:
        self._live = live

    async def freeze(self, sr: Attached, key: str, failure: Failure) -> str:
        """The name of an image that has what the disk holds now, and that nobody writes to. The caller holds the SR's
        and the disk's guard.

        Raises `ActivatedOnAnotherHost`, VDI_IN_USE when it is activated by who cannot be told, SR_FULL,
        SR_BACKEND_FAILURE_109.
        """
        folder = sr.folder
        side = await sr.run(folder.disk, key)
        chain = await sr.run(folder.chain, key)
        if side.read_only:
            return chain[0]
        writer = await sr.writer_here(key)
        if writer is not None:
            await sr.quiet(chain)
            chain = await self.align(sr, key, writer.dp, failure)
        elif len(chain) > 1 and await sr.run(folder.adds_nothing, chain[0]) and await sr.run(_is_ours, sr, chain[1]):
            return chain[1]
        if len(chain) >= MAX_DEPTH:
            raise backend_failure(Failure.CHAIN_TOO_LONG, f"the disk {key} is {len(chain)} images deep; copy it")
        overlay = await self.overlay(sr, chain[0])
        await sr.run(folder.write_sidecar, key, msgspec.structs.replace(side, image=overlay))
        if writer is not None:
            try:
                await self._switch(sr, key, writer.dp, overlay)
            except BaseException:
                await self._take_back(sr, key, writer.dp, side, overlay)
                raise
        return chain[0]

    async def align(self, sr: Attached, key: str, dp: str, failure: Failure) -> list[str]:
        """The images of a disk that this host's hypervisor has open as its record says; if it was not told of the last
        one, it is told now. Raises VDI_IN_USE when its idea is another one, or when it has nothing open.
        """
        folder = sr.folder
        recorded = await sr.run(folder.chain, key)
        actual = await self._opened(sr, dp)
        if actual and actual == recorded[1:] and await sr.run(folder.adds_nothing, recorded[0]):
            log.warning("disk %s: its hypervisor had not been told of %s", key, recorded[0])
            await self._live.snapshot(folder.host, dp, str(folder.image(recorded[0])))
            actual = recorded
        if actual != recorded:
            log.error("disk %s: %s has %s open, and should have %s", key, dp, actual or "nothing", recorded)
            raise in_use(key, failure.name.removeprefix("VDI_").lower())
        return recorded

    async def _opened(self, sr: Attached, dp: str) -> list[str]:
        """Names of the images that a hypervisor has open; one that is being resumed is waited for."""
        if not dp.startswith(VMS):
            return []
        for _ in range(_RESUME_LOOKS):
            opened = (await self._live.chain(sr.folder.host, dp)).images
            if opened or not await sr.run(paused_note(sr.folder).exists):
                break
            await asyncio.sleep(_BUSY_PAUSE)
        return [Path(image).name.removesuffix(SUFFIX) for image in opened]

    async def overlay(self, sr: Attached, below: str) -> str:
        """A new hidden image over another."""
        folder, name = sr.folder, str(uuid.uuid4())
        size = (await sr.run(folder.header, below)).virtual_size
        hidden = Sidecar(uuid=name, hidden=True, read_only=True, virtual_size=size)
        try:
            await need_room(sr, size)
            await sr.run(folder.write_sidecar, name, hidden)
            await sr.run(qcow2.create, folder.draft(name), size, below + SUFFIX)
            await sr.run(folder.publish, name)
        except BaseException as error:
            await sr.run(_remove, sr, name)
            if isinstance(error, ApiError) and error.code == "SR_FULL":
                raise sr_full(size, await sr.run(folder.room)) from error
            raise
        return name

    async def _switch(self, sr: Attached, key: str, dp: str, overlay: str) -> None:
        """Raises what the hypervisor says, VDI_IN_USE if it has let go of the disk."""
        path = str(sr.folder.image(overlay))
        for _ in range(_BUSY_RETRIES):
            try:
                return await self._live.snapshot(sr.folder.host, dp, path)
            except ApiError as error:
                if error.code == "DEVICE_NOT_ATTACHED":
                    raise in_use(key, "snapshot") from error
                if error.code != "OTHER_OPERATION_IN_PROGRESS":
                    raise
                log.info("disk %s: the hypervisor is not ready for a snapshot: %s", key, error)
            await asyncio.sleep(_BUSY_PAUSE)
        await self._live.snapshot(sr.folder.host, dp, path)

    async def _take_back(self, sr: Attached, key: str, dp: str, before: Sidecar, overlay: str) -> None:
        """The disk goes on without the new image, unless the hypervisor has it, or nobody knows: it does no harm."""
        try:
            opened = (await self._live.chain(sr.folder.host, dp)).images
        except ApiError as error:
            log.warning("disk %s keeps the image %s: what %s has open is not known: %s", key, overlay, dp, error)
            return
        if opened and Path(opened[0]).name != overlay + SUFFIX:
            await sr.run(sr.folder.write_sidecar, key, before)
            await sr.run(sr.folder.collect_garbage)


async def need_room(sr: Attached, size: int) -> None:
    """Raises SR_FULL."""
    if not await sr.run(sr.folder.room):
        raise sr_full(size, 0)


def _is_ours(sr: Attached, name: str) -> bool:
    """An image that somebody put there may be written to as a disk of its own."""
    return sr.folder.sidecar(name).exists()


def _remove(sr: Attached, name: str) -> None:
    for path in (sr.folder.draft(name), sr.folder.image(name), sr.folder.sidecar(name)):
        path.unlink(missing_ok=True)
