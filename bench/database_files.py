"""The database's files with 10,000 VMs: written while transactions go on, read again at a start.

The original on such a machine loads its dump of so many in 8.0 s and writes it in 1.7 s.
"""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import uvloop

from bench.population import creations
from bench.result import Result
from services.db.committer import Committer
from services.db.outputs import start
from services.db.outputs.conf import Block
from services.db.outputs.flusher import Flusher
from services.db.recovery import restore
from services.db.redo.file import FileRedoLog
from shared import garbage
from shared.contracts.db import Create, Delta, Transact, Update

VMS = 10_000
PART = 500
FLUSHES = 3
BOOT = "bench"

LOAD, WRITE, PAUSE = 5.0, 1.7, 20.0
"""Wanted: seconds, the original's seconds, milliseconds."""


class _Primary:
    """The parts of the database process that matter here, in a folder."""

    def __init__(self, folder: Path) -> None:
        redo_log, blocks = FileRedoLog(folder / "redo", BOOT), [Block(folder / "state.db")]
        found = redo_log.recover()
        began = time.perf_counter()
        begun = start.begin(redo_log, found, restore(found, BOOT), boot=BOOT, folder=folder, blocks=blocks)
        self.seconds = time.perf_counter() - began
        self.block = blocks[0]
        self.store = begun.store
        self.committer = Committer(self.store, redo_log, self._publish)
        self.flusher = Flusher(self.committer, blocks, asyncio.Lock())
        self.log = redo_log
        self.run = asyncio.create_task(self.committer.run())

    async def _publish(self, deltas: Sequence[Delta]) -> None:
        """Nobody follows."""

    async def write(self, *changes: Create | Update) -> None:
        await self.committer.transact(Transact(changes=list(changes)))

    async def close(self) -> None:
        self.run.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self.run
        self.log.close()


async def _fill(primary: _Primary) -> None:
    network = Create(cls="network", ref="OpaqueRef:network", fields={"name_label": "n", "bridge": "xenbr0"})
    sr = Create(cls="SR", ref="OpaqueRef:sr", fields={"name_label": "sr", "type": "ext"})
    await primary.write(network, sr)
    part: list[Create] = []
    for create in creations(VMS, network=network.ref, sr=sr.ref):
        part.append(create)
        if len(part) == PART:
            await primary.write(*part)
            part.clear()
    await primary.write(*part)
    garbage.keep(primary.store.count())


async def _longest(primary: _Primary, over: asyncio.Event) -> float:
    """Milliseconds that the longest of transactions took that were made one after another until then."""
    longest, number = 0.0, 0
    while not over.is_set():
        number += 1
        began = time.perf_counter()
        await primary.write(Update(cls="network", ref="OpaqueRef:network", fields={"name_description": str(number)}))
        longest = max(longest, time.perf_counter() - began)
    return longest * 1000


async def _beside(primary: _Primary, seconds: float | None) -> tuple[float, float]:
    """Longest transaction beside a flush (or so many seconds without one), and how long that took."""
    over = asyncio.Event()
    transactions = asyncio.create_task(_longest(primary, over))
    began = time.perf_counter()
    if seconds is None:
        await primary.flusher.flush(primary.block)
    else:
        await asyncio.sleep(seconds)
    took = time.perf_counter() - began
    over.set()
    return await transactions, took


async def _measure(folder: Path) -> list[Result]:
    primary = _Primary(folder)
    await _fill(primary)
    rows = primary.store.count()
    flushes = [await _beside(primary, None) for _ in range(FLUSHES)]
    pause, took = min(flushes)
    alone, _ = await _beside(primary, took)
    await primary.close()
    size = primary.block.path.stat().st_size
    print(f"{rows} rows, {size / 1e6:.0f} MB; flushes with the longest transaction beside: {flushes}")
    return [
        Result(
            name=f"database file of {VMS} VMs written, beside transactions",
            value=took,
            unit="s",
            reference_name="the original's",
            reference=WRITE,
        ),
        Result(
            name="  longest transaction meanwhile",
            value=pause,
            unit="ms",
            reference_name="wanted",
            reference=PAUSE,
            aim=1.0,
        ),
        Result(
            name="  longest transaction without it",
            value=alone,
            unit="ms",
            reference_name="wanted",
            reference=PAUSE,
        ),
    ]


async def _load(folder: Path) -> Result:
    primary = _Primary(folder)
    await primary.close()
    return Result(
        name=f"database file of {VMS} VMs read, and made durable",
        value=primary.seconds,
        unit="s",
        reference_name="wanted",
        reference=LOAD,
        aim=1.0,
    )


def main() -> list[Result]:
    with tempfile.TemporaryDirectory(prefix="xapi-bench-") as name:
        lived, fresh = Path(name) / "lived", Path(name) / "fresh"
        lived.mkdir()
        fresh.mkdir()
        results = uvloop.run(_measure(lived))
        (lived / "state.db").rename(fresh / "state.db")
        return [*results, uvloop.run(_load(fresh))]
