"""`python -m bench.database`: durable transactions over the bus, beside what they are made of, on each redo log.

Alone: one bare 4 KiB write with its fdatasync, in the database's own folder, and one bare round trip over the broker
take turns with transactions, so that the machine's moods hit all three. Then 64 writers at once, counted with the
database's own count of syncs (confirms, for the quorum log).
"""

from __future__ import annotations

import os
import statistics
import time
from pathlib import Path
from typing import Any

import uvloop

from bench.__main__ import table
from bench.bus import one_by_one, quantile, storm
from bench.coordinator import cpu_seconds
from bench.db_processes import Client, Site, client, site
from bench.result import Result

ROUNDS = 12
CALLS = 60
"""One after the other, in one round of one side."""
STORM = 3000
STORMS = 3
ROWS = 200
BLOCK = os.urandom(4096)

AIM_RATE = 3000.0
AIM_GROUP = 10.0

LOGS = ("file", "block", "quorum", "off")


class Bare:
    """One write of 4 KiB and its fdatasync at a time, at the end of a file that grows."""

    def __init__(self, path: Path) -> None:
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT)
        self._end = 0

    async def sync(self) -> None:
        os.pwrite(self._descriptor, BLOCK, self._end)
        os.fdatasync(self._descriptor)
        self._end += len(BLOCK)

    def close(self) -> None:
        os.close(self._descriptor)


async def alone(writer: Client, disk: Bare) -> tuple[float, float, float, float]:
    """Milliseconds: p50 of a transaction, of a sync, of a bare call; p99 of a transaction."""
    number = 0

    async def write() -> None:
        nonlocal number
        number += 1
        await writer.write(f"text {number}")

    sides = {"transact": write, "sync": disk.sync, "call": writer.bare.call}
    times: dict[str, list[float]] = {name: [] for name in sides}
    for side in sides.values():
        await one_by_one(side, CALLS)
    for _ in range(ROUNDS):
        for name, side in sides.items():
            times[name] += await one_by_one(side, CALLS)
    p50 = {name: statistics.median(values) * 1000 for name, values in times.items()}
    return p50["transact"], p50["sync"], p50["call"], quantile(times["transact"], 0.99) * 1000


async def together(writer: Client, pid: int) -> tuple[float, float, float]:
    """With 64 writers: transactions per second, and for each sync; CPU of the database for each, in microseconds."""
    numbers = iter(range(10**9))

    async def write() -> None:
        number = next(numbers)
        await writer.write(f"text {number}", writer.refs[number % ROWS])

    before, cpu = await writer.status(), cpu_seconds(pid)
    rates = [await storm(write, STORM) for _ in range(STORMS)]
    used, after = cpu_seconds(pid) - cpu, await writer.status()
    count = after.commits - before.commits
    return statistics.median(rates), count / max(1, after.syncs - before.syncs), used / count * 1e6


async def measure(place: Site, kind: str) -> list[Result]:
    options: dict[str, Any] = {"redo_log_device": str(place.folder / "device")} if kind == "block" else {}
    process = place.start(name=kind, seed=place.seed(), redo_log=kind, **options)
    disk = Bare(place.state(name=kind) / "bare")
    try:
        async with client(place.bus) as writer:
            await writer.status()
            await writer.make_rows(ROWS)
            p50, sync, call, p99 = await alone(writer, disk)
            rate, group, cpu = await together(writer, process.pid)
    finally:
        disk.close()
        place.stop()
    print(f"{kind}: transact {p50:.2f} ms, p99 {p99:.2f}; fdatasync {sync:.2f}, bare call {call:.2f}", flush=True)
    aims = kind == "file"
    both = "fdatasync + bare call"
    return [
        Result(
            name=f"transact alone p50, {kind}",
            value=p50,
            unit="ms",
            reference=sync + call,
            reference_name=both,
            aim=1.5 if aims else None,
        ),
        Result(
            name=f"64 writers, {kind}",
            value=rate,
            unit="/s",
            reference=AIM_RATE,
            reference_name="aim",
            aim=1.0 if aims else None,
            better="more",
        ),
        Result(
            name="  transactions for each sync",
            value=group,
            unit="",
            reference=AIM_GROUP,
            reference_name="aim",
            aim=1.0 if aims else None,
            better="more",
        ),
        Result(
            name="  CPU of the database for each",
            value=cpu,
            unit="us",
            reference=1e6 / AIM_RATE,
            reference_name="one core at 3,000 /s",
        ),
    ]


async def all_logs(place: Site) -> list[Result]:
    results: list[Result] = []
    for kind in LOGS:
        begun = time.monotonic()
        results += await measure(place, kind)
        print(f"{kind} took {time.monotonic() - begun:.1f} s", flush=True)
    return results


def main() -> list[Result]:
    with site() as place:
        return uvloop.run(all_logs(place))


if __name__ == "__main__":
    print(table(main()))
