"""The NBD protocol: its numbers, and the client side, without I/O (github.com/NetworkBlockDevice/nbd, doc/proto.md).

Negotiations and replies are generators: they yield the memory that the next bytes from the server go to, and are
resumed when it is full. What they send goes through the `send` they are given.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field
from enum import IntEnum, IntFlag
from typing import Final, TypeVar

Result = TypeVar("Result")
Parser = Generator[memoryview, None, Result]
Send = Callable[[bytes], None]

ALLOCATION: Final = "base:allocation"
"""The metadata context that tells what reads as zeros."""
DIRTY_BITMAP: Final = "qemu:dirty-bitmap:"
"""Prefix of the contexts that tell what has changed since a bitmap began."""

GREETING = struct.Struct(">QQH")
OPTION = struct.Struct(">QII")
OPTION_REPLY = struct.Struct(">QIII")
_REQUEST = struct.Struct(">IHHQQI")
_HEAD = struct.Struct(">IIQ")
"""Of a simple reply: magic, error, cookie. Of a structured one: magic, flags and kind, cookie; its length follows."""
_EXTENT = struct.Struct(">II")

NBDMAGIC = 0x4E42444D41474943
IHAVEOPT = 0x49484156454F5054
REPLY_MAGIC = 0x3E889045565A9
_REQUEST_MAGIC = 0x25609513
_SIMPLE_MAGIC = 0x67446698
_STRUCTURED_MAGIC = 0x668E33EF

FIXED_NEWSTYLE, NO_ZEROES = 1, 2
_LARGEST_REPLY = 64 << 20
"""Bytes of an option's reply, or of a chunk that carries no data: a server that announces more is none."""


class Option(IntEnum):
    EXPORT_NAME = 1
    ABORT = 2
    LIST = 3
    STARTTLS = 5
    INFO = 6
    GO = 7
    STRUCTURED_REPLY = 8
    LIST_META_CONTEXT = 9
    SET_META_CONTEXT = 10


class OptionReply(IntEnum):
    ACK = 1
    INFO = 3
    META_CONTEXT = 4
    ERRORS = 1 << 31
    """Those from here on."""
    ERR_UNSUP = (1 << 31) + 1
    ERR_POLICY = (1 << 31) + 2
    ERR_INVALID = (1 << 31) + 3
    ERR_TLS_REQD = (1 << 31) + 5
    ERR_UNKNOWN = (1 << 31) + 6


class Ability(IntFlag):
    """Transmission flags."""

    READ_ONLY = 1 << 1
    FLUSH = 1 << 2
    FUA = 1 << 3
    TRIM = 1 << 5
    WRITE_ZEROES = 1 << 6
    MULTI_CONN = 1 << 8


class Command(IntEnum):
    READ = 0
    WRITE = 1
    DISCONNECT = 2
    FLUSH = 3
    TRIM = 4
    WRITE_ZEROES = 6
    BLOCK_STATUS = 7


class Chunk(IntEnum):
    """Kinds of structured replies."""

    NONE = 0
    DATA = 1
    HOLE = 2
    STATUS = 5
    ERRORS = 1 << 15


_CHUNK_DONE = 1
_INFO_EXPORT = 0


class ProtocolError(Exception):
    """The server does not speak NBD as it should, or lacks what is needed; the text says what."""


class NoSuchExport(ProtocolError):
    """The server refuses the export; the text is its own."""


@dataclass(frozen=True, slots=True)
class Negotiated:
    """An export. `size`: bytes. `contexts`: metadata contexts by the number that replies name them by."""

    size: int
    abilities: Ability
    structured: bool
    contexts: dict[int, str]


@dataclass(slots=True)
class Pending:
    """A request that waits for its reply.

    `into`: where the data of a read goes. `done`: is told when the reply is complete, with an NBD error number (0 if it
    went well) and the server's words. `statuses`: what a block status said, by context.
    """

    command: Command
    offset: int
    done: Callable[[int, str], None]
    into: memoryview | None = None
    statuses: dict[int, list[tuple[int, int]]] = field(default_factory=dict)
    error: int = 0
    text: str = ""


# ---- negotiation


def read(length: int) -> Parser[bytes]:
    if not length:
        return b""
    buffer = bytearray(length)
    yield memoryview(buffer)
    return bytes(buffer)


def _option(option: Option, data: bytes = b"") -> bytes:
    return OPTION.pack(IHAVEOPT, option, len(data)) + data


def _option_reply(option: Option) -> Parser[tuple[int, bytes]]:
    magic, answered, kind, length = OPTION_REPLY.unpack((yield from read(OPTION_REPLY.size)))
    if magic != REPLY_MAGIC or answered != option:
        raise ProtocolError("the server does not answer an option as NBD has it")
    if length > _LARGEST_REPLY:
        raise ProtocolError(f"the server announces {length} bytes about an option")
    return kind, (yield from read(length))


def greet(send: Send) -> Parser[None]:
    """The first words of both. Raises ProtocolError."""
    magic, style, flags = GREETING.unpack((yield from read(GREETING.size)))
    if magic != NBDMAGIC or style != IHAVEOPT:
        raise ProtocolError("this is not an NBD server of the new style")
    if not flags & FIXED_NEWSTYLE or not flags & NO_ZEROES:
        raise ProtocolError("the NBD server is too old: it has no fixed newstyle negotiation")
    send(struct.pack(">I", FIXED_NEWSTYLE | NO_ZEROES))


