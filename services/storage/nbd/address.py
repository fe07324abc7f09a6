"""Where an NBD export is, as the storage interfaces write it."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import parse_qs, quote, unquote, urlsplit

PORT = 10809


@dataclass(frozen=True, slots=True)
class Address:
    """A Unix socket (`path`), or a TCP one (`host`, `port`). `export`: its name, "" for the server's default."""

    path: str = ""
    host: str = ""
    port: int = PORT
    export: str = ""

    def __str__(self) -> str:
        """As SMAPIv2 has it; as a URI for TCP."""
        if self.path:
            return f"nbd:unix:{self.path}:exportname={self.export}"
        return f"nbd://{self.host}:{self.port}/{quote(self.export)}"


def parse(text: str) -> Address:
    """`nbd:unix:<socket>:exportname=<name>`, `nbd+unix:///<name>?socket=<path>`, `nbd://<host>[:port]/<name>`, or the
    path of a socket. Raises ValueError.
    """
    if text.startswith("/"):
        return Address(path=text)
    if text.startswith("nbd:unix:"):
        path, _, export = text.removeprefix("nbd:unix:").partition(":exportname=")
        if path:
            return Address(path=path, export=export)
    parts = urlsplit(text)
    export = unquote(parts.path.removeprefix("/"))
    match parts.scheme:
        case "nbd+unix":
            sockets = parse_qs(parts.query).get("socket", [])
            if len(sockets) == 1:
                return Address(path=sockets[0], export=export)
        case "nbd" | "nbds" if parts.hostname:
            return Address(host=parts.hostname, port=parts.port or PORT, export=export)
    raise ValueError(f"not the address of an NBD export: {text!r}")
