"""What a host that serves disks by NBD asks the API process on it: where it serves them, and to whom."""

from __future__ import annotations

from shared.bus.contract import Absent, Empty, Method, Record
from shared.contracts.storage import VdiRef


class Serving(Record, frozen=True):
    """IP addresses at which a host serves disks. `tls`: only inside TLS; else without."""

    addresses: list[str] = []
    tls: bool = True


class Known(Record, frozen=True):
    """What the caller knows; None: nothing yet."""

    serving: Serving | None = None


class DiskRequest(Record, frozen=True):
    """`session`: reference, as the client gave it. `vdi`, `base`: uuids; `base` "": not asked for.

    `connection`: names the client from now on, among all there ever are.
    """

    session: str
    vdi: str
    base: str = ""
    connection: str = ""


class Reading(Record, frozen=True):
    """Connections, as in `DiskRequest`."""

    connections: list[str]


class ServedDisk(Record, frozen=True):
    disk: VdiRef
    base: VdiRef | None = None


NBD_SERVING = Method(
    "api",
    "nbd_serving",
    Known,
    Serving,
    "Where the host serves disks; answers when that is not what the caller knows, or after a while.",
    timeout=60,
    absent=Absent.WAIT,
)
NBD_DISK = Method(
    "api",
    "nbd_disk",
    DiskRequest,
    ServedDisk,
    "The disk that a session may read by NBD; from then on a VBD of the host's control domain says so.",
    timeout=30,
    absent=Absent.WAIT,
    errors=("SESSION_INVALID", "RBAC_PERMISSION_DENIED", "UUID_INVALID", "VDI_INCOMPATIBLE_TYPE"),
)
NBD_READING = Method(
    "api",
    "nbd_reading",
    Reading,
    Empty,
    "These clients are all that read from the host now, or are about to: the VBDs of others go.",
    timeout=30,
    absent=Absent.WAIT,
)
