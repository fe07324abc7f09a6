"""The folder of one SR: which file is what, reading and writing them. These methods block; run them in a worker thread.

.sr.json            which SR this is; its absence means that the right file system is not mounted here
.leases/            who has what activated (see `lease`), and which images are being merged (see `merging`)
.guard              locked while images are added, removed or rearranged, and while sidecars are changed
.paused-<host>      which datapath a host has paused to merge its images; written before it is
.tmp-<host>-<key>   an image in the making; removed when its host attaches the SR again
<name>.qcow2        an image, named by its backing file relative to the folder, so mount points may differ
<key>.json          a disk: which image it reads first, and what an image cannot say about itself; or, `hidden`, that
                    the image of this name is ours and nobody's disk
<.raw-key>          the data of a disk that several hosts write to (see `Sidecar.raw`)
<name>.cbt          changed blocks of a disk (see `changes`), named by its sidecar

A disk's key never changes, nor does the name of an image that a hypervisor may have open: what changes is which image
the sidecar names, in one atomic step.
"""

from __future__ import annotations

import logging
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import msgspec

from services.storage.plugins.errors import Failure, backend_failure, volume_missing
from services.storage.plugins.file import lease, qcow2
from services.storage.plugins.file.tree import Disk, Image, Tree
from services.storage.plugins.interface import SrStat, Unimplemented, Volume
from services.storage.plugins.space import space_of
from shared.bus.contract import Record
from shared.errors import ApiError

log = logging.getLogger("storage.file")

MARKER = ".sr.json"
GUARD = ".guard"
SUFFIX = ".qcow2"
SIDECAR = ".json"
LOG = ".cbt"
RAW = ".raw-"
_RESERVED = 256 << 10
"""Bytes that a just created image takes; what a disk costs at least, and a little more."""


class Marker(Record, frozen=True):
    uuid: str
    name: str = ""
    description: str = ""
    version: int = 1


class Tracking(Record, frozen=True):
    """What changed in a disk since `parent`, the disk (key) whose snapshot it continues, "" if none is known.

    It is what the log (name of a file, "" for none) says, and whatever the images hold that lie above the image `since`
    ("" for all of the disk's images).
    """

    parent: str = ""
    since: str = ""
    log: str = ""


class Sidecar(Record, frozen=True):
    """`origin`: what the disk was made from, "" for nothing; lets a repeated request find its result.

    `image`: what is read first, "" for the image that has the disk's own name. `empty`: the data were destroyed.
    `reset`: the image that each run of a VM begins with, "" for a disk that keeps what is written.
    `virtual_size`: for when the image cannot be read; the image's own header is right.
    `sharable`: what it was made as; earlier versions gave those images, too, and then it has one writer all the same.
    `raw`: it has no images but a file of just its bytes, since several hosts may write to it at once. It cannot branch.
    """

    uuid: str
    name: str = ""
    description: str = ""
    keys: dict[str, str] = {}
    hidden: bool = False
    read_only: bool = False
    virtual_size: int = 0
    origin: str = ""
    version: int = 1
    image: str = ""
    empty: bool = False
    reset: str = ""
    tracking: Tracking | None = None
    sharable: bool = False
    raw: bool = False


