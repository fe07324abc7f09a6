"""Server side of the websocket protocol (RFC 6455), as far as a stream of bytes needs it: pure, no I/O."""

from __future__ import annotations

import base64
import hashlib
from enum import IntEnum

import msgspec

_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
MAX_FRAME = 1024 * 1024
"""Bytes of the largest frame a client may send: keystrokes and pointer movements are small."""


class Opcode(IntEnum):
    CONTINUATION = 0
    TEXT = 1
    BINARY = 2
    CLOSE = 8
    PING = 9
    PONG = 10


class Frame(msgspec.Struct, frozen=True):
    opcode: Opcode
    payload: bytes


class ProtocolError(Exception):
    """The peer broke the protocol. `code`: the status to close with."""

    def __init__(self, code: int, text: str) -> None:
        self.code = code
        super().__init__(text)


def accept(key: str) -> str:
    """The value of Sec-WebSocket-Accept for a client's Sec-WebSocket-Key."""
    return base64.b64encode(hashlib.sha1(key.encode() + _GUID, usedforsecurity=False).digest()).decode()


def frame(opcode: Opcode, payload: bytes) -> bytes:
    """A whole, unmasked message."""
    length = len(payload)
    if length < 126:
        head = bytes((0x80 | opcode, length))
    elif length < 65536:
        head = bytes((0x80 | opcode, 126)) + length.to_bytes(2, "big")
    else:
        head = bytes((0x80 | opcode, 127)) + length.to_bytes(8, "big")
    return head + payload


def close(code: int) -> bytes:
    return frame(Opcode.CLOSE, code.to_bytes(2, "big"))


class Reader:
    """Takes bytes in any pieces, gives frames. Fragments come as they arrive: a byte stream has no messages."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._in_message = False

    def feed(self, data: bytes) -> list[Frame]:
        """Raises `ProtocolError`."""
        self._buffer += data
        frames: list[Frame] = []
        while (found := self._next()) is not None:
            frames.append(found)
        return frames

    def _next(self) -> Frame | None:
        buffer = self._buffer
        if len(buffer) < 2:
            return None
        final, opcode = bool(buffer[0] & 0x80), self._opcode(buffer[0])
        if not buffer[1] & 0x80:
            raise ProtocolError(1002, "frames of a client are masked")
        length, start = buffer[1] & 0x7F, 2
        if opcode >= Opcode.CLOSE and (length > 125 or not final):
            raise ProtocolError(1002, "a control frame is short and whole")
        if length >= 126:
            start = 4 if length == 126 else 10
            if len(buffer) < start:
                return None
            length = int.from_bytes(buffer[2:start], "big")
        if length > MAX_FRAME:
            raise ProtocolError(1009, "the frame is too large")
        if len(buffer) < start + 4 + length:
            return None
        payload = _unmask(bytes(buffer[start + 4 : start + 4 + length]), bytes(buffer[start : start + 4]))
        del buffer[: start + 4 + length]
        if opcode < Opcode.CLOSE:
            if (opcode == Opcode.CONTINUATION) != self._in_message:
                raise ProtocolError(1002, "a fragment out of order")
            self._in_message = not final
        return Frame(opcode, payload)

    @staticmethod
    def _opcode(first: int) -> Opcode:
        if first & 0x70:
            raise ProtocolError(1002, "reserved bits are set")
        try:
            return Opcode(first & 0x0F)
        except ValueError:
            raise ProtocolError(1002, "unknown opcode") from None


def _unmask(payload: bytes, key: bytes) -> bytes:
    """XOR with the repeated key, as one operation on large integers."""
    length = len(payload)
    pattern = (key * (length // 4 + 1))[:length]
    return (int.from_bytes(payload, "big") ^ int.from_bytes(pattern, "big")).to_bytes(length, "big")
