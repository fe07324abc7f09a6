"""Files that the client fetches from an HTTP handler."""

from __future__ import annotations

from services.cli.protocol import HttpGet, Print
from services.cli.server.command import Call
from services.cli.server.transfers import transfer


async def download(call: Call, label: str, path: str, query: dict[str, str], filename: str) -> None:
    """Has the client write what `path` answers to the file, and says so. Raises what `transfer` raises."""
    await transfer(call, HttpGet, label, path, query, filename)
    await call.terminal.send(Print(f"{label} succeeded"))
