"""Merging of images that are needless apart: the background task of an SR that is attached on a host.

A hidden image with one child is merged with it. What is merged, and how, is decided in `choose`:

- Nobody has the images open: what the upper one holds is written into the lower one (qemu-img), which then takes the
  upper one's place by one rename. No name changes, so no sidecar and no header above does.
- A hypervisor of this host has them open, below the image that it writes to: it merges them itself (a block job), and
  goes on with the lower one. Disks and images that refer to the upper one are told of the lower one.
- The upper one is what the hypervisor writes to: it is paused for as long as merging a small image takes; a large one
  is first put below a new one, which makes it a case for the block job.

Until a merge is complete the lower image is only read through the upper one, which covers whatever was written to it:
a merge may end anywhere, and is begun again. What must be done after a block job is recorded before it (`merging`).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Collection, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, Literal, Protocol

import msgspec

from services.storage.live import Live
from services.storage.plugins.errors import Failure
from services.storage.plugins.file import lease, merging, tracking
from services.storage.plugins.file.attached import Attached
from services.storage.plugins.file.branching import VMS, Branching
from services.storage.plugins.file.folder import SUFFIX, Folder, backing_name, paused_note, replace_file, sync
from services.storage.plugins.file.merging import Merging
from services.storage.plugins.file.qemu_img import NoSpace, QemuImg
from services.storage.plugins.file.tree import Merge, Tree
from services.storage.settle import settle
from shared.bus.contract import Record
from shared.contracts import storage as contract
from shared.errors import ApiError

log = logging.getLogger("storage.coalesce")

_STOP_CHECK = 0.25
"""Seconds between two looks whether another host needs the images."""


class Coalescing(Record, frozen=True):
    """How images are merged. `delay`: seconds after a change. `interval`: seconds between looks without one.

    `rate`: bytes a second that are copied at most, 0 for no limit. `pause`: bytes that may be merged while a guest's
    disk waits. `rotations`: how often a larger one is put below a new one for that, per opening of the disk.
    """

    enabled: bool = True
    delay: float = 5.0
    interval: float = 300.0
    rate: int = 256 << 20
    pause: int = 8 << 20
    rotations: int = 3


class Status(Record, frozen=True):
    """Of one SR on one host. `waiting`: merges that could be done but for who has the images open."""

    running: Merging = merging.NOTHING
    merged: int = 0
    waiting: int = 0
    failed: str = ""


class Audience(Protocol):
    """Who wants to know how merging goes on."""

    def heard(self, event: contract.Merge, status: Status) -> None:
        """Must not block."""
        ...


class Nobody:
    def heard(self, event: contract.Merge, status: Status) -> None:
        """What is in the log is enough."""


class Holder(Record, frozen=True):
    """Who has a disk activated."""

    key: str
    host: str
    dp: str
    writes: bool


class Step(Record, frozen=True):
    """`how`: "offline", "online" (by the hypervisor of `holder`, the image over `top` being `above`), "leaf" (what the
    hypervisor writes to).
    """

    merge: Merge
    how: Literal["offline", "online", "leaf"]
    holder: Holder | None = None
    above: str = ""


def choose(tree: Tree, holders: Collection[Holder], host: str, kept: Collection[Merge] = ()) -> tuple[list[Step], int]:
    """What this host can merge, in order, and how many merges have to wait for others. `kept`: left as they are."""
    steps, waiting = [], 0
    for merge in tree.merges():
        if merge in kept:
            continue
        using = [holder for holder in holders if not {merge.top, merge.base}.isdisjoint(tree.chain_of(holder.key))]
        if not using:
            steps.append(Step(merge=merge, how="offline"))
            continue
        [holder, *others] = using
        chain = tree.chain_of(holder.key)
        writable = [key for key in tree.users(merge.top) if tree.disks[key].writable and key != holder.key]
        mine = holder.host == host and holder.writes and holder.dp.startswith(VMS)
        if others or writable or not mine or merge.top not in chain:
            waiting += 1
        elif chain[0] == merge.top:
            steps.append(Step(merge=merge, how="leaf", holder=holder))
        else:
            above = chain[chain.index(merge.top) - 1]
            steps.append(Step(merge=merge, how="online", holder=holder, above=above))
    return steps, waiting


class Coalescer:
    """Of one SR on one host."""

    def __init__(
        self,
        sr: Attached,
        images: QemuImg,
        live: Live,
        branching: Branching,
        options: Coalescing,
        audience: Audience,
    ) -> None:
        self._sr, self._images, self._live, self._branching = sr, images, live, branching
        self._options, self._audience = options, audience
        self._wake = asyncio.Event()
        self._refused: dict[tuple[str, str], int] = {}
        """How often a datapath's top image was put below a new one, or could not be merged."""
        self.status = Status()

    def wake(self) -> None:
        """Something has changed that may leave images to merge."""
        self._wake.set()

    async def forever(self) -> None:
        while True:
            if await self._resume_left():
                break
            await asyncio.sleep(self._options.delay)
        while self._options.enabled:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._options.interval):
                    await self._wake.wait()
            await asyncio.sleep(self._options.delay)
            self._wake.clear()
            try:
                await self.round()
            except (ApiError, NoSpace, OSError) as error:
                self._note(failed=str(error))
                self._tell("failed", why=str(error))
                log.warning("SR %s: images are not merged: %s", self._sr.folder.uuid, error)

    async def round(self) -> int:
        """Merges until there is nothing left that this host can merge, or nothing at all while another host is at it.
        Returns how many merges that were.
        """
        async with self._sr.holding(merging.claim, self._sr.folder) as claimed:
            if claimed is None or not await self._recover():
                return 0
            return await self._merge_all()

    async def _merge_all(self) -> int:
        count = 0
        failed: set[Merge] = set()
        while (step := await self._begin(failed)) is not None:
            try:
                done = await self._work(step)
            except (ApiError, NoSpace, OSError) as error:
                self._note(failed=str(error))
                self._tell("failed", step, why=str(error))
                log.warning("SR %s: %s is not merged: %s", self._sr.folder.uuid, step.merge, error)
                failed.add(step.merge)
                continue
            if done:
                count += 1
                self._note(merged=self.status.merged + 1, failed="")
            else:
                failed.add(step.merge)
        if not failed:
            self._tell("idle")
        return count

    # -- deciding ----------------------------------------------------------------------------------------------------

    async def _begin(self, failed: set[Merge]) -> Step | None:
        """Records the next step for all hosts to see; from then on who needs the images makes it stop."""
        sr = self._sr
        async with sr.locked():
            tree = await sr.run(sr.folder.tree)
            kept = await sr.run(_kept, sr.folder, tree)
            for step in (await self._steps(tree, {*failed, *kept}))[0]:
                merge = step.merge
                if step.how == "leaf":
                    return step
                now = Merging(host=sr.folder.host, top=merge.top, base=merge.base, above=step.above)
                if step.holder is not None:
                    now = msgspec.structs.replace(now, dp=step.holder.dp, disk=step.holder.key)
                await sr.run(merging.begin, sr.folder, now)
                again, waiting = await self._steps(tree, {*failed, *kept})
                if step in again:  # nobody has opened the images meanwhile
                    stays = merge.top if step.how == "offline" else merge.base
                    await sr.run(tracking.before_merge, sr.folder, tree, merge, stays)
                    self._note(running=now, waiting=waiting)
                    return step
                await sr.run(merging.end, sr.folder)
            _, waiting = await self._steps(tree, kept)
            self._note(waiting=waiting)
            return None

    async def _steps(self, tree: Tree, kept: Collection[Merge]) -> tuple[list[Step], int]:
        return choose(tree, await self._holders(), self._sr.folder.host, kept)

    async def _holders(self) -> list[Holder]:
        leases = await self._sr.run(lease.everything, self._sr.folder.path)
        return [Holder(key=key, host=found.host, dp=found.dp, writes=writes) for key, found, writes in leases]

    async def _work(self, step: Step) -> bool:
        """False: not now."""
        if step.how == "leaf":
            return await self._leaf(step)
        return await self._stoppable(step, self._offline(step.merge) if step.how == "offline" else self._online(step))

    async def _stoppable(self, step: Step, work: Coroutine[Any, Any, None]) -> bool:
        """Does a merge that is recorded, unless somebody needs the images; then it is begun again another time."""
        begin = time.monotonic()
        self._tell("begin", step)
        try:
            done = await self._unless_asked_to_stop(work)
        finally:
            await self._sr.run(merging.end, self._sr.folder)
            self._note(running=merging.NOTHING)
        if not done:
            log.info("SR %s: a merge gives way to who needs the images", self._sr.folder.uuid)
        self._tell("end" if done else "stopped", step, seconds=time.monotonic() - begin)
        return done

    async def _unless_asked_to_stop(self, work: Coroutine[Any, Any, None]) -> bool:
        """False: somebody needs the images, who may have the very lock that the work waits for."""
        task = asyncio.ensure_future(work)
        watching = asyncio.create_task(self._watch(task))
        self._sr.merges.append(task)
        try:
            await asyncio.wait({task})
        finally:
            task.cancel()
            watching.cancel()
            await settle(_ended(task, watching))
            self._sr.merges.remove(task)
        if task.cancelled():
            return False
        task.result()
        return True

    async def _watch(self, task: asyncio.Future[None]) -> None:
        while not task.done():
            await asyncio.sleep(_STOP_CHECK)
            if await self._sr.run(merging.is_asked_to_stop, self._sr.folder):
                task.cancel()

    # -- merging -----------------------------------------------------------------------------------------------------

    async def _offline(self, merge: Merge, paused: Holder | None = None) -> None:
        sr, folder = self._sr, self._sr.folder
        begin = time.monotonic()
        await self._images.commit(folder.image(merge.top), merge.base + SUFFIX, 0 if paused else self._options.rate)
        async with sr.locked():
            tree = await sr.run(folder.tree)
            holders = [holder for holder in await self._holders() if holder != paused]
            if Step(merge=merge, how="offline") in choose(tree, holders, folder.host)[0]:
                await settle(sr.run(_replace, folder, merge))
        log.info("SR %s: %s merged in %.1f s", folder.uuid, merge, time.monotonic() - begin)

    async def _online(self, step: Step) -> None:
        sr, folder, merge = self._sr, self._sr.folder, step.merge
        assert step.holder is not None
        begin = time.monotonic()
        await self._branching.align(sr, step.holder.key, step.holder.dp, Failure.IO)
        top, base = str(folder.image(merge.top)), str(folder.image(merge.base))
        await self._live.commit(folder.host, step.holder.dp, top, base, merge.base + SUFFIX)
        await self._finish(merge, step.above)
        log.info("SR %s: %s merged by %s in %.1f s", folder.uuid, merge, step.holder.dp, time.monotonic() - begin)

    async def _finish(self, merge: Merge, above: str) -> None:
        """After a block job, once or again: whoever refers to the upper image is told of the lower one."""
        sr, folder = self._sr, self._sr.folder
        async with sr.locked():
            if not await sr.run(_is_above, folder, above, merge.base):
                return
            tree = await sr.run(folder.tree)
            for child in tree.children(merge.top):
                await self._images.rebase(folder.image(child), merge.base + SUFFIX)
            await settle(sr.run(_rename, folder, tree, merge))

    async def _leaf(self, step: Step) -> bool:
        """Merges what a guest writes to: at once if it is small, else below a new one, for the next round."""
        sr, folder, merge, holder = self._sr, self._sr.folder, step.merge, step.holder
        assert holder is not None
        known = (holder.key, holder.dp)
        if self._refused.get(known, 0) >= self._options.rotations:
            return False
        occupied = (await sr.run(folder.image(merge.top).stat)).st_blocks * 512
        if occupied > self._options.pause + _EMPTY:
            async with sr.alone(holder.key):
                self._refused[known] = self._refused.get(known, 0) + 1
                if step not in (await self._steps(await sr.run(folder.tree), ()))[0]:
                    return False
                await self._branching.freeze(sr, holder.key, Failure.VDI_SNAPSHOT)
            return True
        async with AsyncExitStack() as pausing:
            async with sr.locked():  # who branches the disk finds it either open or recorded as being merged
                tree = await sr.run(folder.tree)
                if step not in (await self._steps(tree, ()))[0]:
                    return False
                await pausing.enter_async_context(self._paused(holder))
                await sr.run(tracking.before_merge, folder, tree, merge, merge.top)
                now = Merging(host=folder.host, top=merge.top, base=merge.base, disk=holder.key)
                await sr.run(merging.begin, folder, now)
            return await self._stoppable(step, self._offline(merge, holder))

    @asynccontextmanager
    async def _paused(self, holder: Holder) -> AsyncIterator[None]:
        """The hypervisor has nothing of a disk open; its guest waits. Resumed in any case, also after a crash."""
        folder = self._sr.folder
        await self._branching.align(self._sr, holder.key, holder.dp, Failure.IO)
        note = paused_note(folder)
        await self._sr.run(replace_file, note, msgspec.json.encode(holder), folder.draft("paused"))
        try:
            await self._live.pause(folder.host, holder.dp)
            yield
        except ApiError:
            self._refused[holder.key, holder.dp] = self._refused.get((holder.key, holder.dp), 0) + 1
            raise
        finally:
            await settle(self._resume(note, holder))

    async def _resume(self, note: Path, holder: Holder) -> None:
        try:
            await self._live.resume(self._sr.folder.host, holder.dp)
        except ApiError as error:
            if error.code not in ("DEVICE_NOT_ATTACHED", "VM_BAD_POWER_STATE"):
                raise  # the note stays, and it is tried again
            log.info("%s is not there any more: %s", holder.dp, error)
        await self._sr.run(note.unlink, missing_ok=True)

    # -- after a crash -----------------------------------------------------------------------------------------------

    async def _recover(self) -> bool:
        """Completes what an earlier holder of the right to merge has recorded. The caller has that right now. False: it
        cannot be completed yet.
        """
        folder = self._sr.folder
        if not await self._resume_left():
            return False
        left = await self._sr.run(merging.current, folder)
        if left.images:
            log.info("SR %s: a merge was interrupted: %s", folder.uuid, left)
            if left.above and not await self._unless_asked_to_stop(
                self._finish(Merge(top=left.top, base=left.base), left.above)
            ):
                return False
            await self._sr.run(merging.end, folder)
        return True

    async def _resume_left(self) -> bool:
        """A guest waits for who paused its disk and was killed then. False: it cannot be resumed now."""
        note = paused_note(self._sr.folder)
        holder = await self._sr.run(_paused_by, note)
        if holder is not None:
            try:
                await self._resume(note, holder)
            except ApiError as error:
                log.error("%s is paused and cannot be resumed: %s", holder.dp, error)
                return False
        return True

    def _note(self, **changed: object) -> None:
        self.status = msgspec.structs.replace(self.status, **changed)

    def _tell(
        self,
        event: Literal["begin", "end", "stopped", "failed", "idle"],
        step: Step | None = None,
        seconds: float = 0.0,
        why: str = "",
    ) -> None:
        folder = self._sr.folder
        said = contract.Merge(
            host=folder.host,
            sr=folder.uuid,
            event=event,
            top=step.merge.top if step is not None else "",
            base=step.merge.base if step is not None else "",
            how=step.how if step is not None else "",
            seconds=round(seconds, 3),
            why=why,
            waiting=self.status.waiting,
        )
        self._audience.heard(said, self.status)

    def idle(self) -> None:
        """The SR was just attached, or is not attached any more: whatever was said of it before is past."""
        self.status = Status()
        self._tell("idle")


