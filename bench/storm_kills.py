"""Who is killed in a storm: services, the programs that they run, and the server of who writes."""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from collections import Counter
from pathlib import Path

import psutil

from bench.storm_pool import SCRIPTS
from pool import processes
from tests.support.pool import PoolUnderTest

SERVICES = ("storage", "storage", "storage", "api")
PROGRAMS = ("qemu-img", "qemu-nbd", "qemu-storage-daemon", "services.storage.transfer")
SCRIPT = "a plug-in's script"
WRITER = "the writer's qemu-nbd"
_MEETS_WITHIN = 4.0
"""Seconds in which a program has to come by."""


class Killer(threading.Thread):
    """Kills as often as it is told at moments of its own choice. `killed`: how often whom."""

    def __init__(self, pool: PoolUnderTest, seed: int, times: int, over: float) -> None:
        super().__init__()
        self._pool, self._times, self._over = pool, times, over
        self._random = random.Random(seed)
        self._stopped = threading.Event()
        self._scripts = pool.directory / SCRIPTS
        self._programs = (*PROGRAMS, WRITER, *([SCRIPT] * 3 if self._scripts.exists() else []))
        self.killed: Counter[str] = Counter()

    def run(self) -> None:
        for _ in range(self._times):
            if self._stopped.wait(self._random.uniform(0, self._over / self._times)):
                return
            if self._random.random() < 0.5:
                self._kill_service(self._random.choice(SERVICES), self._random.choice(("host1", "host2")))
            else:
                self._kill_program(self._random.choice(self._programs))

    def stop(self) -> None:
        self._stopped.set()
        self.join()

    def _kill_service(self, name: str, host: str) -> None:
        if pid := self._pool.pid(name, host):
            kill(pid)
            self.killed[f"{host}/{name}"] += 1

    def _kill_program(self, name: str) -> None:
        deadline = time.monotonic() + _MEETS_WITHIN
        while time.monotonic() < deadline and not self._stopped.wait(0.01):
            if found := self._running(name):
                time.sleep(self._random.uniform(0, 0.05))
                kill(self._random.choice(found))
                self.killed[name] += 1
                return

    def _running(self, name: str) -> list[int]:
        if name == WRITER:
            return [each.pid for each in psutil.Process().children() if _is(each.pid, "qemu-nbd")]
        if name == SCRIPT:
            return [pid for pid in processes.marked(self._pool.directory) if self._is_script(pid)]
        return [pid for pid in processes.marked(self._pool.directory) if _is(pid, name)]

    def _is_script(self, pid: int) -> bool:
        return any(word.startswith(str(self._scripts)) for word in processes.command_line(pid)[:3])


def _is(pid: int, program: str) -> bool:
    words = processes.command_line(pid)
    return bool(words) and (Path(words[0]).name == program or program in words[1:3])


def kill(pid: int) -> None:
    """Who has ended by itself meanwhile is as dead."""
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return
