"""The transfers of one host: disks opened, servers and a worker started, all of it closed again however it ends."""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Sequence
from contextlib import AsyncExitStack, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from services.storage.datapaths import Datapaths
from services.storage.locks import Locks
from services.storage.motion.sending import Far, Sending
from services.storage.nbd.server import PROGRAMS, Programs
from services.storage.plugins.interface import Report, Unimplemented
from services.storage.repositories import Repositories
from services.storage.settle import settle
from services.storage.transfer import failures
from services.storage.transfer.failures import Space
from services.storage.transfer.job import Disk, Ended, Failed, Job, Range
from services.storage.transfer.process import Worker
from services.storage.transfer.reserve import Reserve
from services.storage.vhost.server import DiskServer
from shared.bus import context
from shared.contracts.storage import Backend, DiskOpen
from shared.contracts.transfer import Checksum, Copy, Export, Import, Moved, Prepared
from shared.errors import ApiError, internal_error

log = logging.getLogger("storage.transfer")

VHD_LARGEST: Final = 2040 << 30
"""Bytes of the largest disk that a VHD holds."""
REPORT_EVERY: Final = 0.5
"""Seconds between two reports of a transfer's progress."""
_KEPT: Final = 256
"""Transfers whose end is remembered for who has not asked yet."""
_SUFFIX: Final = ".stream"

Plan = Callable[[Sequence[Disk]], Awaitable[Job]]
"""What is to be done with the disks, in the order in which they were to be opened."""


class Transfer:
    """One that runs, or has ended. `path`: where its client comes to, "" if it has none. `dps`: its datapaths.

    All that it holds is closed when `ended` is done. `sr`: whose space it needs, which `space` knows. `process`: of the
    API, which its client comes from, "" for none; `abandoned`: that one has ended before the disks were open.
    """

    def __init__(self, dps: Sequence[str], sr: str, path: str, space: Space, process: str) -> None:
        self.id = secrets.token_hex(8)
        self.dps, self.sr, self.path, self.space, self.process = list(dps), sr, path, space, process
        self.holds = AsyncExitStack()
        self.cancelled = self.abandoned = False
        self.length: int | None = None
        self.worker: Worker
        self.ended: asyncio.Task[Moved | ApiError]

    def is_of_another(self, process: str) -> bool:
        """Whether it is for another process of the API than this one."""
        return self.process not in ("", process)

    async def cancel(self) -> None:
        """As `stop`, on somebody's wish."""
        self.cancelled = True
        await self.stop()

    async def stop(self) -> None:
        """All is closed when this returns; nothing happens to one that has ended."""
        self.worker.kill()
        await asyncio.wait({self.ended})


