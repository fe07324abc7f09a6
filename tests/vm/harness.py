"""A vm service in a process of its own, to be killed; storage and network are fakes that share the process.

    python -m tests.vm.harness '{"folder": ..., "options": {...}, "hang_at": ""}'

Commands come on standard input, answers and events go to standard output, one JSON object a line.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Any

import msgspec
import uvloop

from services.vm import micro_ops
from services.vm.plan import MicroOp
from services.vm.service import setup
from shared import logs
from shared.bus.contract import Method
from shared.bus.memory import MemoryBroker
from shared.config import BusConfig, Config, HostConfig
from shared.contracts import vm as contract
from shared.contracts import vm_disks
from shared.contracts.vm import VmStateChanged
from shared.errors import ApiError
from shared.service import Service
from tests.vm.neighbours import HOST, Neighbours


class Settings(msgspec.Struct):
    """`hang_at`: the micro-operation at which every operation stops for ever."""

    folder: str
    options: dict[str, Any]
    hang_at: str = ""


class Command(msgspec.Struct):
    id: int
    method: str
    request: dict[str, Any]


def say(**line: Any) -> None:
    sys.stdout.buffer.write(msgspec.json.encode(line) + b"\n")
    sys.stdout.buffer.flush()


async def run(settings: Settings) -> None:
    folder = Path(settings.folder)
    broker = MemoryBroker()
    client, near_bus = await broker.connect("client"), await broker.connect("neighbours")
    near = Neighbours(folder / "disks", "user")
    await near.serve(near_bus, HOST)

    async def heard(event: VmStateChanged, _: str) -> None:
        say(event=event)

    await client.subscribe(contract.STATE, heard)
    config = Config(
        service="vm",
        state_dir=str(folder / "state"),
        bus=BusConfig(url="memory"),
        hosts=[HostConfig(uuid=HOST, name="host1", address="127.0.0.1")],
        options=settings.options,
    )
    service = Service(config, await broker.connect("vm"))
    await setup(service)
    await service.open_queues()
    say(ready=True)
    served = [*vars(contract).values(), *vars(vm_disks).values()]
    methods = {value.name: value for value in served if isinstance(value, Method)}
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)

    async def answer(command: Command) -> None:
        if command.method == "calls":
            say(id=command.id, result=near.calls)
            return
        method = methods[command.method]
        try:
            reply = await client.call(method, msgspec.convert(command.request, method.request), host=HOST)
            say(id=command.id, result=reply)
        except ApiError as error:
            say(id=command.id, error=error.description)

    async with asyncio.TaskGroup() as group:
        while line := await reader.readline():
            group.create_task(answer(msgspec.json.decode(line, type=Command)))
    await service.close()
    await near_bus.close()
    await client.close()


def hang(at: MicroOp) -> None:
    original = micro_ops.MicroOps._one

    async def one(self: micro_ops.MicroOps, op: MicroOp, build: micro_ops.Build) -> None:
        if op is at:
            say(hanging=op)
            await asyncio.Event().wait()
        await original(self, op, build)

    micro_ops.MicroOps._one = one  # type: ignore[method-assign]


if __name__ == "__main__":
    given = msgspec.json.decode(sys.argv[1], type=Settings)
    logs.configure("vm", HOST, "info")
    if given.hang_at:
        hang(MicroOp(given.hang_at))
    uvloop.run(run(given))
