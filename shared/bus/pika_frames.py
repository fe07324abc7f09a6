"""The frames of a message, written and read in one piece: what nearly all bytes on a connection are.

pika makes an object of each frame and looks up callbacks for it, four times the work of everything else that a call
costs on its way. What is not said here (other methods, other properties, bodies of several frames) is left to pika,
frame by frame.
"""

from __future__ import annotations

from struct import Struct
from typing import Any, Final

import pika.exceptions
from pika.connection import Connection
from pika.spec import Basic, BasicProperties

_FRAME: Final = Struct(">BHI")
"""Type, channel, length; then so many bytes and `_END`."""
_CONTENT: Final = Struct(">HHQH")
"""Class, weight, length of the body, flags of the properties that follow."""
_CLASS, _WEIGHT = 60, 0
_TAG: Final = Struct(">QB")
_END: Final = b"\xce"
_METHOD, _HEADER, _BODY, _HEARTBEAT = 1, 2, 3, 8
_PUBLISH: Final = b"\0\x3c\0\x28\0\0"
_DELIVER: Final = b"\0\x3c\0\x3c"

_CONTENT_TYPE, _DELIVERY_MODE = 1 << 15, 1 << 12
_CORRELATION_ID, _REPLY_TO, _EXPIRATION, _TYPE = 1 << 10, 1 << 9, 1 << 8, 1 << 5
_KNOWN: Final = _CONTENT_TYPE | _DELIVERY_MODE | _CORRELATION_ID | _REPLY_TO | _EXPIRATION | _TYPE


def _short(text: str) -> bytes:
    raw = text.encode()
    if len(raw) > 255:
        raise pika.exceptions.ShortStringTooLong(raw)
    return bytes((len(raw),)) + raw


def _frame(kind: int, channel: int, payload: bytes) -> bytes:
    return _FRAME.pack(kind, channel, len(payload)) + payload + _END


# ---- writing


def request_properties(correlation_id: str, reply_to: str, expiration: str, kind: str) -> bytes:
    flags = (_CORRELATION_ID | _REPLY_TO | _EXPIRATION | _TYPE).to_bytes(2, "big")
    return flags + _short(correlation_id) + _short(reply_to) + _short(expiration) + _short(kind)


def reply_properties(correlation_id: str) -> bytes:
    return _CORRELATION_ID.to_bytes(2, "big") + _short(correlation_id)


def published(channel: int, exchange: str, key: str, properties: bytes, body: bytes, mandatory: bool) -> bytes:
    """A message whose body fits into a frame. `properties`: flags and values."""
    method = _PUBLISH + _short(exchange) + _short(key) + (b"\1" if mandatory else b"\0")
    header = _CONTENT.pack(_CLASS, _WEIGHT, len(body), 0)[:-2] + properties
    begin = _frame(_METHOD, channel, method) + _frame(_HEADER, channel, header)
    return begin + _frame(_BODY, channel, body) if body else begin


# ---- reading


class Incoming:
    """What a connection has received and nobody has taken yet. `take` gives whole deliveries to their consumers, and
    every other frame to pika.
    """

    def __init__(self) -> None:
        self.over = False
        """The connection has ended: what is left is nobody's."""
        self._rest = b""

    def take(self, data: bytes, connection: Connection) -> None:
        """Raises what consumers raise, and pika for what is no frame."""
        data = self._rest + data if self._rest else data
        self._rest = b""
        at, length = 0, len(data)
        while length - at >= _FRAME.size and not self.over:
            kind, channel, size = _FRAME.unpack_from(data, at)
            if kind not in (_METHOD, _HEADER, _BODY, _HEARTBEAT):
                connection._on_data_available(data[at:])
                return
            end = at + _FRAME.size + size + 1
            if end > length:
                break
            if kind == _METHOD and data.startswith(_DELIVER, at + _FRAME.size):
                after = _delivery(data, at, end, channel, connection)
                if after is None:
                    break
                if after:
                    at = after
                    continue
            connection._on_data_available(data[at:end])
            at = end
        self._rest = data[at:]


def _delivery(data: bytes, at: int, end: int, channel: int, connection: Connection) -> int | None:
    """Calls the consumer. Returns where the delivery ends; None: not all of it is there; 0: pika has to take it.

    `end`: of its first frame.
    """
    length, head = len(data), _FRAME.size
    if end + head > length:
        return None
    kind, same, size = _FRAME.unpack_from(data, end)
    properties_end = end + head + size
    if kind != _HEADER or same != channel:
        return 0
    if properties_end + 1 > length:
        return None
    class_, _, body_size, flags = _CONTENT.unpack_from(data, end + head)
    if class_ != _CLASS or flags & ~_KNOWN:
        return 0
    after: int = properties_end + 1
    body = b""
    if body_size:
        if after + head > length:
            return None
        kind, same, size = _FRAME.unpack_from(data, after)
        if kind != _BODY or same != channel or size != body_size:
            return 0
        if after + head + size + 1 > length:
            return None
        body = data[after + head : after + head + size]
        after += head + size + 1
    if not (data[end - 1] == data[properties_end] == data[after - 1] == _END[0]):
        return 0
    found = connection._channels.get(channel)
    place = at + head + len(_DELIVER)
    tag, place = _read_short(data, place)
    if found is None or tag in found._cancelled or (consumer := found._consumers.get(tag)) is None:
        return 0
    number, redelivered = _TAG.unpack_from(data, place)
    exchange, place = _read_short(data, place + _TAG.size)
    key, _ = _read_short(data, place)
    connection.bytes_received += after - at  # what the heartbeat looks at
    connection.frames_received += 3 if body_size else 2
    properties = _properties(data, end + head + _CONTENT.size, flags)
    consumer(found, Basic.Deliver(tag, number, bool(redelivered), exchange, key), properties, body)
    return after


def _properties(data: bytes, at: int, flags: int) -> BasicProperties:
    """In the order in which they come."""
    found: dict[str, Any] = {}
    if flags & _CONTENT_TYPE:
        found["content_type"], at = _read_short(data, at)
    if flags & _DELIVERY_MODE:
        found["delivery_mode"], at = data[at], at + 1
    if flags & _CORRELATION_ID:
        found["correlation_id"], at = _read_short(data, at)
    if flags & _REPLY_TO:
        found["reply_to"], at = _read_short(data, at)
    if flags & _EXPIRATION:
        found["expiration"], at = _read_short(data, at)
    if flags & _TYPE:
        found["type"], at = _read_short(data, at)
    return BasicProperties(**found)


def _read_short(data: bytes, at: int) -> tuple[str, int]:
    end = at + 1 + data[at]
    return data[at + 1 : end].decode(errors="replace"), end
