"""What a host knows about its domains, on disk, so that the next process of the service knows it too.

One small file for each VM, replaced as a whole. They are not synced: they have to outlive this process, not a power
failure, which ends the VMs too. For the same reason (tens of microseconds) they are written from the event loop.
"""

from __future__ import annotations

import logging
import os
from enum import StrEnum
from pathlib import Path

import msgspec

from services.vm.backend import Built, Disk, Domain
from shared.contracts.storage import Backend as DiskBackend
from shared.contracts.vm import PowerState, VbdSpec

log = logging.getLogger("vm.records")


class Phase(StrEnum):
    """BUILDING: nothing of it may survive this process. BUILT: it survives. RELEASING: it is on its way out."""

    BUILDING = "building"
    BUILT = "built"
    RELEASING = "releasing"


class Mirror(msgspec.Struct, frozen=True, kw_only=True):
    """A disk that the content of a domain's disk is mirrored to.

    `vbd`: as it will be. `dp`: datapath of the new disk until then. `backend`: where it is, once it is open.
    `landed`: the domain goes on with it; before that is written, neither disk has what the other lacks.
    """

    vbd: VbdSpec
    dp: str
    backend: DiskBackend | None = None
    landed: bool = False


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """`boot`: the machine's boot id, since a domain does not outlive its machine. `start_time`: Unix time.

    `built`: None before the domain is there, and when it is there no longer. `moving`: disks that may be open although
    the domain does not have them: on their way in or out. `mirrors`: one for each disk that is being moved. `stalled`:
    device of a disk without room, for which the domain stands still although nobody has paused it.
    """

    domain: Domain
    phase: Phase
    boot: str
    power_state: PowerState = PowerState.PAUSED
    start_time: float = 0.0
    built: Built | None = None
    moving: tuple[VbdSpec, ...] = ()
    mirrors: tuple[Mirror, ...] = ()
    stalled: str = ""

    @property
    def uuid(self) -> str:
        return self.domain.vm.uuid

    def mirror(self, device: str) -> Mirror | None:
        return next((mirror for mirror in self.mirrors if mirror.vbd.device == device), None)

    def with_mirror(self, mirror: Mirror) -> Record:
        return msgspec.structs.replace(self, mirrors=(*self.without(mirror).mirrors, mirror))

    def without(self, mirror: Mirror) -> Record:
        others = tuple(one for one in self.mirrors if one.vbd.device != mirror.vbd.device)
        return msgspec.structs.replace(self, mirrors=others)

    def moved(self, mirror: Mirror) -> Record:
        """The domain has the new disk in place of the former."""
        vbd, domain = mirror.vbd, self.domain
        vbds = [vbd if one.device == vbd.device else one for one in domain.vm.vbds]
        disks = tuple(Disk(vbd, mirror.backend) if one.spec.device == vbd.device else one for one in domain.disks)
        now = msgspec.structs.replace(domain, vm=msgspec.structs.replace(domain.vm, vbds=vbds), disks=disks)
        return msgspec.structs.replace(self.without(mirror), domain=now)


def boot_id() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


class Records:
    def __init__(self, folder: Path) -> None:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._folder = folder

    def load(self) -> list[Record]:
        """All of them. A file that is no record is set aside: its domain, if any, counts as half-built."""
        found = []
        for path in sorted(self._folder.glob("*.json")):
            try:
                found.append(msgspec.json.decode(path.read_bytes(), type=Record))
            except msgspec.DecodeError as error:
                log.error("%s is not a record of a VM and is set aside: %s", path, error)
                path.rename(path.with_suffix(".unreadable"))
        return found

    def put(self, record: Record) -> None:
        path = self._path(record.uuid)
        fresh = path.with_suffix(".new")
        fresh.write_bytes(msgspec.json.encode(record))
        fresh.rename(path)

    def remove(self, vm: str) -> None:
        self._path(vm).unlink(missing_ok=True)

    def _path(self, vm: str) -> Path:
        if "/" in vm or vm.startswith("."):
            raise ValueError(f"{vm!r} is not a uuid")
        return self._folder / f"{vm}.json"


class Counters:
    """Numbers of a host that never go back, not even when the service is killed.

    `next_seq` is time-ordered within a process and starts each process above all former ones.
    """

    _WIDTH = 20

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        epoch, self._domid = self._read()
        self._epoch = epoch + 1
        self._seq = self._epoch << 32
        self._write()

    @property
    def seq(self) -> int:
        """The newest sequence number given."""
        return self._seq

    def next_seq(self) -> int:
        self._seq += 1
        return self._seq

    def next_domid(self) -> int:
        self._domid += 1
        self._write()
        return self._domid

    def close(self) -> None:
        os.close(self._file)

    def _read(self) -> tuple[int, int]:
        words = os.pread(self._file, 2 * self._WIDTH + 2, 0).split()
        return (int(words[0]), int(words[1])) if len(words) == 2 else (0, 0)

    def _write(self) -> None:
        os.pwrite(self._file, f"{self._epoch:{self._WIDTH}d} {self._domid:{self._WIDTH}d}\n".encode(), 0)
