"""The server's half of a conversation: what can be told to, and asked of, the client at the other end."""

from __future__ import annotations

from typing import Protocol

from services.cli.protocol import Command


class Terminal(Protocol):
    async def send(self, message: Command) -> None: ...

    async def prompt(self) -> str:
        """One line of the user's."""
        ...

    async def load(self, filename: str) -> bytes | None:
        """A file of the client's machine; None if it cannot be read."""
        ...

    async def transfer(self, message: Command) -> bool:
        """HttpGet, HttpPut or HttpConnect: did the client's side succeed?"""
        ...
