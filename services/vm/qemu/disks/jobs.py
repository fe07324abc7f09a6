"""Block jobs of QEMU: they outlive the service, so which there are is asked of QEMU, and their names say what for."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from services.vm.disks import Progress
from services.vm.qemu.guest import Guest
from shared.errors import ApiError

LOOK_EVERY = 1.0
"""Seconds between looks at a job's progress; its events are acted upon at once."""
CANCEL_TIMEOUT = 15.0


@dataclass(frozen=True)
class Job:
    """`status`: QEMU's. `error`: "" unless it failed."""

    name: str
    status: str
    progress: float
    error: str


def name_of(kind: str, device: str, *about: str) -> str:
    """`kind`: commit | mirror. The same for the same work."""
    digest = hashlib.sha256("\0".join(about).encode()).hexdigest()[:12]
    return f"{kind}-{device}-{digest}"


def kind_of(job: str) -> str:
    return job.partition("-")[0]


async def of_device(guest: Guest, device: str) -> list[Job]:
    return [job for job in await _all(guest) if job.name.split("-")[1:2] == [device]]


async def find(guest: Guest, name: str) -> Job | None:
    return next((job for job in await _all(guest) if job.name == name), None)


async def _all(guest: Guest) -> list[Job]:
    return [
        Job(
            name=job["id"],
            status=job["status"],
            progress=min(1.0, job["current-progress"] / job["total-progress"]) if job["total-progress"] else 0.0,
            error=job.get("error", ""),
        )
        for job in await guest.execute("query-jobs")
    ]


async def finish(guest: Guest, name: str, progress: Progress) -> bool:
    """Completes a job as soon as it is ready and waits for its end. False: it is not there (any more).

    Raises INTERNAL_ERROR with QEMU's reason when it failed. A cancellation of the caller ends the job.
    """
    async with ended_if_cancelled(guest, name):
        while True:
            moment = guest.moment()
            job = await find(guest, name)
            if job is None:
                return False
            if job.status == "concluded":
                await _tell(guest, "job-dismiss", job)
                if job.error:
                    raise ApiError("INTERNAL_ERROR", f"{kind_of(name)} failed: {job.error}")
                return True
            if job.status == "ready":
                await _tell(guest, "job-complete", job)
            await progress(job.progress)
            await guest.next_event(moment, LOOK_EVERY)


@asynccontextmanager
async def ended_if_cancelled(guest: Guest, name: str) -> AsyncIterator[None]:
    """A cancellation of the caller ends the job, also one that QEMU has been told to start and has not answered for."""
    try:
        yield
    except asyncio.CancelledError:
        if not guest.closed:
            await cancel(guest, name)
        raise


async def _tell(guest: Guest, command: str, job: Job) -> None:
    """Somebody else who waits for the same job may have been faster."""
    try:
        await guest.execute(command, id=job.name)
    except ApiError:
        now = await find(guest, job.name)
        if now is not None and now.status == job.status:
            raise


async def cancel(guest: Guest, name: str, *, consistent: bool = False) -> str:
    """Ends a job; one that has ended is no error. `consistent`: a mirror that is ready leaves a whole copy behind.

    How it had failed, "" unless it had.
    """
    async with asyncio.timeout(CANCEL_TIMEOUT):
        asked = False
        while True:
            moment = guest.moment()
            job = await find(guest, name)
            if job is None:
                return ""
            if job.status == "concluded":
                await _tell(guest, "job-dismiss", job)
                return job.error
            if not asked:
                force = not (consistent and job.status == "ready")
                await guest.execute("block-job-cancel", device=name, force=force)
                asked = True
            await guest.next_event(moment, LOOK_EVERY)
