"""`python -m bench.database_large`: a database of 10,000 VMs: loaded, served, recovered, written anew while it is used.

Its rows (`bench.population`) are written to a file in the original's format, as one would bring it from another pool.
"""

from __future__ import annotations

import multiprocessing
import os
import tempfile
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Self

import psutil
import uvloop

from bench.__main__ import table
from bench.bus import quantile
from bench.db_processes import Client, Site, client, site
from bench.population import creations
from bench.result import Result
from services.db.outputs.candidates import RESTORE, Found, Kind, Place
from services.db.outputs.startup import read
from services.db.recovery import restore
from services.db.redo.file import FileRedoLog
from services.db.redo.interface import Entry, LogRecord, RedoLog, entry
from services.db.redo.quorum.log import QuorumRedoLog
from shared.contracts.db import Delta, RowCreated, RowModified
from shared.database_dump.writer import moment, pieces
from shared.store import Store

VMS = 10_000
RECORDS = 100_000
BATCHES = {"file": 1000, "quorum": 50}
"""Records appended at once. One message holds a batch: with fewer a checkpoint comes before 100,000 records do."""
SMALL_LOG = 3 * 1024 * 1024
"""Bytes after which all rows are written anew, so that it happens while somebody looks."""
FLUSHES = 4
ROUNDS = 2

AIM_LOAD, AIM_READY, AIM_RECOVERY = 5.0, 8.0, 5.0
"""Seconds."""
AIM_PAUSE = 20.0
"""Milliseconds."""


def dump(path: Path) -> int:
    """Writes the file. Returns the number of rows."""
    store = Store()
    made: list[RowCreated] = [
        RowCreated(cls="network", ref="OpaqueRef:network", fields={"uuid": "network", "name_label": "network"}),
        RowCreated(cls="SR", ref="OpaqueRef:sr", fields={"uuid": "sr", "name_label": "storage"}),
    ]
    for row in creations(VMS, network="OpaqueRef:network", sr="OpaqueRef:sr"):
        made.append(RowCreated(cls=row.cls, ref=row.ref, fields=row.fields))
    store.apply(Delta(term=1, generation=1, previous=0, changes=[*made]))
    with path.open("wb") as file:
        for piece in pieces(moment(store)):
            file.write(piece)
    return store.count()


def timed(work: Callable[[], object]) -> tuple[float, float]:
    """Seconds on the clock and of this process's CPU, best of some rounds."""
    found = []
    for _ in range(ROUNDS):
        begun, cpu = time.perf_counter(), time.process_time()
        work()
        found.append((time.perf_counter() - begun, time.process_time() - cpu))
    return min(clock for clock, _ in found), min(cpu for _, cpu in found)


def load(path: Path) -> list[Result]:
    return _both("load of a 10,000-VM dump", timed(lambda: read(Found(Place(path, Kind.RESTORE), 0))), AIM_LOAD)


def _both(name: str, times: tuple[float, float], aim: float) -> list[Result]:
    clock, cpu = times
    own = Result(name="  its CPU", value=cpu, unit="s", reference=clock, reference_name="on the clock")
    return [_seconds(name, clock, aim), own]


def _seconds(name: str, seconds: float, aim: float) -> Result:
    return Result(name=name, value=seconds, unit="s", reference=aim, reference_name="aim", aim=1.0)


# ---- recovery


def recovery(place: Site, kind: str) -> list[Result]:
    """Rows and 100,000 changes of them, one generation each."""
    with tempfile.TemporaryDirectory(prefix="bench-log-") as folder:

        def opened() -> RedoLog:
            if kind == "quorum":
                return QuorumRedoLog(place.bus, queue="bench-log")
            return FileRedoLog(Path(folder), "boot")

        log = opened()
        log.recover()
        log.begin(0, 1)
        records = _records()
        size = BATCHES[kind]
        for begin in range(0, len(records), size):
            log.append(records[begin : begin + size], sync=True)
        log.close()

        def start() -> None:
            again = opened()
            found = again.recover()
            if len(found.records) != RECORDS:
                raise RuntimeError(f"{len(found.records)} records came back")
            restore(found, "boot")
            again.close()

        return _both(f"recovery from 100,000 records, {kind}", timed(start), AIM_RECOVERY)


def _records() -> list[Entry]:
    made = []
    for generation in range(1, RECORDS + 1):
        ref = f"OpaqueRef:{generation % 1000}"
        change = (
            RowCreated(cls="network", ref=ref, fields={"name_label": ref, "uuid": ref})
            if generation <= 1000
            else RowModified(cls="network", ref=ref, fields={"name_description": f"text number {generation}"})
        )
        made.append(entry(LogRecord(generation=generation, term=1, changes=[change]), generation - 1))
    return made


# ---- a process that serves it


