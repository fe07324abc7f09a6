"""The folder of one SR: which file is what, reading and writing them. These methods block; run them in a worker thread.

.sr.json            which SR this is; its absence means that the right file system is not mounted here
.leases/            who has what activated (see `lease`)
.guard              locked while images are added, removed or rearranged
.tmp-<host>-<key>   an image in the making; removed when its host attaches the SR again
<key>.qcow2         an image, named by its backing file relative to the folder, so mount points may differ
<key>.json          what the image cannot say about itself
"""

from __future__ import annotations

import logging
import os
import tempfile
from pathlib import Path

import msgspec

from services.storage.plugins.errors import Failure, backend_failure, volume_missing
from services.storage.plugins.file import lease, qcow2
from services.storage.plugins.file.tree import Node, garbage
from services.storage.plugins.interface import SrStat, Volume
from shared.bus.contract import Record
from shared.errors import ApiError

log = logging.getLogger("storage.file")

MARKER = ".sr.json"
GUARD = ".guard"
SUFFIX = ".qcow2"
_RESERVED = 256 << 10
"""Bytes that a just created image takes; what a disk costs at least, and a little more."""


class Marker(Record, frozen=True):
    uuid: str
    name: str = ""
    description: str = ""
    version: int = 1


class Sidecar(Record, frozen=True):
    """`origin`: what the disk was made from, "" for nothing; lets a repeated request find its result.

    `virtual_size`: for when the image cannot be read; the image's own header is right.
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


class Folder:
    def __init__(self, path: Path, uuid: str, host: str) -> None:
        self.path, self.uuid, self.host = path, uuid, host

    def image(self, key: str) -> Path:
        """Raises VDI_MISSING for what cannot be a key: it comes from outside and becomes a path."""
        if not key or key.startswith(".") or "/" in key or "\0" in key or len(key) > 200:
            raise volume_missing(self.uuid, key)
        return self.path / (key + SUFFIX)

    def sidecar(self, key: str) -> Path:
        return self.image(key).with_suffix(".json")

    def draft(self, key: str) -> Path:
        return self.path / f".tmp-{self.host}-{key}"

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
        for side in self.path.glob("*.json"):
            if not side.name.startswith(".") and not side.with_suffix(SUFFIX).exists():
                known = self._read_sidecar(side.stem)
                if known is not None and known.hidden:
                    side.unlink(missing_ok=True)
        lease.sweep(self.path, self.host)
        self.collect_garbage()

    def stat(self) -> SrStat:
        self.check()
        space = os.statvfs(self.path)
        return SrStat(
            uuid=self.uuid, free_space=space.f_bavail * space.f_frsize, total_space=space.f_blocks * space.f_frsize
        )

    def room(self) -> int:
        """Free bytes; 0 when there is not enough for even an empty image."""
        space = os.statvfs(self.path)
        free = space.f_bavail * space.f_frsize
        return free if free >= _RESERVED and (space.f_favail > 1 or space.f_files == 0) else 0

    def image_keys(self) -> list[str]:
        try:
            names = os.listdir(self.path)
        except OSError as error:
            raise backend_failure(Failure.SR_SCAN, f"cannot list {self.path}: {error.strerror}") from error
        return sorted(name.removesuffix(SUFFIX) for name in names if name.endswith(SUFFIX) and name[0] != ".")

    def ls(self) -> list[Volume]:
        """A damaged image is listed too: a disk that vanishes from a scan is forgotten with all that refers to it."""
        self.check()
        volumes = []
        for key in self.image_keys():
            side = self.read_sidecar(key)
            if not side.hidden:
                try:
                    volumes.append(self.volume(key))
                except ApiError as error:
                    if error.code != "VDI_MISSING":  # deleted since it was listed
                        volumes.append(self._damaged(key, side))
        return volumes

    # -- one disk ----------------------------------------------------------------------------------------------------

    def volume(self, key: str) -> Volume:
        """Raises VDI_MISSING, also for a hidden node; SR_BACKEND_FAILURE_65."""
        header, side = self.header(key), self.read_sidecar(key)
        if side.hidden:
            raise volume_missing(self.uuid, key)
        return Volume(
            key=key,
            uuid=side.uuid,
            name=side.name,
            description=side.description,
            read_write=not side.read_only,
            virtual_size=header.virtual_size,
            physical_utilisation=self._allocated(key),
            uri=[self.uri(key)],
            keys=side.keys,
        )

    def _damaged(self, key: str, side: Sidecar) -> Volume:
        return Volume(
            key=key,
            uuid=side.uuid,
            name=side.name,
            description=side.description,
            read_write=not side.read_only,
            virtual_size=side.virtual_size,
            physical_utilisation=self._allocated(key),
            uri=[self.uri(key)],
            keys=side.keys,
        )

    def _allocated(self, key: str) -> int:
        try:
            return self.image(key).stat().st_blocks * 512
        except FileNotFoundError:
            return 0

    def header(self, key: str) -> qcow2.Header:
        try:
            return qcow2.read_header(self.image(key))
        except FileNotFoundError:
            self.check()
            raise volume_missing(self.uuid, key) from None
        except qcow2.NotQcow2 as error:
            raise backend_failure(Failure.VDI_LOAD, f"the image {key} is damaged: {error}") from error
        except OSError as error:
            raise backend_failure(Failure.IO, f"cannot read the image {key}: {error.strerror}") from error

    def check_chain(self, key: str) -> None:
        """Raises what `header` raises, for the disk or, as SR_BACKEND_FAILURE_65, for a node that carries its data."""
        above = backing_key(self.header(key))
        seen = {key}
        while above and above not in seen:
            seen.add(above)
            try:
                above = backing_key(self.header(above))
            except ApiError as error:
                if error.code == "VDI_MISSING":
                    raise backend_failure(Failure.VDI_LOAD, f"the image {above}, which {key} needs, is gone") from error
                raise

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
        replace_file(self.sidecar(key), msgspec.json.encode(side))

    def publish(self, key: str) -> None:
        """Makes a finished draft the disk's image, durably."""
        draft = self.draft(key)
        _sync(draft)
        os.replace(draft, self.image(key))
        _sync(self.path)

    def share(self, key: str, parent: str) -> None:
        """Gives the image of `key` a second name, `parent`, under which its data stay when `key` gets a new image."""
        os.link(self.image(key), self.image(parent))
        _sync(self.path)

    def remove(self, key: str) -> None:
        """The image first: a sidecar alone is no disk."""
        self.image(key).unlink(missing_ok=True)
        self.sidecar(key).unlink(missing_ok=True)
        _sync(self.path)

    # -- disks that share data ---------------------------------------------------------------------------------------

    def nodes(self) -> tuple[list[Node], list[str]]:
        """Every image that can be read, and the keys of those that cannot: nobody knows what these need."""
        nodes, damaged = [], []
        for key in self.image_keys():
            try:
                parent, hidden = backing_key(self.header(key)), self.read_sidecar(key).hidden
            except ApiError as error:
                if error.code != "VDI_MISSING":  # deleted since it was listed
                    damaged.append(key)
                continue
            nodes.append(Node(key=key, parent=parent, hidden=hidden))
        return nodes, damaged

    def collect_garbage(self) -> list[str]:
        """Removes hidden nodes that no disk needs; none while an image is damaged. The caller holds the SR's guard."""
        nodes, damaged = self.nodes()
        if damaged:
            log.warning("SR %s: no clean-up while images are damaged: %s", self.uuid, ", ".join(damaged))
            return []
        unneeded = garbage(nodes)
        for key in unneeded:
            self.remove(key)
        return unneeded


def backing_key(header: qcow2.Header) -> str:
    return os.path.basename(header.backing).removesuffix(SUFFIX)


def replace_file(path: Path, content: bytes) -> None:
    """Atomic and durable: readers see the old or the new content, also after a power loss."""
    draft = path.with_name(f".new-{path.name}")
    try:
        with open(draft, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(draft, path)
    except OSError:
        draft.unlink(missing_ok=True)
        raise
    _sync(path.parent)


def _sync(path: Path) -> None:
    file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(file)
    finally:
        os.close(file)
