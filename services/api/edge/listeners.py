"""Opens listening sockets, and says in one sentence why one cannot be opened."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import ssl
from collections.abc import Callable
from pathlib import Path

from services.api.edge.endpoint import Endpoint, Kind
from shared.config import ConfigError

BACKLOG = 1024
HANDSHAKE_TIMEOUT = 10.0

_REASONS = {
    errno.EADDRINUSE: "another process uses it",
    errno.EACCES: "not permitted (ports below 1024 need root or CAP_NET_BIND_SERVICE)",
    errno.EADDRNOTAVAIL: "this machine has no such address",
}


class ListenError(ConfigError):
    """An address cannot be used; the text names it and says why."""

    def __init__(self, endpoint: Endpoint, error: OSError) -> None:
        where = endpoint.path or f"{endpoint.address} port {endpoint.port}"
        reason = _REASONS.get(error.errno or 0, error.strerror or str(error))
        super().__init__(f"cannot listen for {endpoint.kind.value} on {where}: {reason}")


async def listen(
    endpoint: Endpoint, factory: Callable[[], asyncio.BaseProtocol], context: ssl.SSLContext | None
) -> asyncio.AbstractServer:
    """Serves the endpoint from now on. Raises `ListenError`."""
    loop = asyncio.get_running_loop()
    try:
        if endpoint.kind is Kind.UNIX:
            return await loop.create_unix_server(factory, sock=_unix(Path(endpoint.path)), backlog=BACKLOG)
        listener = _tcp(endpoint.address, endpoint.port)
        if context is None:
            return await loop.create_server(factory, sock=listener, backlog=BACKLOG)
        return await loop.create_server(
            factory, sock=listener, backlog=BACKLOG, ssl=context, ssl_handshake_timeout=HANDSHAKE_TIMEOUT
        )
    except OSError as error:
        raise ListenError(endpoint, error) from None


def _tcp(address: str, port: int) -> socket.socket:
    """Without an address: every one of the machine, IPv6 and IPv4."""
    family = socket.AF_INET6 if not address or ":" in address else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        # Inherited by accepted sockets: calls may idle for hours, and peers that vanished must not stay for ever.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        if family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, int(bool(address)))
        listener.bind((address, port))
    except OSError:
        listener.close()
        raise
    listener.setblocking(False)
    return listener


def _unix(path: Path) -> socket.socket:
    """A socket that only its owner may use, since whoever connects is trusted as root."""
    if path.is_socket() and not _is_alive(path):
        path.unlink()
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    before = os.umask(0o177)
    try:
        listener.bind(str(path))
    except OSError as error:
        listener.close()
        if error.errno is None:  # the path is too long for a socket address: Python says so without a number
            raise OSError(errno.ENAMETOOLONG, "the path is longer than a socket's address can be") from None
        raise
    finally:
        os.umask(before)
    listener.setblocking(False)
    return listener


def _is_alive(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(str(path))
        except OSError as error:
            return error.errno not in (errno.ECONNREFUSED, errno.ENOENT)
    return True
