"""The CLI service: conversations with thin clients, whose bytes the host's API process carries."""

from __future__ import annotations

import asyncio
import base64
import binascii
import logging
from collections.abc import AsyncIterator

import msgspec
from prometheus_client import Counter, Gauge

from services.cli.commands import command_table
from services.cli.protocol import ProtocolError
from services.cli.server.conversation import ClientGone, Conversation
from services.cli.server.dispatch import Dispatcher
from services.cli.server.xenapi import Transport, XenApi
from shared.bus.context import current
from shared.bus.contract import Empty
from shared.contracts.api import XENAPI, XenApiAnswer, XenApiCall
from shared.contracts.cli import INPUT, RUN, CliCommand, CliInput, Frames
from shared.datamodel.errors import CATALOGUE
from shared.errors import ApiError
from shared.service import Service

log = logging.getLogger("cli")


class Conversations:
    """Those of one host. `transport`: its XenAPI. `count`: of commands run."""

    def __init__(self, dispatcher: Dispatcher, transport: Transport, count: Counter | None = None) -> None:
        self._count = count
        self._dispatcher = dispatcher
        self._transport = transport
        self._open: dict[str, Conversation] = {}

    def __len__(self) -> int:
        return len(self._open)

    async def run(self, command: CliCommand) -> AsyncIterator[Frames]:
        """The frames to write to the client, up to Exit; fewer if it leaves: that cancels the command."""
        if command.conversation in self._open:
            raise ApiError("INTERNAL_ERROR", f"there is a conversation {command.conversation} already")
        if self._count is not None:
            self._count.inc()
        conversation = self._open[command.conversation] = Conversation()
        work = asyncio.create_task(self._converse(command, conversation), name=f"xe {command.conversation}")
        try:
            while (data := await conversation.outgoing()) is not None:
                yield Frames(data=base64.b64encode(data).decode())
        finally:
            del self._open[command.conversation]
            work.cancel()
            await asyncio.gather(work, return_exceptions=True)

    async def input(self, given: CliInput) -> Empty:
        """What the client sent. A conversation that is over already has no use for it."""
        conversation = self._open.get(given.conversation)
        if conversation is None:
            return Empty()
        try:
            conversation.feed(base64.b64decode(given.data, validate=True))
        except binascii.Error as error:
            raise ApiError("INTERNAL_ERROR", f"input is not base64: {error}") from error
        if given.eof:
            conversation.hang_up()
        return Empty()

    async def _converse(self, command: CliCommand, conversation: Conversation) -> None:
        """Runs the command until it ends or the client has gone; says at last that there is nothing more to say."""
        if command.traceparent:
            current.set(msgspec.structs.replace(current.get(), traceparent=command.traceparent))
        api = XenApi(self._transport, trusted=command.trusted, address=command.address)
        work = asyncio.create_task(self._dispatcher.run(command.body, conversation, api))
        gone = asyncio.create_task(conversation.gone.wait())
        try:
            await asyncio.wait({work, gone}, return_when=asyncio.FIRST_COMPLETED)
            if work.done():
                work.result()
        except (ClientGone, ProtocolError) as error:
            log.info("a conversation ended early: %s", str(error) or "the client has gone")
        except Exception:
            log.exception("a conversation failed")
        finally:
            for task in (work, gone):
                task.cancel()
            await asyncio.gather(work, gone, return_exceptions=True)
            conversation.close()


async def setup(service: Service) -> None:
    dispatcher = Dispatcher(command_table(), CATALOGUE)
    commands = Counter("cli_commands", "Commands run for thin clients.", registry=service.registry)
    conversations = Gauge("cli_conversations", "Thin clients being served.", registry=service.registry)
    hosts: list[Conversations] = []

    def open_conversations() -> float:
        return sum(len(each) for each in hosts)

    conversations.set_function(open_conversations)
    for host in service.hosts:
        here = Conversations(dispatcher, _transport(service, host.uuid), commands)
        hosts.append(here)
        await service.serve(RUN, here.run, host=host.uuid)
        await service.serve(INPUT, here.input, host=host.uuid)


def _transport(service: Service, host: str) -> Transport:
    async def call(request: XenApiCall) -> XenApiAnswer:
        return await service.bus.call(XENAPI, request, host=host)

    return call
