"""Where the edge listens, and what it puts up with there."""

from __future__ import annotations

from enum import Enum

import msgspec


class Limits(msgspec.Struct, frozen=True):
    """`header_*`: bytes of a request's head; browsers need more than the original's 1024, and pages are on TLS only.

    Seconds: `first_read` between reads of a connection's first request, `first_total` for all of it, `stall` between
    reads of a later one, `linger` for a client to read an error before the connection goes, `stream` between two bytes
    of a handler's body or reply.

    `handshakes`: of TLS, in progress. Silent ones last 10 s and hold 56 kB each, 170 MB in all; those of clients that
    talk take milliseconds, and there is room for more of them than the backlogs of two listeners hold.
    """

    header_plain: int = 1024
    header_tls: int = 16 * 1024
    header_unix: int = 1024 * 1024
    first_read: float = 10.0
    first_total: float = 60.0
    stall: float = 60.0
    linger: float = 2.0
    stream: float = 600.0
    connections: int = 12_000
    handshakes: int = 3_000


class Kind(Enum):
    """What listens."""

    PLAIN = "HTTP"
    TLS = "HTTPS"
    UNIX = "the Unix socket"


class Endpoint(msgspec.Struct, frozen=True):
    """Where one host listens. `address`, `port`: TCP. `path`: Unix socket. Port 0: any free one."""

    host: str
    kind: Kind
    address: str = ""
    port: int = 0
    path: str = ""
