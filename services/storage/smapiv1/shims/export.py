"""An NBD server for one disk: threads over blocking images (github.com/NetworkBlockDevice/nbd, doc/proto.md).

Any export name is accepted: a tapdisk's socket has one disk, and drivers announce it under the disk's uuid. A read or
a write waits at the gate while the disk is closed; clients see nothing but delay.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from typing import Final

from services.storage.nbd.protocol import ALLOCATION, Ability, Chunk, Command, Option, OptionReply
from services.storage.smapiv1.shims.disks import Disk

THREADS: Final = 8
IN_FLIGHT: Final = 16
"""Requests of one connection; later ones are not read before."""
_LARGEST: Final = 32 << 20
"""Bytes of one request with data."""
_LARGEST_OPTION: Final = 64 << 10
_EXTENTS: Final = 2048
"""Parts in one answer about allocation."""

_NBDMAGIC, _IHAVEOPT = 0x4E42444D41474943, 0x49484156454F5054
_OPTION_REPLY_MAGIC, _REQUEST_MAGIC = 0x3E889045565A9, 0x25609513
_SIMPLE_MAGIC, _STRUCTURED_MAGIC = 0x67446698, 0x668E33EF
_OPTION: Final = struct.Struct(">QII")
_OPTION_REPLY: Final = struct.Struct(">QIII")
_REQUEST: Final = struct.Struct(">IHHQQI")
_SIMPLE: Final = struct.Struct(">IIQ")
_STRUCTURED: Final = struct.Struct(">IHHQI")

_EXPORT_NAME, _LIST, _INFO, _LIST_META_CONTEXT = 1, 3, 6, 9
_SERVER: Final = 2
_UNSUPPORTED, _INVALID = (1 << 31) + 1, (1 << 31) + 3
_INFO_EXPORT, _INFO_BLOCK_SIZE = 0, 3
_FUA, _ONE = 1 << 0, 1 << 3
_DONE, _ERROR = 1, Chunk.ERRORS + 1
_HOLE_OF_ZEROS: Final = 3
_CONTEXT: Final = 1

_NUMBERS: Final = {
    errno.EROFS: errno.EPERM,
    errno.EDQUOT: errno.ENOSPC,
    errno.EFBIG: errno.ENOSPC,
    **{number: number for number in (errno.EPERM, errno.ENOMEM, errno.EINVAL, errno.ENOSPC, errno.ESHUTDOWN)},
}
"""What the protocol has a number for; all else is EIO."""


class Ended(Exception):
    """The disk is closed for good."""


class Gate:
    """Lets requests in, and stops them: `shut` returns when nobody is inside any more."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._open, self.ended = True, False
        self.inside = 0

    @contextmanager
    def passing(self) -> Iterator[None]:
        """Waits while it is shut. Raises `Ended`."""
        with self._changed:
            self._changed.wait_for(lambda: self._open or self.ended)
            if self.ended:
                raise Ended
            self.inside += 1
        try:
            yield
        finally:
            with self._changed:
                self.inside -= 1
                self._changed.notify_all()

    def shut(self, timeout: float | None = None) -> None:
        """Seconds. Raises TimeoutError, and is open then."""
        with self._changed:
            self._open = False
            if not self._changed.wait_for(lambda: not self.inside, timeout):
                self._open = True
                self._changed.notify_all()
                raise TimeoutError(errno.ETIMEDOUT, f"{self.inside} requests have not ended")

    def open(self) -> None:
        with self._changed:
            self._open = True
            self._changed.notify_all()

    def end(self) -> None:
        """For good. Those inside go on."""
        with self._changed:
            self.ended = True
            self._changed.notify_all()


class Export:
    """`disk`: set by its owner, under a gate that is shut. `path`: of the socket."""

    def __init__(self, path: str, disk: Disk, writable: bool) -> None:
        self.gate = Gate()
        self.disk = disk
        self.writable = writable
        self.path = path
        self.sectors_read, self.sectors_written, self.failures = 0, 0, 0
        self._connections: set[Connection] = set()
        self._lock = threading.Lock()
        self.workers = ThreadPoolExecutor(THREADS, "nbd")
        self._listener = listen(path)
        self._thread = threading.Thread(target=self._accept, name="nbd-accept", daemon=True)
        self._thread.start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return  # closed
            connection = Connection(self, client)
            with self._lock:
                self._connections.add(connection)
            if self.gate.ended:  # between a look at the connections and the listener's end
                connection.close()
            threading.Thread(target=self._serve, args=(connection,), name="nbd", daemon=True).start()

    def _serve(self, connection: Connection) -> None:
        try:
            connection.serve()
        finally:
            with self._lock:
                self._connections.discard(connection)

    def close(self, timeout: float | None = None) -> None:
        """Requests that are being worked on are finished; clients then find the connection closed. `timeout`: seconds.

        The disk stays open. Raises TimeoutError, and goes on serving.
        """
        self.gate.shut(timeout)
        self.gate.end()
        with suppress(FileNotFoundError):
            os.unlink(self.path)
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        with self._lock:
            left = list(self._connections)
        for connection in left:
            connection.close()
        self.workers.shutdown()

    def abilities(self) -> Ability:
        found = Ability(1) | Ability.FLUSH | Ability.FUA | Ability.MULTI_CONN
        if not self.writable:
            return found | Ability.READ_ONLY
        return found | Ability.WRITE_ZEROES | (Ability.TRIM if self.disk.trims else Ability(0))


