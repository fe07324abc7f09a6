"""Who has an image activated, written next to it: the exclusion between hosts that share the folder.

`.leases/<key>.writer` is there while one host may write, `.leases/<key>.reader.<host>` while a host reads. Each holds
the host and datapath. A writer excludes everybody of another host; readers exclude writers of other hosts.

- Changes are made under a lock of the image's guard file (`Guard`), which the kernel (or the file server) drops when
  its holder dies, so a check and the write after it are one step. A writer's lease is also made by link(2), which fails
  if there is one: where locks are not passed between machines, two writers are still impossible.
- A lease says nothing about being alive, and is never taken for stale by its age: a host that is paused, cut off, or
  whose storage service is down may still have a VM that writes. It goes away when its host releases it, when the same
  host activates again, or by `fence` for a host that is known not to run.
- It is not synced: it protects against hosts that run, and its own host's journal brings it back after a power loss.

These functions block; they run in the SR's worker threads.
"""

from __future__ import annotations

import fcntl
import os
import time
import zlib
from pathlib import Path

import msgspec

from services.storage.plugins.interface import Domain
from shared.bus.contract import Record

FOLDER = ".leases"
_GUARDS = 64
"""Guard files of an SR; images share them by hash, so none has to be made or removed with its image."""


class Lease(Record, frozen=True):
    """`since`: Unix time, for people."""

    host: str
    dp: str
    since: float


class Busy(Exception):
    """Somebody else holds the guard just now."""


class Taken(Exception):
    """Another host's lease forbids it."""

    def __init__(self, lease: Lease) -> None:
        self.lease = lease
        super().__init__(f"{lease.host} {lease.dp}")


class Guard:
    """An exclusive lock on a file, of this file description alone: it also works between hosts in one process."""

    def __init__(self, path: Path) -> None:
        """Raises `Busy`, OSError."""
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(self._file)
            raise Busy(str(path)) from None
        except OSError:
            os.close(self._file)
            raise

    def close(self) -> None:
        os.close(self._file)

    def __enter__(self) -> Guard:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def guard_path(folder: Path, key: str) -> Path:
    return folder / FOLDER / f"guard.{zlib.crc32(key.encode()) % _GUARDS}"


def acquire(folder: Path, key: str, domain: Domain, writable: bool) -> None:
    """Raises `Busy`, `Taken`."""
    with Guard(guard_path(folder, key)):
        foreign = others(folder, key, domain.host)
        for lease, writes in foreign:
            if writes or writable:
                raise Taken(lease)
        writer, reader = _writer(folder, key), _reader(folder, key, domain.host)
        # what is left of this host's own earlier activation gives way
        writer.unlink(missing_ok=True)
        reader.unlink(missing_ok=True)
        lease = Lease(host=domain.host, dp=domain.dp, since=time.time())
        _link(folder, writer if writable else reader, lease)


def release(folder: Path, key: str, host: str) -> None:
    """Raises `Busy`. A lease that is not there, or another host's, is left alone."""
    with Guard(guard_path(folder, key)):
        writer = _writer(folder, key)
        lease = _read(writer)
        if lease is not None and lease.host == host:
            writer.unlink(missing_ok=True)
        _reader(folder, key, host).unlink(missing_ok=True)


def others(folder: Path, key: str, host: str = "") -> list[tuple[Lease, bool]]:
    """Leases on an image but those of `host`, each with True for a writer's."""
    return [(lease, writes) for _, lease, writes in _all(folder, key) if lease.host != host]


def everything(folder: Path) -> list[tuple[str, Lease, bool]]:
    """(key, lease, True for a writer's) of all hosts."""
    return _all(folder)


def held(folder: Path, host: str) -> list[tuple[str, Lease, bool]]:
    """(key, lease, True for a writer's) of one host."""
    return [found for found in _all(folder) if found[1].host == host]


def fence(folder: Path, host: str) -> int:
    """Raises `Busy`; what was removed until then stays removed."""
    count = 0
    for key, lease, writes in _all(folder):
        if lease.host == host:
            with Guard(guard_path(folder, key)):
                (_writer(folder, key) if writes else _reader(folder, key, host)).unlink(missing_ok=True)
            count += 1
    return count


def sweep(folder: Path, host: str) -> None:
    """Removes this host's unfinished drafts, after a crash."""
    for draft in (folder / FOLDER).glob(f".draft.{host}.*"):
        draft.unlink(missing_ok=True)


def _all(folder: Path, only: str | None = None) -> list[tuple[str, Lease, bool]]:
    """(key, lease, True for a writer's). Names are looked at first: files of other images are not opened."""
    result = []
    for name in os.listdir(folder / FOLDER):
        if name.endswith(".writer"):
            key, writes = name.removesuffix(".writer"), True
        elif ".reader." in name:
            key, writes = name.rpartition(".reader.")[0], False
        else:
            continue
        if only is not None and key != only:
            continue
        lease = _read(folder / FOLDER / name)
        if lease is not None:
            result.append((key, lease, writes))
    return result


def _read(path: Path) -> Lease | None:
    """None: no lease. One that cannot be read counts, as nobody's, so that it blocks until somebody looks."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=Lease)
    except FileNotFoundError:
        return None
    except msgspec.DecodeError:
        return Lease(host="", dp=f"an unreadable lease, {path}", since=0.0)


def _link(folder: Path, path: Path, lease: Lease) -> None:
    """Writes the lease so that it appears whole, and only if there is none."""
    draft = folder / FOLDER / f".draft.{lease.host}.{os.getpid()}.{time.monotonic_ns()}"
    draft.write_bytes(msgspec.json.encode(lease))
    try:
        os.link(draft, path)
    except FileExistsError:
        raise Taken(_read(path) or lease) from None
    finally:
        draft.unlink()


def _writer(folder: Path, key: str) -> Path:
    return folder / FOLDER / f"{key}.writer"


def _reader(folder: Path, key: str, host: str) -> Path:
    return folder / FOLDER / f"{key}.reader.{host}"