_EMPTY = 512 << 10
"""Bytes that an image without data may occupy."""


async def _ended(*tasks: asyncio.Future[None]) -> None:
    await asyncio.wait(tasks)


# What follows blocks and runs in worker threads.


def _kept(folder: Folder, tree: Tree) -> list[Merge]:
    return [merge for merge in tree.merges() if tracking.blocks_leaf(folder, tree, merge)]


def _replace(folder: Folder, merge: Merge) -> None:
    """The lower image, which holds all now, takes the upper one's place."""
    base = folder.image(merge.base)
    sync(base)
    base.replace(folder.image(merge.top))
    sync(folder.path)
    folder.collect_garbage()


def _is_above(folder: Folder, above: str, base: str) -> bool:
    """Whether the hypervisor has told the image above that it lies over the lower one now."""
    return folder.image(above).exists() and backing_name(folder.header(above)) == base


def _rename(folder: Folder, tree: Tree, merge: Merge) -> None:
    for disk in tree.disks.values():
        if disk.image == merge.top:
            side = folder.read_sidecar(disk.key)
            folder.write_sidecar(disk.key, msgspec.structs.replace(side, image=merge.base))
    folder.collect_garbage()


def _paused_by(note: Path) -> Holder | None:
    try:
        return msgspec.json.decode(note.read_bytes(), type=Holder)
    except FileNotFoundError:
        return None