async def serving(place: Site, rows: int, size: int) -> list[Result]:
    """The first start finds the file."""
    async with client(place.bus) as writer:
        place.start(name="empty")
        await writer.status()
        await writer.make_rows(1)
        empty = _resident(place)
        place.stop()
        begun = time.perf_counter()
        place.start(checkpoint_bytes=SMALL_LOG)
        await writer.status()
        first = time.perf_counter() - begun
        await writer.make_rows(20)
        memory = (_resident(place) - empty) / rows / 1024
        with Disk(place.state()) as disk:
            quiet, flushing, count = await pauses(writer, place.state() / "redo", disk)
        place.kill()
        begun = time.perf_counter()
        place.start()
        await writer.status()
        again = time.perf_counter() - begun
        place.stop()
    print(f"transactions while nothing is written anew: p50 {quantile(quiet, 0.5) * 1000:.2f} ms,", end=" ")
    print(f"p99 {quantile(quiet, 0.99) * 1000:.2f}, longest {max(quiet) * 1000:.2f}", flush=True)
    print(f"during {count} checkpoints: p50 {quantile(flushing, 0.5) * 1000:.2f} ms,", end=" ")
    print(f"p99 {quantile(flushing, 0.99) * 1000:.2f}, longest {max(flushing) * 1000:.2f}", flush=True)
    print(
        f"of another process: {len(disk.quiet)} fdatasyncs, longest {max(disk.quiet, default=0.0):.2f} ms, and "
        f"{len(disk.flushing)} during checkpoints, longest {max(disk.flushing, default=0.0):.2f}",
        flush=True,
    )
    return [
        _seconds("database serves that dump after", first, AIM_READY),
        _seconds("database serves it again after kill -9", again, AIM_READY),
        Result(
            name="longest transaction during checkpoints",
            value=max(flushing) * 1000,
            unit="ms",
            reference=AIM_PAUSE,
            reference_name="aim",
            aim=1.0,
        ),
        Result(
            name="  the same",
            value=max(flushing) * 1000,
            unit="ms",
            reference=max(disk.flushing, default=0.0),
            reference_name="another's fdatasync",
        ),
        Result(
            name="  longest at other times",
            value=max(quiet) * 1000,
            unit="ms",
            reference=AIM_PAUSE,
            reference_name="aim",
        ),
        Result(
            name="  median of them",
            value=quantile(flushing, 0.5) * 1000,
            unit="ms",
            reference=quantile(quiet, 0.5) * 1000,
            reference_name="at other times",
        ),
        Result(
            name="memory for each row",
            value=memory,
            unit="KiB",
            reference=size / rows / 1024,
            reference_name="in the dump",
        ),
    ]


def _resident(place: Site) -> float:
    """Bytes."""
    return float(psutil.Process(place.processes[0].pid).memory_info().rss)


class Disk:
    """How long the same disk lets another process wait that writes 4 KiB and asks for an fdatasync, fifty times a
    second. Milliseconds, of those that met no checkpoint, and of those that met one.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / "probe"
        self.quiet: list[float] = []
        self.flushing: list[float] = []
        self.checkpoint = False

    def __enter__(self) -> Self:
        self._here, there = multiprocessing.Pipe()
        self._process = multiprocessing.get_context("spawn").Process(target=_probe, args=(self._path, there))
        self._process.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._here.send(None)
        self._process.join()
        self._path.unlink()

    def look(self, checkpoint: bool) -> None:
        """What was measured since belongs to a checkpoint if there was one at either end."""
        while self._here.poll():
            (self.flushing if checkpoint or self.checkpoint else self.quiet).append(self._here.recv())
        self.checkpoint = checkpoint


def _probe(path: Path, tell: Connection) -> None:
    with path.open("wb", buffering=0) as file:
        while not tell.poll(0.02):
            before = time.perf_counter()
            os.pwrite(file.fileno(), bytes(4096), 0)
            os.fdatasync(file.fileno())
            tell.send((time.perf_counter() - before) * 1000)


async def pauses(writer: Client, folder: Path, disk: Disk) -> tuple[list[float], list[float], int]:
    """Seconds of transactions, one after the other: those that met no checkpoint, and those that met one."""
    quiet: list[float] = []
    flushing: list[float] = []
    done, was, number = 0, False, 0
    deadline = time.monotonic() + 90.0
    while done < FLUSHES and time.monotonic() < deadline:
        number += 1
        before = time.perf_counter()
        is_now = _writing(folder)
        await writer.write(f"text {number} " + "x" * 6000, writer.refs[number % 20])
        took = time.perf_counter() - before
        after = _writing(folder)
        # The fork comes before the file does: the one that met it is the first that sees the file afterwards.
        met = is_now or after or was
        (flushing if met else quiet).append(took)
        disk.look(met)
        done += was and not is_now
        was = is_now or after
    if not flushing:
        raise RuntimeError("nothing was written anew")
    return quiet, flushing, done


def _writing(folder: Path) -> bool:
    """Whether a child is at work."""
    return any(path.endswith(".new") for path in os.listdir(folder))


def main() -> list[Result]:
    with site() as place:
        path = place.folder / "dump.db"
        rows = dump(path)
        size = path.stat().st_size
        print(f"{rows} rows, {size / 2**20:.0f} MiB", flush=True)
        results = load(path)
        for kind in BATCHES:
            results += recovery(place, kind)
        path.rename(place.state() / RESTORE)
        return [*results, *uvloop.run(serving(place, rows, size))]


if __name__ == "__main__":
    print(table(main()))
