"""Bytes to a port of the pool, well-formed or not, and what comes back."""

from __future__ import annotations

import contextlib
import re
import socket
import ssl
from collections.abc import Iterator
from dataclasses import dataclass

PATIENCE = 30.0
"""Seconds within which an answer, or the end of the connection, has to come."""
_LENGTH = re.compile(rb"^content-length: *(\d+)", re.IGNORECASE | re.MULTILINE)


@dataclass(frozen=True)
class Response:
    """`status`: 0 when the connection was closed without an answer."""

    status: int
    body: bytes


@contextlib.contextmanager
def connected(address: str, port: int, *, tls: bool = False) -> Iterator[socket.socket]:
    with socket.create_connection((address, port), PATIENCE) as plain:
        if not tls:
            yield plain
            return
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        with context.wrap_socket(plain) as wrapped:
            yield wrapped


def exchange(address: str, port: int, request: bytes, *, tls: bool = False) -> Response:
    """Raises `TimeoutError` when nothing comes."""
    with connected(address, port, tls=tls) as connection:
        return _exchange(connection, request)


def _exchange(connection: socket.socket, request: bytes) -> Response:
    received = b""
    with contextlib.suppress(OSError):  # it was refused before it was all sent; why stands in the answer
        connection.sendall(request)
    while not _complete(received):
        try:
            more = connection.recv(65536)
        except ConnectionResetError:
            more = b""
        if not more:
            break
        received += more
    head, _, body = received.partition(b"\r\n\r\n")
    return Response(int(head.split(b" ")[1]) if head.startswith(b"HTTP/") else 0, body)


def _complete(received: bytes) -> bool:
    head, end, body = received.partition(b"\r\n\r\n")
    length = _LENGTH.search(head)
    return bool(end) and length is not None and len(body) >= int(length[1])


def post(body: bytes, path: str = "/", length: int | None = None) -> bytes:
    """A request; `length`: what it claims to be long."""
    claimed = len(body) if length is None else length
    return f"POST {path} HTTP/1.1\r\nHost: h\r\nContent-Length: {claimed}\r\n\r\n".encode() + body
