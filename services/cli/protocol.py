"""Frames of the thin CLI protocol (0.2), both ways: pure encoding and decoding, no I/O.

A conversation is: banner each way, then frames. A frame is a 4-byte length and a payload; the payload starts with a
class tag and a variant tag. Integers are 32 bits, little endian; a string is its length and its bytes. The protocol
knows no character set: text is UTF-8 here, and other bytes survive a round trip as surrogate escapes.

Messages are `NamedTuple`s, not dataclasses or msgspec records: the client imports this module and has to start fast.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any, NamedTuple

MAJOR, MINOR = 0, 2
MAGIC = b"XenSource thin CLI protocol"
BANNER = MAGIC + struct.pack("<ii", MAJOR, MINOR)
MAX_FRAME = 64 * 1024 * 1024
"""Bytes of the largest payload either side accepts; a list of everything in a big pool is one Print."""
MAX_LOAD = 32 * 1024 * 1024
"""Bytes of the largest file a server takes from a client in one Load."""

_INT = struct.Struct("<i")
_COMMAND, _RESPONSE, _BLOB = 9, 10, 11


class ProtocolError(Exception):
    """The peer sent what is not the protocol; the text says what."""


class Print(NamedTuple):
    """To standard output; the client adds a newline."""

    text: str


class PrintStderr(NamedTuple):
    """To standard error, exactly."""

    text: str


class Debug(NamedTuple):
    text: str


class Load(NamedTuple):
    """Answered with OK and a blob, or Failed."""

    filename: str


class Prompt(NamedTuple):
    """Answered with a blob: one line from standard input."""


class Exit(NamedTuple):
    """Always the last message. `code`: the client's exit status, 0 to 255."""

    code: int


class Error(NamedTuple):
    code: str
    params: tuple[str, ...]


class HttpGet(NamedTuple):
    """Download `url` to `filename` (standard output if empty). Answered with OK or Failed, as the next two."""

    filename: str
    url: str


class HttpPut(NamedTuple):
    filename: str
    url: str


class HttpConnect(NamedTuple):
    url: str


class OK(NamedTuple):
    pass


class Failed(NamedTuple):
    pass


class Wait(NamedTuple):
    """A sign of life during a long transfer; says nothing."""


class Chunk(NamedTuple):
    """`size` raw bytes follow the frame."""

    size: int


class End(NamedTuple):
    """The blob is complete."""


Command = Print | PrintStderr | Debug | Load | Prompt | Exit | Error | HttpGet | HttpPut | HttpConnect
Answer = OK | Failed | Wait | Chunk | End
Message = Command | Answer

_FIELDS: dict[tuple[int, int], tuple[Any, str]] = {
    (_COMMAND, 0): (Print, "s"),
    (_COMMAND, 1): (Load, "s"),
    (_COMMAND, 3): (Prompt, ""),
    (_COMMAND, 4): (Exit, "i"),
    (_COMMAND, 12): (HttpGet, "ss"),
    (_COMMAND, 13): (HttpPut, "ss"),
    (_COMMAND, 14): (Error, "sl"),
    (_COMMAND, 15): (Debug, "s"),
    (_COMMAND, 16): (PrintStderr, "s"),
    (_COMMAND, 17): (HttpConnect, "s"),
    (_RESPONSE, 5): (OK, ""),
    (_RESPONSE, 6): (Failed, ""),
    (_RESPONSE, 18): (Wait, ""),
    (_BLOB, 7): (Chunk, "i"),
    (_BLOB, 8): (End, ""),
}
"""(class tag, variant tag): the message and its fields; s string, i integer, l list of strings."""
_TAGS = {kind: (tags, fields) for tags, (kind, fields) in _FIELDS.items()}


def encode(message: Message) -> bytes:
    """The whole frame."""
    (group, variant), fields = _TAGS[type(message)]
    parts = [_INT.pack(group), _INT.pack(variant)]
    values: tuple[Any, ...] = message
    for kind, value in zip(fields, values, strict=True):
        if kind == "i":
            parts.append(_INT.pack(value))
        elif kind == "s":
            parts += _string(value)
        else:
            parts.append(_INT.pack(len(value)))
            for item in value:
                parts += _string(item)
    payload = b"".join(parts)
    return _INT.pack(len(payload)) + payload


def _string(text: str) -> tuple[bytes, bytes]:
    raw = text.encode("utf-8", "surrogateescape")
    return _INT.pack(len(raw)), raw


def decode(payload: bytes) -> Message:
    """The message in a frame's payload; bytes after its fields are ignored. Raises `ProtocolError`."""
    at = 0

    def integer() -> int:
        nonlocal at
        if at + 4 > len(payload):
            raise ProtocolError("a frame ends within an integer")
        at += 4
        value: int = _INT.unpack_from(payload, at - 4)[0]
        return value

    def string() -> str:
        nonlocal at
        size = integer()
        if size < 0 or at + size > len(payload):
            raise ProtocolError("a frame ends within a string")
        at += size
        return payload[at - size : at].decode("utf-8", "surrogateescape")

    def strings() -> tuple[str, ...]:
        count = integer()
        if count < 0 or count * 4 > len(payload) - at:
            raise ProtocolError("a frame ends within a list")
        return tuple(string() for _ in range(count))

    tags = (integer(), integer())
    if tags not in _FIELDS:
        raise ProtocolError(f"unknown message {tags[0]}/{tags[1]}")
    kind, fields = _FIELDS[tags]
    read: dict[str, Callable[[], Any]] = {"i": integer, "s": string, "l": strings}
    message: Message = kind(*(read[field]() for field in fields))
    return message


def frame_size(header: bytes, limit: int = MAX_FRAME) -> int:
    """The payload's size from a frame's first 4 bytes. Raises `ProtocolError` if nobody would send such a frame."""
    size: int = _INT.unpack(header)[0]
    if not 8 <= size <= limit:
        raise ProtocolError(f"a frame of {size} bytes")
    return size
