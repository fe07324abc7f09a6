"""Database processes without their second of imports: a process that has done those forks them.

`python -m tests.db.crash.nursery` takes lines on its input, `{"arguments": [...], "log": "..."}` with the arguments of
`process.py`, and prints `{"pid": N}` for each, and `{"ended": N, "status": S}` when one has gone (negative: a signal).
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import select
import signal
import socket
import sys
from contextlib import suppress
from typing import Any

from tests.db.crash import process


class Born:
    """A forked process, as `asyncio.subprocess.Process` is one."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.status: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    async def wait(self) -> int:
        return await asyncio.shield(self.status)

    def send_signal(self, number: int) -> None:
        if not self.status.done():
            os.kill(self.pid, number)


class Nursery:
    """Started with the first process that is wanted. `close` ends it, not what it has forked."""

    def __init__(self) -> None:
        self._process: asyncio.subprocess.Process | None = None
        self._reading: asyncio.Task[None] | None = None
        self._born: dict[int, Born] = {}
        self._wanted: list[asyncio.Future[Born]] = []

    async def start(self, arguments: list[str], log: str) -> Born:
        if self._process is None:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "tests.db.crash.nursery",
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                start_new_session=True,
            )
            self._reading = asyncio.create_task(self._read(self._process), name="nursery")
        assert self._process.stdin is not None
        wanted: asyncio.Future[Born] = asyncio.get_running_loop().create_future()
        self._wanted.append(wanted)
        self._process.stdin.write(json.dumps({"arguments": arguments, "log": log}).encode() + b"\n")
        return await wanted

    async def _read(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdout is not None
        while line := await process.stdout.readline():
            said = json.loads(line)
            if "pid" in said:
                born = self._born[said["pid"]] = Born(said["pid"])
                self._wanted.pop(0).set_result(born)
            else:
                self._born.pop(said["ended"]).status.set_result(said["status"])

    async def close(self) -> None:
        if self._process is None or self._reading is None:
            return
        with suppress(ProcessLookupError):
            self._process.kill()
        await self._process.wait()
        self._reading.cancel()
        await asyncio.gather(self._reading, return_exceptions=True)


def main() -> None:
    woken, wake = socket.socketpair()
    wake.setblocking(False)
    signal.set_wakeup_fd(wake.fileno())
    signal.signal(signal.SIGCHLD, lambda *_: None)
    while True:
        readable, _, _ = select.select([sys.stdin.fileno(), woken.fileno()], [], [])
        if woken.fileno() in readable:
            woken.recv(4096)
            _tell_of_the_gone()
        if sys.stdin.fileno() in readable:
            line = _line()
            if not line:
                return
            _say(pid=_fork(json.loads(line), [woken, wake]))


def _line() -> bytes:
    """One line; nothing is read ahead, so that `select` tells of all there is."""
    line = b""
    while not line.endswith(b"\n"):
        part = os.read(sys.stdin.fileno(), 1)
        if not part:
            return b""
        line += part
    return line


def _tell_of_the_gone() -> None:
    with suppress(ChildProcessError):
        while True:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                return
            _say(ended=pid, status=os.waitstatus_to_exitcode(status))


def _say(**what: Any) -> None:
    print(json.dumps(what), flush=True)


def _fork(wanted: dict[str, Any], sockets: list[socket.socket]) -> int:
    pid = os.fork()
    if pid:
        return pid
    status = 1
    try:
        os.setsid()
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        for each in sockets:
            each.close()
        log = os.open(wanted["log"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        nothing = os.open(os.devnull, os.O_RDONLY)
        for source, to in ((nothing, 0), (log, 1), (log, 2)):
            os.dup2(source, to)
        random.seed()
        process.main(wanted["arguments"])
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else 1
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


if __name__ == "__main__":
    main()
