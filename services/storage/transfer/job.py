"""What a worker is told and what it tells: JSON objects, one a line, in its standard input and output.

Nothing heavy is imported here: a worker is to start within a fraction of a second.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any, Literal

Way = Literal["export", "import", "copy", "checksum"]
Range = tuple[int, int]
"""Offset and length in bytes."""


@dataclass(frozen=True, slots=True)
class Disk:
    """`nbd`: address of its export; "" for a disk without content, which reads as zeros and takes anything.

    `size`: bytes. `vhost`: socket on which its server has the data by vhost-user, "" if there is NBD alone.
    `image`, `format`: file of the image, "" for a disk that may be written, or has none.
    """

    nbd: str
    size: int
    vhost: str = ""
    image: str = ""
    format: str = ""


@dataclass(frozen=True, slots=True)
class Job:
    """One transfer. `disk`: what is read (`export`, `copy`, `checksum`) or written (`import`). `path`: of the socket
    that the worker makes and its client comes to, within `patience` seconds; it may have `lent` a connection.

    `base`: only what differs from it is sent; `changed`: where it may differ, None if that has to be found by reading
    both. `uuid`, `base_uuid`: for formats that name disks. `target`, `zeroed`: of a copy. The others as in
    `shared.contracts.transfer`.
    """

    way: Way
    disk: Disk
    format: str = "raw"
    uuid: str = ""
    base: Disk | None = None
    base_uuid: str = ""
    changed: list[Range] | None = None
    target: Disk | None = None
    zeroed: bool = False
    length: int | None = None
    chunked: bool = False
    differences: bool = False
    prefix: str = ""
    path: str = ""
    lent: bool = False
    patience: float = 60.0


@dataclass(frozen=True, slots=True)
class Ready:
    """All is open. `length`: bytes that the stream of an export will have, None if that is not known."""

    length: int | None = None


@dataclass(frozen=True, slots=True)
class Progress:
    """`part`: 0 to 1."""

    part: float


@dataclass(frozen=True, slots=True)
class Ended:
    """Bytes of the stream, and bytes that were read from or written to the disk as data. `md5`: of a checksum."""

    stream: int
    data: int
    md5: str = ""


Kind = Literal["format", "full", "disk", "client", "internal"]


@dataclass(frozen=True, slots=True)
class Failed:
    """`kind`: what is to blame: the stream, the SR's space, the disk, who came to the socket (or did not), the worker
    itself.
    """

    kind: Kind
    text: str


Told = Ready | Progress | Ended | Failed
_TOLD: dict[str, type[Told]] = {each.__name__: each for each in (Ready, Progress, Ended, Failed)}


def pack(told: Told) -> bytes:
    return json.dumps({"told": type(told).__name__, **asdict(told)}).encode() + b"\n"


def unpack(line: bytes) -> Told:
    """Raises ValueError."""
    found: dict[str, Any] = json.loads(line)
    try:
        return _TOLD[found.pop("told")](**found)
    except (KeyError, TypeError) as error:
        raise ValueError(f"not what a worker tells: {line!r}") from error


def pack_job(job: Job) -> bytes:
    return json.dumps(asdict(job)).encode() + b"\n"


def unpack_job(line: bytes) -> Job:
    found: dict[str, Any] = json.loads(line)
    for name in ("disk", "base", "target"):
        if found[name] is not None:
            found[name] = Disk(**found[name])
    if found["changed"] is not None:
        found["changed"] = [(offset, length) for offset, length in found["changed"]]
    return Job(**found)
