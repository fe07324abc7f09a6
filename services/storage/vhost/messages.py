"""What the front end of vhost-user says to a device's server, on a Unix socket (QEMU, docs/interop/vhost-user.rst)."""

from __future__ import annotations

import array
import socket
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

_HEADER = struct.Struct("<III")
_WORD = struct.Struct("<Q")
_STATE = struct.Struct("<II")
_REGION = struct.Struct("<QQQQ")
_ADDRESSES = struct.Struct("<IIQQQQ")
_VERSION: Final = 1
_REPLY: Final = 1 << 2

VERSION_1: Final = 1 << 32
PROTOCOL_FEATURES: Final = 1 << 30
"""The back end has features of the protocol: a ring is to be enabled then."""


class Request(IntEnum):
    GET_FEATURES = 1
    SET_FEATURES = 2
    SET_OWNER = 3
    SET_MEM_TABLE = 5
    SET_VRING_NUM = 8
    SET_VRING_ADDR = 9
    SET_VRING_BASE = 10
    SET_VRING_KICK = 12
    SET_VRING_CALL = 13
    GET_PROTOCOL_FEATURES = 15
    SET_PROTOCOL_FEATURES = 16
    SET_VRING_ENABLE = 18


class VhostError(Exception):
    """The other side is no server of a device, or not one of this kind."""


@dataclass(frozen=True, slots=True)
class Region:
    """Memory of ours that the device may use: `base` is where it has it, `address` where we do."""

    descriptor: int
    size: int
    base: int
    address: int


@dataclass(frozen=True, slots=True)
class Queue:
    """`descriptors`, `used`, `available`: addresses, as we have them. `kick`, `call`: event descriptors, by which the
    device is told of requests and tells of answers.
    """

    entries: int
    descriptors: int
    used: int
    available: int
    kick: int
    call: int


def set_up(connection: socket.socket, regions: Sequence[Region], queue: Queue) -> None:
    """Starts the device with one queue. The connection blocks, with a timeout. Raises OSError, `VhostError`."""
    features = _ask(connection, Request.GET_FEATURES)
    if not features & VERSION_1:
        raise VhostError("the device is older than virtio 1.0")
    _say(connection, Request.SET_OWNER)
    if features & PROTOCOL_FEATURES:
        _ask(connection, Request.GET_PROTOCOL_FEATURES)
        _say(connection, Request.SET_PROTOCOL_FEATURES, _WORD.pack(0))
    _say(connection, Request.SET_FEATURES, _WORD.pack(VERSION_1 | features & PROTOCOL_FEATURES))
    table = b"".join(_REGION.pack(each.base, each.size, each.address, 0) for each in regions)
    descriptors = [each.descriptor for each in regions]
    _say(connection, Request.SET_MEM_TABLE, _STATE.pack(len(regions), 0) + table, descriptors)
    _say(connection, Request.SET_VRING_NUM, _STATE.pack(0, queue.entries))
    _say(connection, Request.SET_VRING_BASE, _STATE.pack(0, 0))
    addresses = _ADDRESSES.pack(0, 0, queue.descriptors, queue.used, queue.available, 0)
    _say(connection, Request.SET_VRING_ADDR, addresses)
    _say(connection, Request.SET_VRING_CALL, _WORD.pack(0), [queue.call])
    _say(connection, Request.SET_VRING_KICK, _WORD.pack(0), [queue.kick])
    if features & PROTOCOL_FEATURES:
        _say(connection, Request.SET_VRING_ENABLE, _STATE.pack(0, 1))
    _ask(connection, Request.GET_FEATURES)  # messages are taken in turn: all of the above has been


def _say(connection: socket.socket, request: Request, data: bytes = b"", descriptors: Sequence[int] = ()) -> None:
    ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))] if descriptors else []
    connection.sendmsg([_HEADER.pack(request, _VERSION, len(data)) + data], ancillary)


def _ask(connection: socket.socket, request: Request) -> int:
    _say(connection, request)
    answered, flags, size = _HEADER.unpack(_receive(connection, _HEADER.size))
    if answered != request or not flags & _REPLY or size != _WORD.size:
        raise VhostError(f"{request.name} is answered with {answered}, {size} bytes")
    (word,) = _WORD.unpack(_receive(connection, size))
    return int(word)


def _receive(connection: socket.socket, length: int) -> bytes:
    data = b""
    while len(data) < length:
        part = connection.recv(length - len(data))
        if not part:
            raise VhostError("the server has closed the connection")
        data += part
    return data
