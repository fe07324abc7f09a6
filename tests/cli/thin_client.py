"""A thin client in the test's own process, against the service's conversations."""

from __future__ import annotations

import base64
import itertools
import struct
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from services.cli.commands import command_table
from services.cli.protocol import (
    OK,
    Chunk,
    Command,
    Debug,
    End,
    Error,
    Exit,
    Failed,
    HttpConnect,
    HttpGet,
    HttpPut,
    Load,
    Message,
    Print,
    PrintStderr,
    Prompt,
    Wait,
    decode,
    encode,
)
from services.cli.server.dispatch import Dispatcher
from services.cli.service import Conversations
from shared.contracts.cli import CliCommand, CliInput
from shared.datamodel.errors import CATALOGUE
from tests.cli.fake_xenapi import PASSWORD, USER, FakeXenApi

_COMMANDS = command_table()
_NUMBERS = itertools.count(1)


class Outcome(NamedTuple):
    stdout: str
    stderr: str
    status: int
    commands: list[Command]


def conversations(api: FakeXenApi) -> Conversations:
    return Conversations(Dispatcher(_COMMANDS, CATALOGUE), api.transport)


def frames(data: bytes) -> list[Message]:
    found = []
    while data:
        (size,) = struct.unpack_from("<i", data)
        found.append(decode(data[4 : 4 + size]))
        data = data[4 + size :]
    return found


class ThinClient:
    """`answers`: lines for prompts. `files`: what Load may read. `transfers`: do HTTP commands succeed?"""

    def __init__(
        self,
        api: FakeXenApi,
        *,
        answers: Sequence[str] = (),
        files: Mapping[str, bytes] | None = None,
        transfers: bool = True,
    ) -> None:
        self.api = api
        self.here = conversations(api)
        self.answers = list(answers)
        self.files = dict(files or {})
        self.transfers = transfers

    async def __call__(self, *words: str, user: str = USER, password: str = PASSWORD, trusted: bool = False) -> Outcome:
        """Runs `xe <words>`."""
        body = "\n".join([*words, f"username={user}", f"password={password}"])
        name = f"conversation-{next(_NUMBERS)}"
        out, err, status, seen = "", "", -1, []
        async for part in self.here.run(CliCommand(conversation=name, body=body, trusted=trusted, address="10.9.9.9")):
            for message in frames(base64.b64decode(part.data)):
                assert isinstance(message, Command)
                assert status == -1, "something came after Exit"
                seen.append(message)
                match message:
                    case Print(text):
                        out += text + "\n"
                    case PrintStderr(text):
                        err += text
                    case Error(code, params):
                        err += f"Error code: {code}\nError parameters: {', '.join(params)}\n"
                    case Exit(code):
                        status = code
                    case Prompt():
                        await self._blob(name, self.answers.pop(0).encode())
                    case Load(filename):
                        if filename in self.files:
                            await self._send(name, OK())
                            await self._blob(name, self.files[filename])
                        else:
                            await self._send(name, Failed())
                    case HttpGet() | HttpPut() | HttpConnect():
                        await self._send(name, Wait())
                        await self._send(name, OK() if self.transfers else Failed())
                    case Debug():
                        continue
        return Outcome(out, err, status, seen)

    async def _send(self, name: str, message: Message) -> None:
        await self._bytes(name, encode(message))

    async def _blob(self, name: str, data: bytes) -> None:
        await self._bytes(name, encode(Chunk(len(data))) + data[:1])
        await self._bytes(name, data[1:] + encode(End()))

    async def _bytes(self, name: str, data: bytes) -> None:
        await self.here.input(CliInput(conversation=name, data=base64.b64encode(data).decode()))
