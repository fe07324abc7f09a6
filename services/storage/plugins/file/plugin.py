"""The SR type `file`: qcow2 images in a folder, which may be shared by several hosts.

Disks that share data do so by backing files. Cloning or snapshotting a writable disk gives its image a second name, a
hidden read-only node; the disk continues in a new empty image over it, and the new disk is another one. The order of
steps is such that a crash anywhere leaves every disk with its content and at most a node that nobody needs.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path
from typing import ParamSpec, TypeVar

from services.storage.plugins.errors import Failure, backend_failure
from services.storage.plugins.file import lease
from services.storage.plugins.file.attached import Attached
from services.storage.plugins.file.datapath import FileDatapath
from services.storage.plugins.file.folder import GUARD, SUFFIX, Folder
from services.storage.plugins.file.lease import Busy, Guard
from services.storage.plugins.file.qemu_img import QemuImg
from services.storage.plugins.file.sr import FileSr
from services.storage.plugins.file.volume import FileVolume
from services.storage.plugins.interface import Handle
from shared.contracts.storage import DriverInfo
from shared.errors import ApiError

log = logging.getLogger("storage.file")

_WORKERS = 4
"""Threads for the blocking calls of one SR; a folder whose server hangs blocks nobody else."""

_A = ParamSpec("_A")
_R = TypeVar("_R")


class FilePlugin:
    """`lock_timeout`: seconds to wait for another host that rearranges images."""

    def __init__(self, images: QemuImg, lock_timeout: float) -> None:
        self.images = images
        self._lock_timeout = lock_timeout
        self._attached: dict[Handle, Attached] = {}
        self._workers: dict[Path, ThreadPoolExecutor] = {}
        self.sr = FileSr(self)
        self.volume = FileVolume(self)
        self.datapath = FileDatapath(self)

    @property
    def traceless(self) -> bool:
        return False

    @property
    def branches_in_use(self) -> bool:
        return False

    def query(self) -> DriverInfo:
        return DriverInfo(
            type="file",
            name="File",
            description="Disks as qcow2 images in a folder",
            vendor="xapi-toolstack",
            copyright="LGPL-2.1-only",
            version="1.0",
            required_api_version="5.0",
            features=dict.fromkeys(
                [
                    *("SR_CREATE", "SR_DELETE", "SR_ATTACH", "SR_DETACH", "SR_SCAN", "SR_UPDATE"),
                    *("VDI_CREATE", "VDI_DELETE", "VDI_ATTACH", "VDI_DETACH", "VDI_ACTIVATE", "VDI_DEACTIVATE"),
                    *("VDI_CLONE", "VDI_SNAPSHOT", "VDI_RESIZE", "VDI_INTRODUCE", "VDI_UPDATE", "THIN_PROVISIONING"),
                ],
                1,
            ),
            configuration={"location": "absolute path of the folder (required)"},
        )

    async def close(self) -> None:
        for workers in self._workers.values():
            workers.shutdown(wait=False, cancel_futures=True)

    def attach(self, folder: Folder) -> Handle:
        handle = Handle(f"{folder.host} {folder.path}")
        self._attached[handle] = self.unattached(folder)
        return handle

    def detach(self, handle: Handle) -> None:
        gone = self._attached.pop(handle, None)
        if gone is not None and all(other.folder.path != gone.folder.path for other in self._attached.values()):
            self._workers.pop(gone.folder.path).shutdown(wait=False)

    def unattached(self, folder: Folder) -> Attached:
        workers = self._workers.get(folder.path)
        if workers is None:
            workers = ThreadPoolExecutor(_WORKERS, thread_name_prefix=f"sr-{folder.uuid[:8]}")
            self._workers[folder.path] = workers
        return Attached(folder, workers)

    def attached(self, handle: Handle) -> Attached:
        try:
            return self._attached[handle]
        except KeyError:
            raise backend_failure(Failure.SR_UNAVAILABLE, f"not attached: {handle}") from None

    def at(self, uri: str, host: str) -> tuple[Attached, str]:
        """The attached SR and the key that a disk's URI stands for."""
        image = Path(uri.removeprefix("file://"))
        return self.attached(Handle(f"{host} {image.parent}")), image.name.removesuffix(SUFFIX)

    @asynccontextmanager
    async def locked(self, sr: Attached, key: str | None = None) -> AsyncIterator[None]:
        """The SR's guard, or that of one disk's leases. Raises SR_VDI_LOCKING_FAILED."""
        path = sr.folder.path / GUARD if key is None else lease.guard_path(sr.folder.path, key)
        guard = await self.patiently(sr, Guard, path)
        try:
            yield
        finally:
            guard.close()

    async def patiently(self, sr: Attached, work: Callable[_A, _R], *args: _A.args, **kwargs: _A.kwargs) -> _R:
        """Repeats work that finds a guard taken, as long as that may be."""
        end = time.monotonic() + self._lock_timeout
        delay = 0.002
        while True:
            try:
                return await sr.run(work, *args, **kwargs)
            except Busy as busy:
                if time.monotonic() > end:
                    log.error("waited %s s for the lock %s in vain", self._lock_timeout, busy)
                    raise ApiError("SR_VDI_LOCKING_FAILED") from busy
            await asyncio.sleep(delay * random.uniform(0.5, 1.5))
            delay = min(delay * 2, 0.1)
