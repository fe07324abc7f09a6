"""The database process under test: started, killed, paused, started again; also when it ends by itself."""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final

from tests.db.crash.nursery import Born, Nursery
from tests.support import lossy_disk

HOST: Final = "7d0a3b52-6c1e-4b0e-9d7f-0c5d1f6a2e11"
PAUSE: Final = 0.1
"""Seconds before one that ended by itself is started again."""


class DatabaseProcess:
    """`disk`: as in `process.py`; "" is `python -m services.db` itself, started anew each time. `told` hears of every
    interruption. `host`: uuid of the host that it runs on.

    `boots`: how often the machine's power was cut. `ended`: exit statuses of processes that nobody had killed.
    """

    def __init__(
        self,
        folder: Path,
        url: str,
        options: Mapping[str, object],
        *,
        disk: str,
        seed: int,
        told: Callable[[str], None],
        host: str = HOST,
        name: str = "database",
    ) -> None:
        self.folder = folder
        self.boots = 0
        self.starts = 0
        self.ended: list[int] = []
        self._disk = disk
        self._seed = seed
        self.host = host
        self._told = told
        self._name = name
        self._image = folder / "image"
        self._config = folder / "db.toml"
        self._process: asyncio.subprocess.Process | Born | None = None
        self._nursery = Nursery()
        self._watch: asyncio.Task[None] | None = None
        (folder / "db").mkdir(parents=True, exist_ok=True)
        values = "\n".join(f"{name} = {json.dumps(value)}" for name, value in options.items())
        self._config.write_text(
            f'service = "db"\nstate_dir = {json.dumps(str(folder / "db"))}\n[bus]\nurl = {json.dumps(url)}\n'
            f'[[hosts]]\nuuid = "{host}"\nname = "{name}"\naddress = "127.0.0.1"\n[options]\n{values}\n'
        )

    @property
    def log(self) -> Path:
        return self.folder / "db.log"

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    async def start(self) -> None:
        self.starts += 1
        arguments = ["--config", str(self._config)]
        if self._disk:
            arguments += ["--disk", self._disk, "--image", str(self._image)]
            arguments += ["--seed", str(self._seed + self.starts), "--boot", f"boot-{self.boots}"]
            self._process = await self._nursery.start(arguments, str(self.log))
        else:
            with self.log.open("ab") as log:
                self._process = await asyncio.create_subprocess_exec(
                    sys.executable, "-m", "services.db", *arguments, stderr=log, stdout=log, start_new_session=True
                )
        self._watch = asyncio.create_task(self._restart(self._process), name="database process")

    async def _restart(self, process: asyncio.subprocess.Process | Born) -> None:
        status = await process.wait()
        self.ended.append(status)
        self._told(f"the {self._name} process ended by itself with status {status}")
        await asyncio.sleep(PAUSE)
        self._watch = None
        await self.start()

    async def kill(self) -> None:
        """kill -9 of the process; a child that writes a checkpoint lives on."""
        await self._unwatched()
        assert self._process is not None
        with suppress(ProcessLookupError):
            self._process.send_signal(signal.SIGKILL)
        await self._process.wait()
        self._told(f"the {self._name} process was killed")

    async def terminate(self, patience: float) -> None:
        """SIGTERM, and kill -9 after that many seconds if it still runs."""
        await self._unwatched()
        self.send(signal.SIGTERM)
        with suppress(TimeoutError):
            async with asyncio.timeout(patience):
                assert self._process is not None
                await self._process.wait()
        await self.kill()

    async def cut_power(self, rng: random.Random, *, torn: bool) -> None:
        """kill -9 of everything, and what was not synced is gone."""
        await self._unwatched()
        assert self._process is not None
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        await self._process.wait()
        await asyncio.to_thread(lossy_disk.lose, self._image, rng, torn=torn)
        self.boots += 1
        self._told("the power was cut")

    async def _unwatched(self) -> None:
        if self._watch is not None:
            self._watch.cancel()
            await asyncio.gather(self._watch, return_exceptions=True)
            self._watch = None

    def send(self, number: signal.Signals) -> None:
        assert self._process is not None
        with suppress(ProcessLookupError):
            self._process.send_signal(number)

    def children(self) -> list[int]:
        """Processes that write checkpoints."""
        found: list[int] = []
        with suppress(OSError):
            for task in Path(f"/proc/{self.pid}/task").iterdir():
                found += [int(pid) for pid in (task / "children").read_text().split()]
        return found

    async def stop(self) -> None:
        """Ends it and whatever it has left."""
        await self._unwatched()
        if self._process is not None:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            await self._process.wait()
        await self._nursery.close()