class Folder:
    def __init__(self, path: Path, uuid: str, host: str) -> None:
        self.path, self.uuid, self.host = path, uuid, host

    def image(self, name: str) -> Path:
        """Raises VDI_MISSING for what cannot be a key: it comes from outside and becomes a path."""
        if not name or name.startswith(".") or "/" in name or "\0" in name or len(name) > 200:
            raise volume_missing(self.uuid, name)
        return self.path / (name + SUFFIX)

    def sidecar(self, key: str) -> Path:
        return self.image(key).with_suffix(SIDECAR)

    def draft(self, name: str) -> Path:
        return self.path / f".tmp-{self.host}-{name}"

    def changes(self, name: str) -> Path:
        return self.path / (name + LOG)

    def raw(self, key: str) -> Path:
        return self.path / (RAW + self.image(key).name.removesuffix(SUFFIX))

    def uri(self, key: str) -> str:
        return f"file://{self.image(key)}"

    # -- the SR ------------------------------------------------------------------------------------------------------

    def check(self) -> None:
        """Raises SR_BACKEND_FAILURE_47 when the folder is not (or not any more) this SR."""
        try:
            marker = msgspec.json.decode((self.path / MARKER).read_bytes(), type=Marker)
        except FileNotFoundError:
            text = "the folder does not exist" if not self.path.is_dir() else "the folder holds no SR (not mounted?)"
            raise backend_failure(Failure.SR_UNAVAILABLE, f"{text}: {self.path}") from None
        except (OSError, msgspec.DecodeError) as error:
            raise backend_failure(Failure.SR_UNAVAILABLE, f"cannot read {self.path / MARKER}: {error}") from error
        if marker.uuid != self.uuid:
            raise backend_failure(Failure.SR_UNAVAILABLE, f"the folder holds another SR, {marker.uuid}: {self.path}")

    def check_writable(self) -> None:
        """Raises SR_BACKEND_FAILURE_461."""
        try:
            (self.path / lease.FOLDER).mkdir(mode=0o700, exist_ok=True)
            with tempfile.NamedTemporaryFile(dir=self.path, prefix=f".tmp-{self.host}-"):
                pass
        except OSError as error:
            raise backend_failure(
                Failure.NO_WRITE, f"cannot write to {self.path}: {error.strerror}", error.strerror
            ) from error

    def sweep(self) -> None:
        """Removes what a crash of this host left. The caller holds the SR's guard."""
        for draft in self.path.glob(f".tmp-{self.host}-*"):
            draft.unlink(missing_ok=True)
        lease.sweep(self.path, self.host)
        self.collect_garbage()

    def stat(self) -> SrStat:
        self.check()
        space = space_of(self.path)
        return SrStat(uuid=self.uuid, free_space=space.free, total_space=space.total)

    def room(self) -> int:
        """Free bytes; 0 when there is not enough for even an empty image."""
        space = os.statvfs(self.path)
        free = space.f_bavail * space.f_frsize
        return free if free >= _RESERVED and (space.f_favail > 1 or space.f_files == 0) else 0

    def names(self) -> tuple[list[str], list[str]]:
        """Of the images, and of the sidecars."""
        try:
            found = sorted(name for name in os.listdir(self.path) if name[0] != ".")
        except OSError as error:
            raise backend_failure(Failure.SR_SCAN, f"cannot list {self.path}: {error.strerror}") from error
        images = [name.removesuffix(SUFFIX) for name in found if name.endswith(SUFFIX)]
        return images, [name.removesuffix(SIDECAR) for name in found if name.endswith(SIDECAR)]

    def ls(self) -> list[Volume]:
        """A damaged image is listed too: a disk that vanishes from a scan is forgotten with all that refers to it."""
        self.check()
        volumes = []
        for key, side in self._disks():
            try:
                volumes.append(self._volume(key, side))
            except ApiError as error:
                if error.code != "VDI_MISSING":  # deleted since it was listed
                    volumes.append(self._described(key, side, side.virtual_size))
        return volumes

    def _disks(self) -> Iterator[tuple[str, Sidecar]]:
        images, sidecars = self.names()
        for key in sorted({*images, *sidecars}):
            try:
                side = self.read_sidecar(key)
            except ApiError as error:
                log.error("SR %s: %s", self.uuid, error)
                side = Sidecar(uuid=key, name=key, read_only=True)
            if not side.hidden:
                yield key, side

    # -- one disk ----------------------------------------------------------------------------------------------------

    def disk(self, key: str) -> Sidecar:
        """Raises VDI_MISSING, also for a hidden image."""
        side = self._read_sidecar(key)
        if side is None and not self.image(key).exists():
            self.check()
            raise volume_missing(self.uuid, key)
        if side is not None and side.hidden:
            raise volume_missing(self.uuid, key)
        return side or Sidecar(uuid=key, name=key)

    def volume(self, key: str) -> Volume:
        """Raises VDI_MISSING, also for a hidden image; SR_BACKEND_FAILURE_65."""
        return self._volume(key, self.disk(key))

    def top(self, key: str) -> str:
        """The image that a disk reads first. Raises VDI_MISSING, SR_BACKEND_FAILURE_65 for one without data,
        `Unimplemented` for a raw one: callers may have another way.
        """
        side = self.disk(key)
        if side.raw:
            raise Unimplemented(f"the disk {key} is raw: it has no images, which that would need")
        top = first(key, side)
        if not top:
            raise backend_failure(Failure.VDI_LOAD, f"the data of disk {key} were destroyed")
        return top

    def _volume(self, key: str, side: Sidecar) -> Volume:
        top = first(key, side)
        if side.raw and not self.raw(key).exists():
            raise volume_missing(self.uuid, key)
        try:
            size = self.header(top).virtual_size if top else side.virtual_size
        except ApiError as error:
            if error.code == "VDI_MISSING":
                raise volume_missing(self.uuid, key) from error
            raise
        return self._described(key, side, size)

    def _described(self, key: str, side: Sidecar, size: int) -> Volume:
        return Volume(
            key=key,
            uuid=side.uuid,
            name=side.name,
            description=side.description,
            read_write=not side.read_only,
            virtual_size=size,
            physical_utilisation=self._occupied(key, side),
            uri=[self.uri(key)],
            keys=side.keys,
            sharable=side.raw,
            cbt_enabled=side.tracking is not None,
        )

    def _occupied(self, key: str, side: Sidecar) -> int:
        """Bytes on the disk; what lies below an image belongs to others."""
        name = first(key, side)
        try:
            if side.raw:
                return self.raw(key).stat().st_blocks * 512
            return self.image(name).stat().st_blocks * 512 if name else 0
        except FileNotFoundError:
            return 0

    def header(self, name: str) -> qcow2.Header:
        """Of an image. Raises VDI_MISSING, SR_BACKEND_FAILURE_65."""
        try:
            return qcow2.read_header(self.image(name))
        except FileNotFoundError:
            self.check()
            raise volume_missing(self.uuid, name) from None
        except qcow2.NotQcow2 as error:
            raise backend_failure(Failure.VDI_LOAD, f"the image {name} is damaged: {error}") from error
        except OSError as error:
            raise backend_failure(Failure.IO, f"cannot read the image {name}: {error.strerror}") from error

    def allocated(self, name: str) -> list[tuple[int, int]]:
        """(offset, length) of what an image holds itself; see `qcow2.allocated`. Raises as `header`."""
        header = self.header(name)
        try:
            return list(qcow2.allocated(self.image(name), header))
        except qcow2.NotQcow2 as error:
            raise backend_failure(Failure.VDI_LOAD, f"the image {name} is damaged: {error}") from error

    def chain(self, key: str) -> list[str]:
        """The images of a disk, the one that is read first to begin with.

        Raises VDI_MISSING for the disk's own image, SR_BACKEND_FAILURE_65 when one that it needs is gone or damaged.
        """
        name = self.top(key)
        chain: list[str] = []
        while name and name not in chain:
            try:
                parent = backing_name(self.header(name))
            except ApiError as error:
                if error.code == "VDI_MISSING":
                    if not chain:
                        raise volume_missing(self.uuid, key) from error
                    raise backend_failure(
                        Failure.VDI_LOAD, f"the image {name}, which the disk {key} needs, is gone"
                    ) from error
                raise
            chain.append(name)
            name = parent
        return chain

    def adds_nothing(self, name: str) -> bool:
        """Whether an image that nobody writes to reads as the one below it."""
        header = self.header(name)
        if not header.backing or not qcow2.is_blank(self.image(name), header):
            return False
        return self.header(backing_name(header)).virtual_size == header.virtual_size

    def read_sidecar(self, key: str) -> Sidecar:
        """For an image that somebody put there without one: what can be said anyway."""
        return self._read_sidecar(key) or Sidecar(uuid=key, name=key)

    def _read_sidecar(self, key: str) -> Sidecar | None:
        path = self.sidecar(key)
        try:
            return msgspec.json.decode(path.read_bytes(), type=Sidecar)
        except FileNotFoundError:
            return None
        except (OSError, msgspec.DecodeError) as error:
            raise backend_failure(Failure.VDI_LOAD, f"cannot read {path}: {error}") from error

    def write_sidecar(self, key: str, side: Sidecar) -> None:
        replace_file(self.sidecar(key), msgspec.json.encode(side), self.draft(key + SIDECAR))

    def publish(self, name: str) -> None:
        """Makes a finished draft an image, durably."""
        draft = self.draft(name)
        sync(draft)
        os.replace(draft, self.image(name))
        sync(self.path)

    def forget(self, key: str) -> None:
        """There is no such disk any more. Its image stays until it is found to be garbage."""
        if self.image(key).exists():
            self.write_sidecar(key, Sidecar(uuid=key, hidden=True, read_only=True))
        else:
            self.sidecar(key).unlink(missing_ok=True)
            sync(self.path)

    # -- disks that share data ---------------------------------------------------------------------------------------

    def tree(self) -> Tree:
        names, sidecars = self.names()
        images, disks, damaged = [], [], []
        for key in sorted({*names, *sidecars}):
            try:
                side = self._read_sidecar(key)
                if side is None or not side.hidden:
                    known = side or Sidecar(uuid=key)
                    pins = (known.reset,) if known.reset else ()
                    disks.append(Disk(key=key, image=first(key, known), writable=not known.read_only, pins=pins))
                if key in names:
                    header = self.header(key)
                    images.append(Image(key, backing_name(header), header.virtual_size, ours=side is not None))
            except ApiError as error:
                if error.code != "VDI_MISSING":  # deleted since it was listed
                    damaged.append(key)
        return Tree(images, disks, damaged)

    def collect_garbage(self) -> list[str]:
        """Removes images that no disk needs; none while one is damaged. The caller holds the SR's guard."""
        tree = self.tree()
        if tree.damaged:
            log.warning("SR %s: no clean-up while images are damaged: %s", self.uuid, ", ".join(tree.damaged))
            return []
        unneeded = tree.garbage()
        for name in unneeded:
            self.image(name).unlink(missing_ok=True)
        images, sidecars = self.names()
        logs, raw = set(), set()
        for key in sidecars:
            side = self.read_sidecar(key)
            if side.hidden and key not in images:
                self.sidecar(key).unlink(missing_ok=True)
            elif side.tracking is not None:
                logs.add(side.tracking.log)
            if side.raw:
                raw.add(key)
        for path in self.path.glob(f"{RAW}*"):
            if path.name.removeprefix(RAW) not in raw:
                path.unlink(missing_ok=True)
        for path in self.path.glob(f"*{LOG}"):
            if path.stem not in logs:
                path.unlink(missing_ok=True)
        if unneeded:
            sync(self.path)
        return unneeded


def first(key: str, side: Sidecar) -> str:
    """The image that a disk reads first, "" for one without data."""
    return "" if side.empty or side.raw else side.image or key


def paused_note(folder: Folder) -> Path:
    return folder.path / f".paused-{folder.host}"


def backing_name(header: qcow2.Header) -> str:
    return os.path.basename(header.backing).removesuffix(SUFFIX)


def replace_file(path: Path, content: bytes, draft: Path) -> None:
    """Atomic and durable: readers see the old or the new content, also after a power loss."""
    try:
        with open(draft, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(draft, path)
    except OSError:
        draft.unlink(missing_ok=True)
        raise
    sync(path.parent)


def sync(path: Path) -> None:
    file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(file)
    finally:
        os.close(file)
