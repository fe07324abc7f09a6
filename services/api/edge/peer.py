"""Who is at the other end of a connection: what the socket, TLS, and a proxy in front tell."""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import Sequence
from typing import Final

from services.api.edge.client_trust import ClientTrust
from services.api.edge.endpoint import Endpoint, Kind
from services.api.edge.head import HeadError

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

PREAMBLE: Final = b"PROXY "
LONGEST: Final = 107
"""Bytes of a preamble with its line's end (HAProxy's PROXY protocol, version 1)."""


def networks(text: str) -> list[Network]:
    """Those in a list separated by commas. Raises ValueError."""
    return [ipaddress.ip_network(part.strip()) for part in text.split(",") if part.strip()]


class Peer:
    """`address`: the client's IP, "" on the Unix socket. `secure`: TLS, here or up to the proxy. `certificate`: its own
    certificate was verified and has the right name. `undecided`: whether a preamble comes is not known yet.
    """

    __slots__ = ("address", "certificate", "secure", "undecided")

    def __init__(
        self,
        transport: asyncio.BaseTransport,
        endpoint: Endpoint,
        proxies: Sequence[Network],
        trust: ClientTrust | None,
    ) -> None:
        name = transport.get_extra_info("peername")
        self.address = name[0].removeprefix("::ffff:") if isinstance(name, tuple) else ""
        self.secure = endpoint.kind is Kind.TLS
        self.certificate = self.secure and trust is not None and trust.accepts(transport.get_extra_info("ssl_object"))
        self.undecided = endpoint.kind is Kind.PLAIN and _is_in(self.address, proxies)

    def take_preamble(self, buffer: bytearray) -> bool:
        """Takes what a proxy says of its client from the connection's first bytes; False: more are needed.

        Raises `HeadError` for one that cannot be read.
        """
        if not buffer.startswith(PREAMBLE[: len(buffer)]):
            self.undecided = False
            return True
        end = buffer.find(b"\r\n", 0, LONGEST)
        if end < 0:
            if len(buffer) >= LONGEST:
                raise HeadError("the proxy's line does not end")
            return False
        words = buffer[:end].decode("ascii", "replace").split(" ")
        del buffer[: end + 2]
        self.undecided = False
        if words[1] != "UNKNOWN":
            self.address = _client(words)
            self.secure = True
        return True


def _client(words: Sequence[str]) -> str:
    if len(words) != 6 or words[1] not in ("TCP4", "TCP6"):
        raise HeadError("the proxy's line does not name a client")
    try:
        address = ipaddress.ip_address(words[2])
    except ValueError:
        raise HeadError("the proxy's line names no address") from None
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return str(mapped or address)


def _is_in(address: str, found: Sequence[Network]) -> bool:
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return False
    return any(parsed in network for network in found)
