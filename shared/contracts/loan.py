"""A transfer's bytes by the connection of the client itself, which the API lends to the worker (`contracts.transfer`).

Nothing else is imported here: workers have to start within a fraction of a second.
"""

from __future__ import annotations

import struct
from typing import NamedTuple


class Lent(NamedTuple):
    """The first message on the socket of a transfer whose bytes pass another connection, with that one's descriptor
    (SCM_RIGHTS): the client of who comes, who neither reads nor writes it until the transfer has ended.

    `early`: bytes of the body that were read already; they follow this message. `left`: bytes of the body, with those;
    -1 if it ends with the connection. `stall`: seconds without a byte after which the client counts as gone. Of an
    export the last piece comes back through the socket, whose end is the stream's then: it is sent when the disk is
    closed. Of an import `Returned` comes back.
    """

    early: int
    left: int
    stall: float

    def pack(self) -> bytes:
        return _LENT.pack(*self)

    @classmethod
    def unpack(cls, data: bytes) -> Lent:
        return cls(*_LENT.unpack(data))


class Returned(NamedTuple):
    """`received`: bytes that were taken of the body. `ended`: the client has closed, which may have been too early."""

    received: int
    ended: bool

    def pack(self) -> bytes:
        return _RETURNED.pack(*self)

    @classmethod
    def unpack(cls, data: bytes) -> Returned:
        return cls(*_RETURNED.unpack(data))


_LENT = struct.Struct("<Iqd")
_RETURNED = struct.Struct("<Q?")
LENT_SIZE, RETURNED_SIZE = _LENT.size, _RETURNED.size
