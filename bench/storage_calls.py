"""`python -m bench storage_calls`: creating, snapshotting, scanning and opening disks of a file SR, and what memory a
transfer takes.

A pool of processes with QEMU, its SR on the disk. Medians, of calls over HTTP as a client waits for them; opening is
asked of the storage service on the bus.
"""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import uvloop

from bench.result import Result
from bench.storage_pool import GIB, MIB, StoragePool, in_turns, running, seconds
from bench.vm import new_vm
from pool import plan
from shared.bus import amqp
from shared.contracts.storage import CLOSE, OPEN, Close, DiskOpen, Open

ROUNDS = 15
SNAPSHOTS = 8
SCANNED = 1000
LARGE = 8 * GIB
OVER_QEMU_IMG_MS = 10.0


def main() -> list[Result]:
    with running() as pool:
        results = [*_create(pool), *_snapshot(pool), *_scan(pool), *_open(pool), *_memory(pool)]
    print(f"bench: load average {os.getloadavg()[0]:.1f} at the end")
    return results


def _aim(name: str, value: float, unit: str, most: float) -> Result:
    return Result(name=name, value=value, unit=unit, reference_name="aim", reference=most, aim=1.0)


def _milliseconds(work: Callable[[], object]) -> float:
    begin = time.perf_counter()
    work()
    return (time.perf_counter() - begin) * 1000


def _create(pool: StoragePool) -> list[Result]:
    image = str(pool.images.parent / "alone.qcow2")
    command = ["qemu-img", "create", "-q", "-f", "qcow2", image, str(GIB)]
    taken = in_turns(
        ROUNDS, create=lambda: _milliseconds(lambda: pool.disk(GIB)), alone=lambda: seconds(command) * 1000
    )
    os.unlink(image)
    ours, alone = statistics.median(taken["create"]), statistics.median(taken["alone"])
    return [
        Result(name="VDI.create", value=ours, unit="ms", reference_name="qemu-img create", reference=alone),
        _aim("  more than qemu-img", ours - alone, "ms", OVER_QEMU_IMG_MS),
    ]


def _snapshot(pool: StoragePool) -> list[Result]:
    """Of a disk that a VM has open: QEMU changes over to a new image."""
    api = pool.api
    vm, vdi = new_vm(api, "bench"), pool.disk(GIB)
    vbd = {"VM": vm, "VDI": vdi, "userdevice": "0", "bootable": False, "mode": "RW", "type": "Disk", "empty": False}
    none = {"other_config": {}, "qos_algorithm_type": "", "qos_algorithm_params": {}}
    api.VBD.create({**vbd, **none})
    api.VM.start(vm, False, False)
    try:
        taken = [_milliseconds(lambda: api.VDI.snapshot(vdi, {})) for _ in range(SNAPSHOTS)]
    finally:
        api.VM.hard_shutdown(vm)
    return [_aim("VDI.snapshot, VM running", statistics.median(taken), "ms", 100.0)]


def _scan(pool: StoragePool) -> list[Result]:
    """Its images are found by the first scan; then nothing changes."""
    api = pool.api
    folder = pool.scratch / "many"
    folder.mkdir()
    (host,) = api.host.get_all()
    sr = api.SR.create(host, {"location": str(folder)}, "0", "many", "", "file", "user", False, {})
    first = folder / f"{uuid.uuid4()}.qcow2"
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", str(first), str(64 * MIB)], check=True)
    for _ in range(SCANNED - 1):
        shutil.copyfile(first, folder / f"{uuid.uuid4()}.qcow2")
    found = _milliseconds(lambda: api.SR.scan(sr))
    assert len(api.SR.get_VDIs(sr)) == SCANNED, "the scan has not found all images"
    again = [_milliseconds(lambda: api.SR.scan(sr)) for _ in range(5)]
    return [
        _aim(f"SR.scan of {SCANNED:,} VDIs", statistics.median(again) / 1000, "s", 1.0),
        Result(
            name="  that finds them",
            value=found / 1000,
            unit="s",
            reference_name="nothing new",
            reference=statistics.median(again) / 1000,
        ),
    ]


def _open(pool: StoragePool) -> list[Result]:
    api, vdi = pool.api, pool.disk(GIB)
    found = plan.load(pool.directory)
    assert found is not None
    disk = DiskOpen(
        dp=f"vbd/{uuid.uuid4()}/0", sr=api.SR.get_uuid(pool.sr), location=api.VDI.get_location(vdi), writable=True
    )
    taken = uvloop.run(_opened(_bus_url(pool.directory), found.hosts[0].uuid, disk))
    return [_aim("attach and activate", statistics.median(taken), "ms", 30.0)]


async def _opened(url: str, host: str, disk: DiskOpen) -> list[float]:
    """Milliseconds of each."""
    bus = await amqp.connect(url, "bench-storage")
    taken = []
    try:
        for _ in range(ROUNDS):
            begin = time.perf_counter()
            await bus.call(OPEN, Open(disks=[disk]), host=host)
            taken.append((time.perf_counter() - begin) * 1000)
            await bus.call(CLOSE, Close(dps=[disk.dp]), host=host)
    finally:
        await bus.close()
    return taken


def _bus_url(directory: Path) -> str:
    lines = (directory / "host1" / "storage.toml").read_text().splitlines()
    return next(line.partition("=")[2].strip().strip('"') for line in lines if line.startswith("url"))


# ---- memory


def _memory(pool: StoragePool) -> list[Result]:
    """While disks of 1 and of 8 GiB are exported whole. Both begin with the same data and go on as zeros."""
    data = pool.raw_file(256 * MIB)
    peaks = []
    for size in (GIB, LARGE):
        vdi = pool.disk(size)
        pool.import_(vdi, "raw", data)
        with _watched(pool) as peak:
            pool.export(vdi, "raw")
        peaks.append(peak)
    small, large = peaks
    return [
        Result(
            name=f"{what}, exporting 8 GiB",
            value=large[name],
            unit="MiB",
            reference_name="1 GiB",
            reference=small[name],
            aim=1.2,
        )
        for name, what in (("worker", "worker's memory"), ("storage", "service's memory"), ("api", "API's memory"))
    ]


@contextmanager
def _watched(pool: StoragePool) -> Iterator[dict[str, float]]:
    """The most that each process has had resident, in MiB; complete afterwards."""
    peak = {"worker": 0.0, "storage": 0.0, "api": 0.0}
    services = {name: pool.service(name) for name in ("storage", "api")}
    over = threading.Event()

    def watch() -> None:
        while not over.wait(0.05):
            for name, process in (*services.items(), ("worker", pool.worker())):
                if process is not None:
                    peak[name] = max(peak[name], _resident(process))

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield peak
    finally:
        over.set()
        watcher.join()


def _resident(process: psutil.Process) -> float:
    """0 for one that has just ended."""
    try:
        return float(process.memory_info().rss) / MIB
    except psutil.NoSuchProcess:
        return 0.0