class Transfers:
    """`folder`: for sockets. `patience`: seconds that a client has to come. `sending`: for copies to other hosts.
    `reserve`: of workers, which may be that of other hosts, too.
    """

    def __init__(
        self,
        repositories: Repositories,
        datapaths: Datapaths,
        locks: Locks,
        folder: Path,
        programs: Programs = PROGRAMS,
        patience: float = 60.0,
        sending: Sending | None = None,
        reserve: Reserve | None = None,
    ) -> None:
        self._repositories = repositories
        self._datapaths = datapaths
        self._locks = locks
        self._folder = folder
        self._programs = programs
        self._patience = patience
        self._sending = sending
        self._reserve = reserve or Reserve()
        self._transfers: dict[str, Transfer] = {}
        self._beginning: set[Transfer] = set()

    # ---- the contract

    async def export(self, request: Export) -> Prepared:
        """Raises what opening disks raises, VDI_TOO_LARGE, SR_BACKEND_FAILURE_*."""
        disks = [_reading(request.dp, request.sr, request.location)]
        if request.base:
            disks.append(_reading(f"{request.dp}/base", request.sr, request.base))

        async def plan(opened: Sequence[Disk]) -> Job:
            if request.format == "vhd" and opened[0].size > VHD_LARGEST:
                raise ApiError("VDI_TOO_LARGE", request.location, VHD_LARGEST)
            return Job(
                way="export",
                disk=opened[0],
                format=request.format,
                uuid=request.uuid,
                base=opened[1] if request.base else None,
                base_uuid=request.base_uuid,
                changed=await self._changed(request.sr, request.location, request.base),
                prefix=request.prefix,
                lent=request.lent,
            )

        return _prepared(await self._begin(disks, request.sr, plan, process=request.process))

    async def import_(self, request: Import) -> Prepared:
        """Raises what opening disks raises, SR_BACKEND_FAILURE_*."""

        async def plan(opened: Sequence[Disk]) -> Job:
            return Job(
                way="import",
                disk=opened[0],
                format=request.format,
                length=request.length,
                chunked=request.chunked,
                differences=request.differences,
                prefix=request.prefix,
                lent=request.lent,
            )

        disk = DiskOpen(dp=request.dp, sr=request.sr, location=request.location, writable=True)
        return _prepared(await self._begin([disk], request.sr, plan, process=request.process))

    async def copy(self, request: Copy, report: Report) -> Moved:
        """Cancelled: nothing is open any more, and the target has some of the content."""
        if not request.to_host:
            target = DiskOpen(dp=f"{request.dp}/target", sr=request.to_sr, location=request.to_location, writable=True)
            return await self._copy(request, report, [target], None, self._repositories)
        if self._sending is None:
            raise internal_error("disks do not go between hosts here")
        far = Far(f"{request.dp}/far", request.to_host, request.to_sr, request.to_location)
        async with self._sending.reached(far) as reached:
            there = Disk(reached.backend.path if reached.backend.format != "none" else "", reached.size)
            return await self._copy(request, report, [], there, self._sending.space(request.to_host))

    async def _copy(
        self, request: Copy, report: Report, targets: list[DiskOpen], there: Disk | None, space: Space
    ) -> Moved:
        """`there`: the target, where it is none of this host's."""
        disks = [_reading(request.dp, request.sr, request.location), *targets]
        if request.base:
            disks.append(_reading(f"{request.dp}/base", request.sr, request.base))

        async def plan(opened: Sequence[Disk]) -> Job:
            return Job(
                way="copy",
                disk=opened[0],
                target=opened[1] if there is None else there,
                base=opened[-1] if request.base else None,
                changed=await self._changed(request.sr, request.location, request.base),
                zeroed=request.zeroed,
            )

        return await self._watch(await self._begin(disks, request.to_sr, plan, listening=False, space=space), report)

    async def checksum(self, request: Checksum, report: Report) -> Moved:
        async def plan(opened: Sequence[Disk]) -> Job:
            return Job(way="checksum", disk=opened[0])

        disks = [_reading(request.dp, request.sr, request.location)]
        return await self._watch(await self._begin(disks, request.sr, plan, listening=False), report)

    async def end(self, transfer: str, report: Report) -> Moved:
        """Cancelled: so is the transfer. Raises how it failed; INTERNAL_ERROR for one that is not known (any more)."""
        known = self._transfers.get(transfer)
        if known is None:
            raise internal_error(
                f"there is no transfer {transfer}: the storage service was restarted, or it is long over"
            )
        return await self._watch(known, report)

    async def cancel(self, transfer: str) -> None:
        known = self._transfers.get(transfer)
        if known is not None:
            await settle(known.cancel())

    async def abandon(self, process: str) -> None:
        """Of other processes of the API than this one nobody comes, also not for disks that are only being opened."""
        for transfer in self._beginning:
            transfer.abandoned |= transfer.is_of_another(process)
        left = [each for each in self._transfers.values() if each.is_of_another(process) and not each.ended.done()]
        for transfer in left:
            log.info("transfer %s ends: the API's process that wanted it has ended", transfer.id)
        await settle(_all(transfer.cancel() for transfer in left))

    async def close(self) -> None:
        """The service stops."""
        await asyncio.gather(*(transfer.stop() for transfer in list(self._transfers.values())))
        await self._reserve.close()

    # ---- one transfer

    async def _begin(
        self,
        disks: Sequence[DiskOpen],
        sr: str,
        plan: Plan,
        *,
        listening: bool = True,
        space: Space | None = None,
        process: str = "",
    ) -> Transfer:
        dps = [disk.dp for disk in disks]
        for other in self._transfers.values():
            if not other.ended.done() and not set(dps).isdisjoint(other.dps):
                raise internal_error(f"the datapath {dps[0]} has a transfer already")
        path = str(self._folder / f"{secrets.token_hex(6)}{_SUFFIX}") if listening else ""
        transfer = Transfer(dps, sr, path, space or self._repositories, process)
        self._beginning.add(transfer)
        try:
            await self._start(transfer, disks, plan)
        except BaseException:
            await settle(transfer.holds.aclose())
            raise
        finally:
            self._beginning.discard(transfer)
        return transfer

    async def _start(self, transfer: Transfer, disks: Sequence[DiskOpen], plan: Plan) -> None:
        """The worker starts while the disks are opened: both take a while."""
        employing = asyncio.create_task(self._employ(), name=f"worker of {transfer.id}")
        transfer.holds.push_async_callback(_dismiss_when_there, employing, transfer.path)
        backends = await self._datapaths.open(disks)
        transfer.holds.push_async_callback(self._datapaths.close, transfer.dps)
        opened = [await self._reachable(transfer, disk, backend) for disk, backend in zip(disks, backends, strict=True)]
        job = replace(await plan(opened), path=transfer.path, patience=self._patience)
        transfer.worker = await asyncio.shield(employing)
        transfer.holds.push_async_callback(_dismiss, transfer.worker, transfer.path)
        transfer.worker.begin(job)
        ready = await asyncio.shield(transfer.worker.ready)
        if isinstance(ready, Failed):
            raise await failures.translated(ready, job.way, transfer.space, transfer.sr)
        if transfer.abandoned:
            raise internal_error("the API's process that wanted the transfer has ended")
        transfer.length = ready.length
        transfer.ended = asyncio.create_task(self._finish(transfer, job), name=f"transfer {transfer.id}")
        self._transfers[transfer.id] = transfer
        self._forget()

    async def _reachable(self, transfer: Transfer, disk: DiskOpen, backend: Backend) -> Disk:
        plugin, handle = self._repositories.find(disk.sr)
        async with self._locks.disks([(disk.sr, disk.location)]):
            size = (await plugin.volume.stat(handle, disk.location)).virtual_size
        if backend.format == "none":
            return Disk("", size)
        server = await DiskServer.serve(backend, self._folder, programs=self._programs)
        transfer.holds.push_async_callback(server.close)
        image = backend.path if server.vhost and _stays(backend) else ""
        return Disk(str(server.address), size, server.vhost, image, backend.format)

    async def _changed(self, sr: str, location: str, base: str) -> list[Range] | None:
        """Where the disk may differ from its base, if the plug-in knows that without reading them."""
        if not base:
            return None
        plugin, handle = self._repositories.find(sr)
        async with self._locks.disks([(sr, location), (sr, base)]):
            try:
                return [(each.offset, each.length) for each in await plugin.volume.compare(handle, location, base)]
            except Unimplemented:
                return None

    async def _employ(self) -> Worker:
        try:
            return await self._reserve.take()
        except OSError as error:
            raise internal_error(f"a transfer's worker cannot be started: {error}") from error

    async def _finish(self, transfer: Transfer, job: Job) -> Moved | ApiError:
        result = await transfer.worker.ended
        self._reserve.fill()
        try:
            await transfer.holds.aclose()
        except ApiError as error:
            log.error("transfer %s has ended, but its disks are not closed: %s", transfer.id, error)
            return error
        if isinstance(result, Ended):
            return Moved(stream=result.stream, data=result.data, md5=result.md5)
        if transfer.cancelled:
            return ApiError("TASK_CANCELLED", context.current.get().task)
        failure = await failures.translated(result, job.way, transfer.space, transfer.sr)
        log.warning("transfer %s has failed: %s", transfer.id, failure)
        return failure

    async def _watch(self, transfer: Transfer, report: Report) -> Moved:
        try:
            while not (await asyncio.wait({transfer.ended}, timeout=REPORT_EVERY))[0]:
                await report(transfer.worker.progress)
        except asyncio.CancelledError:
            await settle(transfer.cancel())
            raise
        result = transfer.ended.result()
        if isinstance(result, ApiError):
            raise result
        return result

    def _forget(self) -> None:
        ended = [id for id, transfer in self._transfers.items() if transfer.ended.done()]
        for id in ended[: max(0, len(ended) - _KEPT)]:
            del self._transfers[id]


async def _all(work: Iterable[Coroutine[Any, Any, None]]) -> None:
    await asyncio.gather(*work)


async def _dismiss_when_there(employing: asyncio.Task[Worker], path: str) -> None:
    """Also if it was not waited for. One that could not be started has been told of."""
    await asyncio.wait({employing})
    if employing.exception() is None:
        await _dismiss(employing.result(), path)


async def _dismiss(worker: Worker, path: str) -> None:
    worker.kill()
    await asyncio.wait({worker.ended})
    if path:
        with suppress(FileNotFoundError):
            os.unlink(path)


def _stays(backend: Backend) -> bool:
    """Whether the file is what the disk holds, as long as it is open: nobody writes, and all share the page cache."""
    return backend.kind == "file" and not (backend.writable or backend.shared or backend.direct)


def _reading(dp: str, sr: str, location: str) -> DiskOpen:
    return DiskOpen(dp=dp, sr=sr, location=location, writable=False)


def _prepared(transfer: Transfer) -> Prepared:
    return Prepared(transfer=transfer.id, path=transfer.path, length=transfer.length)
