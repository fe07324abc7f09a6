"""The storage and VM services of one host in a process that can be killed, with QEMU and two SRs in folders.

    python -m tests.storage.motion.host FOLDER GUEST_DIR

Commands come on standard input, answers go to standard output, one JSON object a line. Beside the services' methods:
`die` and `hold` name a point of a move at which the process kills itself or that move stops, `go` lets it go on,
`guest` is a line for QEMU's human monitor.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path
from typing import Any

import msgspec
import uvloop

from services.storage import service as storage_service
from services.storage.datapaths import Datapaths
from services.vm import service as vm_service
from services.vm.disk_moves import DiskMoves
from services.vm.disks import Progress, Slot
from services.vm.host import Living, VmHost
from services.vm.qemu.backend import QemuBackend
from services.vm.qemu.disks.mirrors import Mirrors
from services.vm.records import Mirror, Record
from shared import logs
from shared.bus.contract import Method
from shared.bus.memory import MemoryBroker
from shared.config import BusConfig, Config, HostConfig
from shared.contracts import storage, vm, vm_disks
from shared.errors import ApiError
from shared.service import Service

HOST = "11111111-0000-4000-8000-000000000001"
METHODS = {
    value.name: value
    for module in (storage, vm, vm_disks)
    for value in vars(module).values()
    if isinstance(value, Method)
}


class Command(msgspec.Struct):
    id: int
    method: str
    request: dict[str, Any]


class Points:
    """Where a move has arrived."""

    def __init__(self) -> None:
        self.die = ""
        self.hold = ""
        self.notes = 0
        self.gate = asyncio.Event()

    def reached(self, name: str) -> None:
        if name == self.die:
            os.kill(os.getpid(), signal.SIGKILL)

    async def passed(self, name: str) -> None:
        self.reached(name)
        if name == self.hold:
            say(holding=name)
            await self.gate.wait()

    def watch(self) -> None:
        points = self
        note, until_ready, hand_over = DiskMoves._note, DiskMoves._until_ready, DiskMoves._hand_over
        mirror_end, made = Mirrors.mirror_end, Datapaths.__init__

        def noted(self: DiskMoves, domain: Living, record: Record) -> None:
            note(self, domain, record)
            points.notes += 1
            points.reached(f"note {points.notes}")

        async def mirroring(self: DiskMoves, slot: Slot, vdi: str, progress: Progress) -> None:
            await points.passed("mirroring")
            await until_ready(self, slot, vdi, progress)
            await points.passed("ready")

        async def pivoted(self: DiskMoves, domain: Living, mirror: Mirror) -> None:
            await points.passed("pivoted")
            await hand_over(self, domain, mirror)

        async def ended(self: Mirrors, slot: Slot, *, pivot: bool, whole: bool = False) -> None:
            await mirror_end(self, slot, pivot=pivot, whole=whole)
            if pivot:
                await points.passed("changed")

        def watched(self: Datapaths, *arguments: Any) -> None:
            made(self, *arguments)
            self.checkpoint = points.reached

        DiskMoves._note = noted  # type: ignore[method-assign]
        DiskMoves._until_ready = mirroring  # type: ignore[method-assign]
        DiskMoves._hand_over = pivoted  # type: ignore[method-assign]
        Mirrors.mirror_end = ended  # type: ignore[method-assign]
        Datapaths.__init__ = watched  # type: ignore[assignment,method-assign]


def say(**line: Any) -> None:
    sys.stdout.buffer.write(msgspec.json.encode(line) + b"\n")
    sys.stdout.buffer.flush()


async def start(broker: MemoryBroker, name: str, folder: Path, setup: Any, **options: Any) -> Service:
    config = Config(
        service=name,
        state_dir=str(folder / name),
        bus=BusConfig(url="memory"),
        hosts=[HostConfig(uuid=HOST, name="host1", address="127.0.0.1")],
        options={"run_dir": str(folder / "run" / name), **options},
    )
    config.state.mkdir(exist_ok=True)
    service = Service(config, await broker.connect(name))
    await setup(service)
    await service.open_queues()
    return service


async def run(folder: Path, guest_dir: str) -> None:
    points, hosts = Points(), list[VmHost]()
    points.watch()
    made = VmHost.__init__

    def kept(self: VmHost, *arguments: Any, **named: Any) -> None:
        made(self, *arguments, **named)
        hosts.append(self)

    VmHost.__init__ = kept  # type: ignore[method-assign]
    broker = MemoryBroker()
    client = await broker.connect("client")
    services = [await start(broker, "storage", folder, storage_service.setup, smapiv1_dir="", smapiv3_root="")]
    vm_options = {"backend": "qemu", "accel": "tcg", "guest_dir": guest_dir}
    services.append(await start(broker, "vm", folder, vm_service.setup, **vm_options))
    say(ready=True)
    calls: dict[int, asyncio.Task[None]] = {}

    async def done(command: Command) -> Any:
        request = command.request
        match command.method:
            case "die":
                points.die, points.notes = request["at"], 0
            case "hold":
                points.hold = request["at"]
                points.gate.clear()
            case "go":
                points.hold = ""
                points.gate.set()
            case "cancel":
                calls[request["id"]].cancel()
            case "guest":
                backend = hosts[0].backend
                assert isinstance(backend, QemuBackend)
                line = {"command-line": request["line"]}
                return await backend.guest(request["vm"]).execute("human-monitor-command", **line)
            case name:
                method = METHODS[name]
                return await client.call(method, msgspec.convert(request, method.request), host=HOST)
        return None

    async def answer(command: Command) -> None:
        try:
            say(id=command.id, result=await done(command))
        except ApiError as error:
            say(id=command.id, error=error.description)
        except asyncio.CancelledError:
            say(id=command.id, error=["CANCELLED"])

    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while line := await reader.readline():
        command = msgspec.json.decode(line, type=Command)
        calls[command.id] = asyncio.create_task(answer(command))
    for service in reversed(services):
        await service.close()
    await client.close()


if __name__ == "__main__":
    logs.configure("motion", HOST, "info")
    uvloop.run(run(Path(sys.argv[1]), sys.argv[2]))