def start_tls(send: Send) -> Parser[None]:
    """When this ends, the TLS handshake follows at once. Raises ProtocolError."""
    send(_option(Option.STARTTLS))
    kind, data = yield from _option_reply(Option.STARTTLS)
    if kind != OptionReply.ACK:
        raise ProtocolError(f"the NBD server has no TLS: {_words(kind, data)}")


def choose(send: Send, export: str, contexts: Sequence[str]) -> Parser[Negotiated]:
    """Opens an export. Contexts that the server does not know are not there afterwards. Raises ProtocolError."""
    name = export.encode()
    send(_option(Option.STRUCTURED_REPLY))
    kind, _ = yield from _option_reply(Option.STRUCTURED_REPLY)
    structured = kind == OptionReply.ACK
    chosen = (yield from _contexts(send, name, contexts)) if structured and contexts else {}
    send(_option(Option.GO, struct.pack(">I", len(name)) + name + struct.pack(">H", 0)))
    found: tuple[int, int] | None = None
    while True:
        kind, data = yield from _option_reply(Option.GO)
        if kind == OptionReply.ACK and found is not None:
            return Negotiated(found[0], Ability(found[1]), structured, chosen)
        if kind == OptionReply.INFO and len(data) == 12 and data[:2] == struct.pack(">H", _INFO_EXPORT):
            found = struct.unpack(">QH", data[2:])
        elif kind >= OptionReply.ERRORS:
            raise NoSuchExport(f"the NBD server does not give the export {export!r}: {_words(kind, data)}")
        elif kind != OptionReply.INFO:
            raise ProtocolError("the NBD server does not say what its export is like")


def _contexts(send: Send, name: bytes, contexts: Sequence[str]) -> Parser[dict[int, str]]:
    queries = b"".join(struct.pack(">I", len(each.encode())) + each.encode() for each in contexts)
    data = struct.pack(">I", len(name)) + name + struct.pack(">I", len(contexts)) + queries
    send(_option(Option.SET_META_CONTEXT, data))
    chosen: dict[int, str] = {}
    while True:
        kind, data = yield from _option_reply(Option.SET_META_CONTEXT)
        if kind == OptionReply.META_CONTEXT and len(data) >= 4:
            chosen[int.from_bytes(data[:4])] = data[4:].decode(errors="replace")
        elif kind == OptionReply.ERR_UNKNOWN:
            raise NoSuchExport(f"the NBD server has no export {name.decode()!r}")
        else:  # the end, or a server without contexts
            return chosen


def _words(kind: int, data: bytes) -> str:
    return data.decode(errors="replace") or f"error {kind & ~OptionReply.ERRORS}"


# ---- transmission


def request(command: Command, cookie: int, offset: int = 0, length: int = 0, flags: int = 0) -> bytes:
    return _REQUEST.pack(_REQUEST_MAGIC, flags, command, cookie, offset, length)


def replies(pending: dict[int, Pending]) -> Parser[None]:
    """Takes replies for ever, each to the request in `pending` that its cookie names. Raises ProtocolError."""
    head = bytearray(_HEAD.size)
    rest = bytearray(4)
    while True:
        yield memoryview(head)
        magic, word, cookie = _HEAD.unpack(head)
        waiting = pending.get(cookie)
        if waiting is None:
            raise ProtocolError("the NBD server answers what nobody asked")
        if magic == _SIMPLE_MAGIC:
            waiting.error = word
            if not word and waiting.into is not None:
                yield waiting.into
            finished = True
        elif magic == _STRUCTURED_MAGIC:
            yield memoryview(rest)
            yield from _chunk(waiting, word & 0xFFFF, int.from_bytes(rest))
            finished = bool(word >> 16 & _CHUNK_DONE)
        else:
            raise ProtocolError("the NBD server's replies are not NBD's")
        if finished:
            del pending[cookie]
            waiting.done(waiting.error, waiting.text)


def _chunk(waiting: Pending, kind: int, length: int) -> Parser[None]:
    if kind == Chunk.DATA:
        if length < 8:
            raise ProtocolError("the NBD server sends data without saying where it is")
        offset = int.from_bytes((yield from read(8)))
        yield from _fill(waiting, offset, length - 8)
        return
    if length > _LARGEST_REPLY:
        raise ProtocolError(f"the NBD server announces a reply of {length} bytes")
    body = yield from read(length)
    if kind == Chunk.HOLE and length == 12:
        offset, size = struct.unpack(">QI", body)
        part = _part(waiting, offset, size)
        part[:] = bytes(len(part))
    elif kind == Chunk.STATUS and length >= 12 and length % 8 == 4:
        context = int.from_bytes(body[:4])
        waiting.statuses.setdefault(context, []).extend(_EXTENT.iter_unpack(body[4:]))
    elif kind >= Chunk.ERRORS and length >= 6:
        error, size = struct.unpack(">IH", body[:6])
        waiting.error = waiting.error or error
        waiting.text = waiting.text or body[6 : 6 + size].decode(errors="replace")
    elif kind != Chunk.NONE or length:
        raise ProtocolError(f"the NBD server sends a reply of an unknown kind {kind}")


def _fill(waiting: Pending, offset: int, length: int) -> Parser[None]:
    part = _part(waiting, offset, length)
    if length:
        yield part


def _part(waiting: Pending, offset: int, length: int) -> memoryview:
    begin = offset - waiting.offset
    if waiting.into is None or begin < 0 or begin + length > len(waiting.into):
        raise ProtocolError("the NBD server sends data that nobody asked for")
    return waiting.into[begin : begin + length]
