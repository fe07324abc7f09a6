"""Byte streams to a host: Unix socket, TCP or TLS."""

from __future__ import annotations

import os
import select
import socket
from typing import TYPE_CHECKING

from services.cli.client.options import DEFAULT_SERVER, Options

if TYPE_CHECKING:
    import ssl

SOCKET = "/var/lib/xcp/xapi"
"""Where a host's own clients are trusted as root. `$XE_SOCKET` names another: pools run side by side."""


class ConnectFailed(Exception):
    """No connection; the text is for the user."""


class LostConnection(Exception):
    """The stream ended where more was due."""


class Stream:
    """A connected socket with exact reads. Nothing is read ahead: raw bytes behind a header block are still there."""

    def __init__(self, sock: socket.socket, unix: bool = False) -> None:
        self.socket = sock
        self.unix = unix

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def receive(self, limit: int = 65536) -> bytes:
        """What is there, at least one byte; b"" at the end."""
        return self.socket.recv(limit)

    def waiting(self) -> bool:
        """Whether something has arrived, or the end."""
        pending = getattr(self.socket, "pending", None)
        return bool((pending is not None and pending()) or select.select([self.socket], [], [], 0)[0])

    def exactly(self, size: int) -> bytes:
        """Raises `LostConnection` if the stream ends earlier."""
        parts: list[bytes] = []
        while size:
            part = self.socket.recv(min(size, 1 << 20))
            if not part:
                raise LostConnection
            parts.append(part)
            size -= len(part)
        return b"".join(parts)

    def line(self, limit: int = 65536) -> bytes:
        """One line with its end; shorter than that at the end of the stream."""
        data = bytearray()
        while not data.endswith(b"\n") and len(data) < limit:
            byte = self.socket.recv(1)
            if not byte:
                break
            data += byte
        return bytes(data)

    def close(self) -> None:
        self.socket.close()


def main_stream(options: Options) -> Stream:
    """The connection for the conversation. The default server is tried on its Unix socket first, whatever the port."""
    if options.server == DEFAULT_SERVER:
        local = socket.socket(socket.AF_UNIX)
        try:
            local.connect(os.environ.get("XE_SOCKET") or SOCKET)
            return Stream(local, unix=True)
        except OSError:
            local.close()  # not a host, or not root: the way every other machine goes
    return remote_stream(options, options.server, options.port)


def remote_stream(options: Options, host: str, port: int | None) -> Stream:
    """TCP with `--nossl` and to this machine, TLS otherwise. Raises `ConnectFailed`."""
    plain = options.nossl or host == DEFAULT_SERVER
    address = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    try:
        sock = socket.create_connection((address, port or (80 if plain else 443)))
    except socket.gaierror:
        raise ConnectFailed(f"Host '{host}' not found.") from None
    except OSError as error:
        raise ConnectFailed(f"Error: {_reason(error)} (calling connect {host})") from None
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return Stream(sock) if plain else Stream(_secured(sock, address, options.cacert))


def _secured(sock: socket.socket, host: str, cacert: str) -> ssl.SSLSocket:
    """Without a CA nothing is verified: hosts have self-signed certificates, and `xe` never knew better."""
    import ssl

    try:
        if cacert:
            context = ssl.create_default_context(cafile=cacert)
        else:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        return context.wrap_socket(sock, server_hostname=host if cacert else None, suppress_ragged_eofs=True)
    except OSError as error:
        sock.close()
        raise ConnectFailed(f"Error: {_reason(error)} (calling TLS handshake {host})") from None


def _reason(error: OSError) -> str:
    return error.strerror or str(error)
