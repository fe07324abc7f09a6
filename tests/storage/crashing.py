"""Run as a program: opens and closes disks in processes that kill themselves at the n-th checkpoint, for every n.

    python -m tests.storage.crashing FOLDER KIND

Each scenario prints one JSON line: where it died, what it had been told, and what a restarted host finds and can do.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any

from services.storage.datapaths import Datapaths
from shared.contracts.storage import DiskOpen
from tests.storage.support import HOST_A, HOST_B, SR, Machine, machine, with_disk, with_sr

DPS = ["vbd/vm/0", "vbd/vm/1"]


def main(folder: Path, kind: str) -> None:
    for scenario in ("open", "close"):
        n = 1
        while True:
            place = folder / f"{scenario}-{n}"
            place.mkdir()
            _forked(partial(_prepare, place, kind, scenario))
            died = _forked(partial(_work, place, scenario, n))
            report = place / "report"
            _forked(partial(_inspect, place, report))
            checkpoint = (place / "checkpoint").read_text()
            found: dict[str, Any] = json.loads(report.read_text())
            print(json.dumps({"scenario": scenario, "died": died, "checkpoint": checkpoint, **found}), flush=True)
            if not died:
                break
            n += 1


def _forked(work: Callable[[], Awaitable[None]]) -> bool:
    """Runs it in a process of its own, before which this one has no thread. True: it was killed."""
    child = os.fork()
    if not child:
        asyncio.run(_awaited(work))
        os._exit(0)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        return True
    if status:
        sys.exit(f"a step failed with status {status}")
    return False


async def _awaited(work: Callable[[], Awaitable[None]]) -> None:
    await work()


async def _prepare(place: Path, kind: str, scenario: str) -> None:
    async with machine(place / "state", HOST_A, HOST_B) as made:
        for host in (HOST_A, HOST_B):
            await with_sr(made[host], place / "sr", kind)
        locations = [await with_disk(made[HOST_A]) for _ in DPS]
        (place / "locations").write_text(json.dumps(locations))
        if scenario == "close":
            await made[HOST_A].datapaths.open(_disks(place))


async def _work(place: Path, scenario: str, n: int) -> None:
    passed = 0

    def checkpoint(name: str) -> None:
        nonlocal passed
        passed += 1
        (place / "checkpoint").write_text(name)
        if passed == n:
            os.kill(os.getpid(), signal.SIGKILL)

    async with machine(place / "state", HOST_A, HOST_B) as made:
        _set_checkpoint(made[HOST_A].datapaths, checkpoint)
        if scenario == "open":
            await made[HOST_A].datapaths.open(_disks(place))
        else:
            await made[HOST_A].datapaths.close(DPS)


def _set_checkpoint(datapaths: Datapaths, checkpoint: Callable[[str], None]) -> None:
    """Only now: what a restart does is not what is tested here."""
    datapaths.checkpoint = checkpoint


async def _inspect(place: Path, report: Path) -> None:
    async with machine(place / "state", HOST_A, HOST_B) as made:
        found: dict[str, Any] = {"held": [f"{dp.dp} {dp.state}" for dp in made[HOST_A].datapaths.held()]}
        found["elsewhere"] = await _openable(made, HOST_B, place)
        await made[HOST_A].datapaths.open(_disks(place)) if found["held"] else None
        await made[HOST_A].datapaths.close(DPS)
        found["after close"] = await _openable(made, HOST_B, place)
        leases = place / "sr" / ".leases"
        found["leases"] = [name for name in os.listdir(leases) if "guard" not in name] if leases.exists() else []
    await asyncio.to_thread(report.write_text, json.dumps(found))


async def _openable(made: Machine, host: str, place: Path) -> list[bool]:
    """Which of the disks another host can write to now; it lets go of them again."""
    result = []
    for disk in _disks(place):
        wanted = DiskOpen(dp="vbd/elsewhere/0", sr=SR, location=disk.location, writable=True)
        outcome = await asyncio.gather(made[host].datapaths.open([wanted]), return_exceptions=True)
        result.append(not isinstance(outcome[0], BaseException))
        await made[host].datapaths.close([wanted.dp])
    return result


def _disks(place: Path) -> list[DiskOpen]:
    locations = json.loads((place / "locations").read_text())
    return [
        DiskOpen(dp=dp, sr=SR, location=location, writable=dp == DPS[0])
        for dp, location in zip(DPS, locations, strict=True)
    ]


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
