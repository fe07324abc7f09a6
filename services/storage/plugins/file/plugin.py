"""The SR type `file`: qcow2 images in a folder, which may be shared by several hosts.

Disks that share data do so by backing files (`tree`): how a disk branches is in `branching`, how images that are
needless apart become one again in `coalesce`.
"""

from __future__ import annotations

import asyncio
import logging
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from services.storage.live import Live
from services.storage.plugins.errors import Failure, backend_failure
from services.storage.plugins.file.attached import Attached
from services.storage.plugins.file.branching import Branching
from services.storage.plugins.file.coalesce import Audience, Coalescer, Coalescing, Nobody, Status
from services.storage.plugins.file.datapath import FileDatapath
from services.storage.plugins.file.folder import SUFFIX, Folder
from services.storage.plugins.file.qemu_img import QemuImg
from services.storage.plugins.file.sr import FileSr
from services.storage.plugins.file.volume import FileVolume
from services.storage.plugins.interface import Handle
from shared.contracts.storage import Backend, DriverInfo
from shared.contracts.vm_disks import Chain
from shared.errors import ApiError

log = logging.getLogger("storage.file")

_WORKERS = 4
"""Threads for the blocking calls of one SR; a folder whose server hangs blocks nobody else."""


class NoHypervisor:
    """For a plug-in that is used without a VM service: nothing is open."""

    async def chain(self, host: str, dp: str) -> Chain:
        return Chain()

    async def snapshot(self, host: str, dp: str, overlay: str) -> None:
        raise ApiError("DEVICE_NOT_ATTACHED", dp)

    async def commit(self, host: str, dp: str, top: str, base: str, backing: str = "") -> None:
        raise ApiError("DEVICE_NOT_ATTACHED", dp)

    async def resize(self, host: str, dp: str, size: int) -> None:
        raise ApiError("DEVICE_NOT_ATTACHED", dp)

    async def pause(self, host: str, dp: str) -> None:
        raise ApiError("DEVICE_NOT_ATTACHED", dp)

    async def resume(self, host: str, dp: str, backend: Backend | None = None) -> None:
        raise ApiError("DEVICE_NOT_ATTACHED", dp)


class FilePlugin:
    """`lock_timeout`: seconds to wait for another host that rearranges images. `live`: how images are changed that a
    hypervisor has open. `coalescing`: how images are merged; None: they are not, unless `coalesce` is called.
    `audience`: hears of merges.
    """

    def __init__(
        self,
        images: QemuImg,
        lock_timeout: float,
        live: Live | None = None,
        coalescing: Coalescing | None = None,
        audience: Audience | None = None,
    ) -> None:
        self.images = images
        self._live = live or NoHypervisor()
        self._coalescing = coalescing
        self._audience = audience or Nobody()
        self._lock_timeout = lock_timeout
        self._attached: dict[Handle, Attached] = {}
        self._coalescers: dict[Handle, tuple[Coalescer, asyncio.Task[None] | None]] = {}
        self._workers: dict[Path, ThreadPoolExecutor] = {}
        self.sr = FileSr(self)
        self.volume = FileVolume(self, self._live)
        self.datapath = FileDatapath(self)

    @property
    def traceless(self) -> bool:
        return False

    @property
    def branches_in_use(self) -> bool:
        return True

    def query(self) -> DriverInfo:
        return DriverInfo(
            type="file",
            name="File",
            description="Disks as qcow2 images in a folder",
            vendor="xapi-toolstack",
            copyright="LGPL-2.1-only",
            version="1.0",
            required_api_version="5.0",
            supported_image_formats=["qcow2"],
            features=dict.fromkeys(
                [
                    *("VDI_RESIZE_ONLINE", "VDI_CONFIG_CBT", "VDI_REVERT", "VDI_COMPOSE", "VDI_MIRROR"),
                    *("SR_CREATE", "SR_DELETE", "SR_ATTACH", "SR_DETACH", "SR_SCAN", "SR_UPDATE", "SR_METADATA"),
                    *("VDI_CREATE", "VDI_DELETE", "VDI_ATTACH", "VDI_DETACH", "VDI_ACTIVATE", "VDI_DEACTIVATE"),
                    *("VDI_CLONE", "VDI_SNAPSHOT", "VDI_RESIZE", "VDI_INTRODUCE", "VDI_UPDATE", "THIN_PROVISIONING"),
                    "VDI_ATTACH_OFFLINE",
                ],
                1,
            )
            | {"VDI_RESET_ON_BOOT": 2},
            configuration={"location": "absolute path of the folder (required)"},
        )

    async def close(self) -> None:
        for handle in list(self._coalescers):
            await self._stop_coalescing(handle)
        for workers in self._workers.values():
            workers.shutdown(wait=False, cancel_futures=True)

    async def attach(self, folder: Folder) -> Handle:
        handle = Handle(f"{folder.host} {folder.path}")
        await self._stop_coalescing(handle)
        attached = self._attached[handle] = self.unattached(folder)
        options = self._coalescing
        branching = Branching(self._live)
        coalescer = Coalescer(attached, self.images, self._live, branching, options or Coalescing(), self._audience)
        task = None
        if options is not None:
            task = asyncio.create_task(coalescer.forever(), name=f"merge images of {folder.uuid}")
            task.add_done_callback(_ended)
        self._coalescers[handle] = (coalescer, task)
        coalescer.idle()
        coalescer.wake()
        return handle

    async def detach(self, handle: Handle) -> None:
        await self._stop_coalescing(handle)
        gone = self._attached.pop(handle, None)
        if gone is not None and all(other.folder.path != gone.folder.path for other in self._attached.values()):
            self._workers.pop(gone.folder.path).shutdown(wait=False)

    async def _stop_coalescing(self, handle: Handle) -> None:
        coalescer, task = self._coalescers.pop(handle, (None, None))
        if task is not None:
            task.cancel()
            await asyncio.wait({task})
        if coalescer is not None:
            coalescer.idle()

    def wake(self, sr: Attached) -> None:
        """Images of an SR may be needless apart now."""
        for handle, (coalescer, _) in self._coalescers.items():
            if self._attached[handle].folder.path == sr.folder.path:
                coalescer.wake()

    async def coalesce(self, sr: Handle) -> int:
        """Merges all that this host can merge now; how many merges that were."""
        return await self._coalescers[sr][0].round()

    def coalescing(self, sr: Handle) -> Status:
        return self._coalescers[sr][0].status

    def unattached(self, folder: Folder) -> Attached:
        workers = self._workers.get(folder.path)
        if workers is None:
            workers = ThreadPoolExecutor(_WORKERS, thread_name_prefix=f"sr-{folder.uuid[:8]}")
            self._workers[folder.path] = workers
        return Attached(folder, workers, self._lock_timeout)

    def attached(self, handle: Handle) -> Attached:
        try:
            return self._attached[handle]
        except KeyError:
            raise backend_failure(Failure.SR_UNAVAILABLE, f"not attached: {handle}") from None

    def at(self, uri: str, host: str) -> tuple[Attached, str]:
        """The attached SR and the key that a disk's URI stands for."""
        image = Path(uri.removeprefix("file://"))
        return self.attached(Handle(f"{host} {image.parent}")), image.name.removesuffix(SUFFIX)


def _ended(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and task.exception() is not None:
        log.critical("%s: it has failed, and is not tried again: %s", task.get_name(), task.exception())
