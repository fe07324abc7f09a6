"""The harness's process, from the test's side."""

from __future__ import annotations

import asyncio
import itertools
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from shared.bus.contract import Method
from shared.contracts.vm import VmStateChanged


class VmService:
    """`kill` is kill -9. `stop` ends it in order."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self._ids = itertools.count(1)
        self._answers: dict[int, asyncio.Future[Any]] = {}
        self._changed = asyncio.Condition()
        self.events: list[VmStateChanged] = []
        self.ready = asyncio.Event()
        self.hanging = asyncio.Event()
        self._reading = asyncio.create_task(self._read())

    @classmethod
    async def start(cls, folder: Path, guest_dir: Path, hang_at: str = "", **options: Any) -> VmService:
        settings = {
            "folder": str(folder),
            "hang_at": hang_at,
            "options": {
                "backend": "qemu",
                "accel": "tcg",
                "guest_dir": str(guest_dir),
                "run_dir": str(folder / "run"),
                "minimum_reboot_delay": 0,
                **options,
            },
        }
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "tests.vm.harness",
            msgspec.json.encode(settings).decode(),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        service = cls(process)
        await asyncio.wait_for(service.ready.wait(), 30)
        return service

    async def call(self, method: Method[Any, Any], request: msgspec.Struct) -> Any:
        """The reply. A failure is an `AssertionError`."""
        return msgspec.convert(await self._ask(method.name, msgspec.to_builtins(request)), method.reply)

    async def calls(self) -> list[str]:
        """What it has asked of storage and network."""
        return list(await self._ask("calls", {}))

    async def _ask(self, method: str, request: Any) -> Any:
        id = next(self._ids)
        self._answers[id] = asyncio.get_running_loop().create_future()
        assert self._process.stdin is not None
        self._process.stdin.write(msgspec.json.encode({"id": id, "method": method, "request": request}) + b"\n")
        return await asyncio.wait_for(self._answers[id], 60)

    async def heard(self, wanted: Callable[[VmStateChanged], bool], timeout: float = 60.0) -> VmStateChanged:
        async with asyncio.timeout(timeout), self._changed:
            while True:
                for event in self.events:
                    if wanted(event):
                        return event
                await self._changed.wait()

    async def kill(self) -> None:
        os.kill(self._process.pid, signal.SIGKILL)
        await self._process.wait()
        await self._reading

    async def stop(self) -> None:
        if self._process.returncode is None:
            assert self._process.stdin is not None
            self._process.stdin.close()
            await asyncio.wait_for(self._process.wait(), 30)
        await self._reading

    async def _read(self) -> None:
        assert self._process.stdout is not None
        while line := await self._process.stdout.readline():
            said = msgspec.json.decode(line)
            if "event" in said:
                async with self._changed:
                    self.events.append(msgspec.convert(said["event"], VmStateChanged))
                    self._changed.notify_all()
            elif "ready" in said:
                self.ready.set()
            elif "hanging" in said:
                self.hanging.set()
            elif not (answer := self._answers[said["id"]]).done():
                if "error" in said:
                    answer.set_exception(AssertionError(said["error"]))
                else:
                    answer.set_result(said["result"])