def listen(path: str) -> socket.socket:
    """Is there when it can be connected to, never before."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    new = f"{path}.new"
    with suppress(FileNotFoundError):
        os.unlink(new)
    listener.bind(new)
    os.chmod(new, 0o600)
    listener.listen(64)
    os.rename(new, path)
    return listener


class Broken(Exception):
    """The client is gone, or speaks something else."""


class Connection:
    def __init__(self, export: Export, client: socket.socket) -> None:
        self._export, self._socket = export, client
        self._sending = threading.Lock()
        self._room = threading.Semaphore(IN_FLIGHT)
        self._structured = self._contexts = False

    def serve(self) -> None:
        """Until the client goes, or `close`."""
        with self._socket, suppress(Broken, Ended, OSError):
            if self._negotiate():
                self._transmit()

    def close(self) -> None:
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)

    # ---- bytes

    def _take(self, length: int) -> bytearray:
        data = bytearray(length)
        view, done = memoryview(data), 0
        while done < length:
            count = self._socket.recv_into(view[done:])
            if not count:
                raise Broken
            done += count
        return data

    def _send(self, *parts: bytes) -> None:
        with self._sending:
            for part in parts:
                self._socket.sendall(part)

    # ---- negotiation

    def _negotiate(self) -> bool:
        """Whether the client has opened the export."""
        self._send(struct.pack(">QQH", _NBDMAGIC, _IHAVEOPT, 3))
        flags = int.from_bytes(self._take(4))
        while True:
            magic, option, length = _OPTION.unpack(self._take(_OPTION.size))
            if magic != _IHAVEOPT or length > _LARGEST_OPTION:
                raise Broken
            data = bytes(self._take(length))
            if option == _EXPORT_NAME:
                with self._export.gate.passing():
                    size, abilities = self._export.disk.size, self._export.abilities()
                self._send(struct.pack(">QH", size, abilities) + (b"" if flags & 2 else bytes(124)))
                return True
            if option == Option.ABORT:
                self._answer(option, OptionReply.ACK)
                return False
            if self._option(option, data):
                return True

    def _answer(self, option: int, kind: int, data: bytes = b"") -> None:
        self._send(_OPTION_REPLY.pack(_OPTION_REPLY_MAGIC, option, kind, len(data)) + data)

    def _option(self, option: int, data: bytes) -> bool:
        """Whether transmission begins."""
        if option == Option.STRUCTURED_REPLY:
            self._structured = True
            self._answer(option, OptionReply.ACK)
        elif option == _LIST:
            self._answer(option, _SERVER, struct.pack(">I", 0))
            self._answer(option, OptionReply.ACK)
        elif option in (_LIST_META_CONTEXT, Option.SET_META_CONTEXT):
            self._meta(option, data)
        elif option in (_INFO, Option.GO):
            return self._info(option, data) and option == Option.GO
        else:
            self._answer(option, _UNSUPPORTED)
        return False

    def _meta(self, option: int, data: bytes) -> None:
        queries = _queries(data)
        if queries is None or not self._structured:
            self._answer(option, _INVALID)
            return
        listing = option == _LIST_META_CONTEXT
        found = ALLOCATION in queries or (listing and (not queries or "base:" in queries))
        if not listing:
            self._contexts = found
        if found:
            self._answer(option, OptionReply.META_CONTEXT, struct.pack(">I", _CONTEXT) + ALLOCATION.encode())
        self._answer(option, OptionReply.ACK)

    def _info(self, option: int, data: bytes) -> bool:
        asked = _asked(data)
        if asked is None:
            self._answer(option, _INVALID)
            return False
        with self._export.gate.passing():
            size, abilities = self._export.disk.size, self._export.abilities()
        self._answer(option, OptionReply.INFO, struct.pack(">HQH", _INFO_EXPORT, size, abilities))
        if _INFO_BLOCK_SIZE in asked:
            smallest = 512 if size % 512 == 0 else 1
            self._answer(option, OptionReply.INFO, struct.pack(">HIII", _INFO_BLOCK_SIZE, smallest, 4096, _LARGEST))
        self._answer(option, OptionReply.ACK)
        return True

    # ---- transmission

    def _transmit(self) -> None:
        while True:
            magic, flags, command, cookie, offset, length = _REQUEST.unpack(self._take(_REQUEST.size))
            if magic != _REQUEST_MAGIC or command == Command.DISCONNECT:
                return
            if command == Command.WRITE and length > _LARGEST:
                return
            self._room.acquire()
            data = self._take(length) if command == Command.WRITE else bytearray()
            try:
                self._export.workers.submit(self._work, flags, command, cookie, offset, length, data)
            except RuntimeError:
                return  # closed meanwhile

    def _work(self, flags: int, command: int, cookie: int, offset: int, length: int, data: bytearray) -> None:
        try:
            with suppress(OSError):  # the client is gone
                self._send(*self._done(flags, command, cookie, offset, length, data))
        finally:
            self._room.release()

    def _done(
        self, flags: int, command: int, cookie: int, offset: int, length: int, data: bytearray
    ) -> tuple[bytes, ...]:
        """The reply."""
        try:
            with self._export.gate.passing():
                if offset + length > self._export.disk.size or (command == Command.READ and length > _LARGEST):
                    raise OSError(errno.EINVAL, "outside of the disk")
                return self._carry_out(flags, command, cookie, offset, length, data)
        except Ended:
            return self._refusal(cookie, errno.ESHUTDOWN, "the disk is closed")
        except OSError as error:
            self._export.failures += 1
            return self._refusal(cookie, _NUMBERS.get(error.errno or 0, errno.EIO), str(error))
        except Exception as error:  # whatever it is, the client waits for an answer
            self._export.failures += 1
            return self._refusal(cookie, errno.EIO, f"{type(error).__name__}: {error}")

    def _carry_out(
        self, flags: int, command: int, cookie: int, offset: int, length: int, data: bytearray
    ) -> tuple[bytes, ...]:
        export, disk = self._export, self._export.disk
        if command == Command.READ:
            export.sectors_read += length >> 9
            content = disk.read(offset, length) if length else b""
            if self._structured:
                head = _STRUCTURED.pack(_STRUCTURED_MAGIC, _DONE, Chunk.DATA, cookie, length + 8)
                return head + struct.pack(">Q", offset), content
            return _SIMPLE.pack(_SIMPLE_MAGIC, 0, cookie), content
        if command == Command.BLOCK_STATUS and self._contexts:
            body = self._status(offset, length, bool(flags & _ONE))
            return (_STRUCTURED.pack(_STRUCTURED_MAGIC, _DONE, Chunk.STATUS, cookie, len(body)) + body,)
        change = self._change(command, offset, length, data)
        if change is not None:
            if not export.writable:
                raise OSError(errno.EPERM, "the disk is open for reading")
            export.sectors_written += length >> 9
            change()
        elif command != Command.FLUSH:
            raise OSError(errno.EINVAL, f"request {command} is not known")
        if command == Command.FLUSH or flags & _FUA:
            disk.flush()
        return (_SIMPLE.pack(_SIMPLE_MAGIC, 0, cookie),)

    def _change(self, command: int, offset: int, length: int, data: bytearray) -> Callable[[], None] | None:
        disk = self._export.disk
        if command == Command.WRITE:
            return lambda: disk.write(offset, memoryview(data))
        if command == Command.WRITE_ZEROES:
            return lambda: disk.zero(offset, length)
        return (lambda: disk.trim(offset, length)) if command == Command.TRIM else None

    def _status(self, offset: int, length: int, one: bool) -> bytes:
        if not length:
            raise OSError(errno.EINVAL, "nothing is asked about")
        body = [struct.pack(">I", _CONTEXT)]
        for size, present in self._export.disk.extents(offset, length):
            body.append(struct.pack(">II", size, 0 if present else _HOLE_OF_ZEROS))
            if one or len(body) > _EXTENTS:
                break
        return b"".join(body)

    def _refusal(self, cookie: int, number: int, text: str) -> tuple[bytes, ...]:
        if not self._structured:
            return (_SIMPLE.pack(_SIMPLE_MAGIC, number, cookie),)
        said = text.encode()[:1024]
        body = struct.pack(">IH", number, len(said)) + said
        return (_STRUCTURED.pack(_STRUCTURED_MAGIC, _DONE, _ERROR, cookie, len(body)) + body,)


def _asked(data: bytes) -> list[int] | None:
    """The kinds of information that a client asks for; None if it does not say so as it should."""
    at = 4 + int.from_bytes(data[:4])
    if len(data) < at + 2:
        return None
    kinds = data[at + 2 :]
    count = int.from_bytes(data[at : at + 2])
    return [kind for (kind,) in struct.iter_unpack(">H", kinds)] if len(kinds) == 2 * count else None


def _queries(data: bytes) -> list[str] | None:
    """Of a request about contexts; None if it is not one."""
    try:
        at = 4 + int.from_bytes(data[:4])
        (count,) = struct.unpack_from(">I", data, at)
        at += 4
        found = []
        for _ in range(count):
            (length,) = struct.unpack_from(">I", data, at)
            found.append(data[at + 4 : at + 4 + length].decode())
            at += 4 + length
        return found if at == len(data) else None
    except (struct.error, UnicodeDecodeError):
        return None
