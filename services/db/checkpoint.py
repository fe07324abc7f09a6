"""Writes all rows to a new checkpoint while transactions go on: a forked child has its own copy of the memory."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import traceback

from services.db.committer import Committer
from services.db.redo_log import CheckpointHeader, FileRedoLog, RedoLogError, sync_folder
from shared.store import Store

log = logging.getLogger("db.checkpoint")


async def write(store: Store, redo_log: FileRedoLog, committer: Committer) -> bool:
    """Begins a new segment and has a child write the rows as they are then. Returns whether the checkpoint counts.

    The rows may hold commits whose records go to the new segment a moment later: replay skips those. If they are taken
    back instead, the checkpoint is dropped. A child that fails or is killed leaves the older checkpoint and all
    segments.
    """
    cut: asyncio.Future[tuple[int, int]] = asyncio.get_running_loop().create_future()
    taken_back = committer.taken_back

    def at_boundary() -> None:
        if cut.cancelled():
            return
        try:
            cut.set_result(_cut(store, redo_log, committer))
        except (RedoLogError, OSError) as error:
            cut.set_exception(error)

    committer.at_boundary(at_boundary)
    try:
        generation, child = await cut
    except (RedoLogError, OSError) as error:
        log.error("no checkpoint: %s", error)
        return False
    status = await asyncio.to_thread(_wait, child)
    if status != 0:
        log.error("the checkpoint's writer failed; the log is kept", extra={"status": status})
        return False
    if committer.taken_back != taken_back:
        redo_log.drop_checkpoint(generation)
        return False
    await asyncio.to_thread(redo_log.forget_before, generation)
    return True


async def replace(rows: Store, redo_log: FileRedoLog, header: CheckpointHeader) -> None:
    """Has a child write other rows, which count from then on: the file's new name is the moment.

    Nothing may be committed meanwhile. Raises `RedoLogError`: then there is no file, and the rows are as before.
    """
    child = os.fork()
    if child == 0:
        _in_child(rows, redo_log, header)
    waiting = asyncio.ensure_future(asyncio.to_thread(_wait, child))
    try:
        status = await asyncio.shield(waiting)
    except asyncio.CancelledError:
        if not waiting.done():
            os.kill(child, signal.SIGKILL)
        await waiting
        _withdraw(redo_log, header.generation)
        raise
    if status != 0:
        _withdraw(redo_log, header.generation)
        raise RedoLogError(f"the rows could not be written (status {status})")


def _withdraw(redo_log: FileRedoLog, generation: int) -> None:
    """A child may fail after the file has its name: what is then committed on the old rows would be lost with them."""
    try:
        redo_log.drop_checkpoint(generation)
        sync_folder(redo_log.folder)
    except OSError as error:
        log.critical("a checkpoint that must not count cannot be removed: %s; starting anew with it", error)
        os._exit(1)


def _cut(store: Store, redo_log: FileRedoLog, committer: Committer) -> tuple[int, int]:
    generation = store.generation
    redo_log.rotate(generation, store.term)
    header = CheckpointHeader(
        generation=generation, term=store.term, rows=store.count(), boot=redo_log.boot, requests=committer.requests
    )
    child = os.fork()
    if child == 0:
        _in_child(store, redo_log, header)
    return generation, child


def _in_child(store: Store, redo_log: FileRedoLog, header: CheckpointHeader) -> None:
    """Never returns: nothing of the parent's event loop, bus or exit handlers may run here."""
    status = 1
    try:
        redo_log.write_checkpoint(header, store.snapshot())
        status = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(status)


def _wait(child: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
