"""`POST /cli`: the edge owns the socket and the banner, the CLI service on this host the conversation."""

from __future__ import annotations

import asyncio
import base64
import binascii
import contextlib
import logging
import struct
import uuid

from services.api.edge.exchange import Exchange
from shared.bus.interface import Bus
from shared.contracts import cli
from shared.errors import ApiError

log = logging.getLogger("edge")

MAGIC = b"XenSource thin CLI protocol"
BANNER = MAGIC + struct.pack("<ii", 0, 2)
BANNER_TIMEOUT = 60.0
"""Seconds a client has for its banner. After that it may think as long as it likes: it can be a person at a prompt."""
CHUNK = 64 * 1024
INPUT_TIMEOUT = 60.0

_COMMAND, _EXIT, _PRINT_STDERR = 9, 4, 16


def frame(*numbers: int, text: bytes | None = None) -> bytes:
    """One frame of the protocol: integers, then at most one string. 32 bits, little endian."""
    payload = struct.pack(f"<{len(numbers)}i", *numbers)
    if text is not None:
        payload += struct.pack("<i", len(text)) + text
    return struct.pack("<i", len(payload)) + payload


def failure(text: str) -> bytes:
    """What a client gets when there is nobody to run its command: a line on stderr and exit status 1."""
    return frame(_COMMAND, _PRINT_STDERR, text=f"{text}\n".encode()) + frame(_COMMAND, _EXIT, 1)


async def serve(exchange: Exchange, bus: Bus) -> None:
    """Runs one command to its end. The client going away ends the command, too."""
    reader, writer = exchange.take_over()
    try:
        writer.write(BANNER)
        await writer.drain()
        async with asyncio.timeout(BANNER_TIMEOUT):
            theirs = await reader.readexactly(len(BANNER))
        if theirs[: len(MAGIC) + 4] != BANNER[: len(MAGIC) + 4]:
            log.info("a client with another CLI protocol: %r", theirs)
            return
        await _converse(exchange, reader, writer, bus)
    except (asyncio.IncompleteReadError, TimeoutError, OSError) as error:
        log.info("the client of a command has gone: %s", error)
    finally:
        writer.close()


async def _converse(exchange: Exchange, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, bus: Bus) -> None:
    command = cli.CliCommand(
        conversation=uuid.uuid4().hex,
        body=exchange.body.decode("utf-8", "replace"),
        trusted=exchange.caller.trusted,
        address=exchange.caller.address,
        traceparent=exchange.caller.traceparent,
    )
    host = exchange.caller.host
    output = asyncio.create_task(_output(command, writer, bus, host))
    input_ = asyncio.create_task(_input(command.conversation, reader, bus, host))
    try:
        await asyncio.wait({output, input_}, return_when=asyncio.FIRST_COMPLETED)
        if output.done():
            output.result()
        else:
            input_.result()
    finally:
        for task in (input_, output):
            task.cancel()
        await asyncio.gather(input_, output, return_exceptions=True)


async def _output(command: cli.CliCommand, writer: asyncio.StreamWriter, bus: Bus, host: str) -> None:
    """Writes what the service says, until it has said Exit."""
    try:
        async with contextlib.aclosing(bus.stream(cli.RUN, command, host=host)) as frames:  # type: ignore[type-var]
            async for part in frames:
                writer.write(base64.b64decode(part.data))
                await writer.drain()
    except (ApiError, binascii.Error) as error:
        log.warning("a command could not be run: %s", error)
        writer.write(failure(f"The command cannot be run on this host: {error}"))
        await writer.drain()


async def _input(conversation: str, reader: asyncio.StreamReader, bus: Bus, host: str) -> None:
    """Passes on what the client says, in order; ends when it has gone. A service that does not listen ends nothing:
    most commands need no answers, and the others fail by themselves."""
    listens = True
    while True:
        data = await reader.read(CHUNK)
        said = cli.CliInput(conversation=conversation, data=base64.b64encode(data).decode(), eof=not data)
        if listens:
            try:
                await bus.call(cli.INPUT, said, host=host, timeout=INPUT_TIMEOUT)
            except ApiError as error:
                log.warning("what a client said cannot be passed on: %s", error)
                listens = False
        if not data:
            return
