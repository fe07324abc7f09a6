"""An LDAP server that knows Active Directory's matching rule for groups of groups: it passes everything on to another
server, but for searches with that rule, which it answers from that server's groups.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from ldap3.protocol import rfc4511
from pyasn1.codec.ber import encoder

from services.api.directory.ad_schema import IN_CHAIN
from tests.api.directory import people


class ChainProxy:
    """`port`: of the server behind. `chains`: how many searches with the rule came. `groups`: name to members (DNs)."""

    def __init__(self, port: int, groups: dict[str, list[str]]) -> None:
        self.port = 0
        self.chains = 0
        self._behind = port
        self._groups = groups

    @asynccontextmanager
    async def running(self) -> AsyncIterator[ChainProxy]:
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        async with server:
            yield self

    async def _serve(self, client: asyncio.StreamReader, to_client: asyncio.StreamWriter) -> None:
        behind, to_behind = await asyncio.open_connection("127.0.0.1", self._behind)
        back = asyncio.create_task(_copy(behind, to_client))
        try:
            while (message := await _message(client)) is not None:
                answer = self._answer(message)
                (to_behind if answer is None else to_client).write(message if answer is None else answer)
        finally:
            back.cancel()
            await asyncio.gather(back, return_exceptions=True)
            for writer in (to_client, to_behind):
                writer.close()

    def _answer(self, message: bytes) -> bytes | None:
        """None for what the other server answers."""
        _, rest = _split(message)
        number, rest = _split(rest)
        member = _chained(rest)
        if rest[0] != SEARCH_REQUEST or member is None:
            return None
        self.chains += 1
        identifier = int.from_bytes(number, "big")
        return b"".join([*(_entry(identifier, name) for name in self._above(member)), _done(identifier)])

    def _above(self, member: str) -> list[str]:
        found: list[str] = []
        level = [member.lower()]
        while level:
            names = [
                name for name, members in self._groups.items() if not {m.lower() for m in members}.isdisjoint(level)
            ]
            level = [people.group(name).lower() for name in names if name not in found]
            found += [name for name in names if name not in found]
        return found


def _split(data: bytes) -> tuple[bytes, bytes]:
    """The content of the BER value at the beginning, and what follows it, or is in it if it is a sequence."""
    length, start = data[1], 2
    if length & 0x80:
        start += length & 0x7F
        length = int.from_bytes(data[2:start], "big")
    return data[start : start + length], data[start:] if data[0] == SEQUENCE else data[start + length :]


SEQUENCE = 0x30
SEARCH_REQUEST = 0x63


def _chained(request: bytes) -> str | None:
    """The member in a `(member:<rule>:=<dn>)`: rule, attribute and value follow each other."""
    _, found, behind = request.partition(IN_CHAIN.encode())
    if not found:
        return None
    _, behind = _split(behind)
    value, _ = _split(behind)
    return value.decode()


def _entry(number: int, name: str) -> bytes:
    entry = rfc4511.SearchResultEntry()
    entry["object"] = people.group(name)
    attribute = rfc4511.PartialAttribute()
    attribute["type"] = "objectSid"
    attribute["vals"].extend([people.raw_sid(name)])
    entry["attributes"].append(attribute)
    return _encoded(number, "searchResEntry", entry)


def _done(number: int) -> bytes:
    done = rfc4511.SearchResultDone()
    done["resultCode"], done["matchedDN"], done["diagnosticMessage"] = 0, "", ""
    return _encoded(number, "searchResDone", done)


def _encoded(number: int, kind: str, operation: Any) -> bytes:
    message = rfc4511.LDAPMessage()
    message["messageID"] = number
    message["protocolOp"] = rfc4511.ProtocolOp().setComponentByName(kind, operation)
    return bytes(encoder.encode(message))


async def _message(reader: asyncio.StreamReader) -> bytes | None:
    """One BER value; None at the end."""
    try:
        head = await reader.readexactly(2)
        length = head[1]
        if length & 0x80:
            more = await reader.readexactly(length & 0x7F)
            head, length = head + more, int.from_bytes(more, "big")
        return head + await reader.readexactly(length)
    except (asyncio.IncompleteReadError, ConnectionError):
        return None


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(ConnectionError):
        while data := await reader.read(65536):
            writer.write(data)
