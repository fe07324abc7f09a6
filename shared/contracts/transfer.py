"""The bytes of disks, into a host and out of it: export, import, copies between SRs (served by the storage service).

What goes to or comes from a client passes a Unix socket of the host, at the pace of the slower side; what is said about
it goes over the bus. A transfer is prepared (`EXPORT`, `IMPORT`), its bytes are passed, and `TRANSFER_END` tells how it
went. One whose socket nobody comes to, or that is cancelled, ends by itself and leaves nothing open. The API's process
says when it begins, so that nobody waits for the one before it.
"""

from __future__ import annotations

from typing import Literal

from shared.bus.contract import Empty, Method, Record, Replay
from shared.contracts.storage import LONG

Format = Literal["raw", "vhd", "qcow2", "tar"]

ONE_DAY = 86400.0


class Export(Record, frozen=True):
    """`base`: location, in the same SR, of the disk that only the differences from are sent ("" for all).

    `base_uuid`, `uuid`: as formats name them (the parent of a differencing VHD). `dp`: names the datapath, such as
    `task/<ref>`. `prefix`: folder of the entries of a tar. `lent`: who comes to the socket lends a connection
    (`shared.contracts.loan`). `process`: of the API, which comes to the socket; see `TRANSFERS_ABANDON`.
    """

    dp: str
    sr: str
    location: str
    uuid: str
    format: Format
    base: str = ""
    base_uuid: str = ""
    prefix: str = ""
    lent: bool = False
    process: str = ""


class Import(Record, frozen=True):
    """`length`: bytes that were announced, None if unknown. `chunked`: the raw format's own chunks (offset, length,
    data). `differences`: the disk holds the base that the stream's blocks go on top of, so absent blocks stay. `lent`,
    `process`: as in `Export`.
    """

    dp: str
    sr: str
    location: str
    format: Format
    length: int | None = None
    chunked: bool = False
    differences: bool = False
    prefix: str = ""
    lent: bool = False
    process: str = ""


class Prepared(Record, frozen=True):
    """`path`: Unix socket on that host. `length`: bytes that an export will have, None if that cannot be known."""

    transfer: str
    path: str
    length: int | None = None


class TransferId(Record, frozen=True):
    transfer: str


class Begun(Record, frozen=True):
    """`process`: of the host's API, as it calls itself since it began."""

    process: str


class Moved(Record, frozen=True):
    """Bytes through the socket, and bytes of the disk that were read or written as data. `md5`: hexadecimal, of a
    checksum.
    """

    stream: int
    data: int
    md5: str = ""


class Copy(Record, frozen=True):
    """From one disk to another that is there and large enough, asked of a host that has the source's SR attached.
    `to_host`: the one (uuid) that has the target's, "" if it is the same; it has the target open as `<dp>/far`.

    `base`, in the source's SR: only what differs from it is written. `zeroed`: the target reads as zeros where nothing
    was written, so zeros need not be.
    """

    dp: str
    sr: str
    location: str
    to_sr: str
    to_location: str
    base: str = ""
    zeroed: bool = True
    to_host: str = ""


class Checksum(Record, frozen=True):
    """As in `Export`."""

    dp: str
    sr: str
    location: str


_S = "storage"
_ERRORS = (
    *("SR_NOT_ATTACHED", "VDI_MISSING", "VDI_IN_USE", "VDI_READONLY", "VDI_TOO_LARGE", "SR_FULL"),
    *("IMPORT_ERROR", "VDI_COPY_FAILED", "TASK_CANCELLED", "SR_BACKEND_FAILURE_*"),
)

EXPORT = Method(
    _S,
    "export",
    Export,
    Prepared,
    "Opens a disk for reading and prepares a stream of it.",
    timeout=LONG,
    errors=_ERRORS,
)
IMPORT = Method(
    _S, "import", Import, Prepared, "Opens a disk for writing and prepares a stream.", timeout=LONG, errors=_ERRORS
)
TRANSFER_END = Method(
    _S,
    "transfer_end",
    TransferId,
    Moved,
    "Waits for the end of a transfer and tells how it went; progress on the task, which can be cancelled.",
    timeout=ONE_DAY,
    errors=_ERRORS,
)
TRANSFER_CANCEL = Method(_S, "transfer_cancel", TransferId, Empty, "Ends a transfer; its disk is closed when this is.")
TRANSFERS_ABANDON = Method(
    _S,
    "transfers_abandon",
    Begun,
    Empty,
    "Ends the transfers that were prepared for earlier processes of the host's API: nobody comes for those.",
    timeout=10,
)
COPY = Method(
    _S,
    "copy",
    Copy,
    Moved,
    "Copies a disk's content; progress on the task, which can be cancelled.",
    timeout=ONE_DAY,
    replay=Replay.ONCE,
    errors=_ERRORS,
)
CHECKSUM = Method(
    _S,
    "checksum",
    Checksum,
    Moved,
    "The MD5 of a disk's content; progress on the task, which can be cancelled.",
    timeout=ONE_DAY,
    errors=_ERRORS,
)
