"""Runs a pool's processes: `python -m pool.supervisor DIRECTORY`.

It starts what `programs.json` lists, starts again what dies, and on SIGTERM stops everything, then the broker. It is
replaceable: when it is killed the processes go on, and the next supervisor of that folder takes them over. For that,
every process is watched by pidfd, its own children like those it found; nothing but exit codes differs.

`supervisor.json` in the folder tells others how each process is (`read_state`).
"""

from __future__ import annotations

import argparse
import asyncio
import fcntl
import logging
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import msgspec

from pool import broker, plan, processes, programs
from pool.folder import write_env
from pool.logfiles import tail
from pool.plan import PlanError
from pool.processes import Process
from pool.programs import Program
from pool.rabbitmq import BrokerError
from shared import logs
from shared.host_role import RESTART

FIRST_DELAY, LONGEST_DELAY = 0.1, 5.0
"""Seconds before a process that died is started again: doubled each time it dies young."""
GROWN_UP = 10.0
"""Seconds after which a process counts as started well, and its next death as a new story."""
AT_ONCE = 5
"""How often in a row a process that died young is started again without a delay, when it asked for that."""
STOP_TIMEOUT = 15.0
"""Seconds a stage of services gets to finish (each allows itself 10)."""
OUTAGE_CHECK = 0.2
"""Seconds between two looks whether a host that is down may come up."""
LOG_LIMIT = 16 * 1024 * 1024
LOG_CHECK = 5.0

log = logging.getLogger("pool.supervisor")


class ChildState(msgspec.Struct, kw_only=True):
    """`state`: running | waiting (to be started again) | down (with its host) | stopped.

    `failures`: deaths in a row, each soon after a start. `since`: Unix time of the state. `last_exit`: how it ended
    last, for people.
    """

    name: str
    state: str = "stopped"
    pid: int = 0
    since: float = 0.0
    failures: int = 0
    restarts: int = 0
    last_exit: str = ""


class State(msgspec.Struct, kw_only=True):
    pid: int
    stopping: bool = False
    children: list[ChildState] = []


def read_state(directory: Path) -> State | None:
    """None when no supervisor wrote one."""
    try:
        return msgspec.json.decode((directory / "supervisor.json").read_bytes(), type=State)
    except (FileNotFoundError, msgspec.DecodeError):
        return None


def argv(directory: Path) -> list[str]:
    return [sys.executable, "-m", "pool.supervisor", str(directory)]


def find(directory: Path) -> Process | None:
    """The supervisor that runs that folder's pool. To be closed."""
    return processes.find(directory / "supervisor.pid", argv(directory))


def runs(directory: Path) -> bool:
    """Whether a supervisor runs that folder's pool now."""
    process = find(directory)
    if process is None:
        return False
    process.close()
    return True


class SupervisorError(Exception):
    """It did not start; the text is what it said."""


def start(directory: Path) -> int:
    """Starts one in a session of its own, so that it outlives the terminal. Its pid. Raises `SupervisorError`."""
    with (directory / "supervisor.log").open("ab") as output:
        process = subprocess.Popen(
            argv(directory),
            cwd=Path(__file__).parent.parent,
            env={**os.environ, processes.MARK: str(directory)},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    while processes.read_pid(directory / "supervisor.pid") != process.pid:
        if process.poll() is not None:
            raise SupervisorError(f"the supervisor ended at once:\n{tail(directory / 'supervisor.log')}")
        time.sleep(0.02)
    return process.pid


class Supervisor:
    def __init__(self, directory: Path, listed: list[Program]) -> None:
        self.directory = directory
        self.programs = listed
        self.state = State(pid=os.getpid(), children=[ChildState(name=program.name) for program in listed])
        self._popen: dict[str, subprocess.Popen[bytes]] = {}
        self._running: dict[str, Process] = {}
        self._found = processes.by_command(directory)
        self._changed = asyncio.Event()

    async def run(self) -> None:
        """Until SIGTERM or SIGINT, then until all is stopped."""
        interrupted = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, interrupted.set)
        keepers = [
            asyncio.create_task(self._keep(program, child), name=program.name)
            for program, child in zip(self.programs, self.state.children, strict=True)
        ]
        others = [
            asyncio.create_task(self._publish(), name="publish"),
            asyncio.create_task(self._rotate(), name="rotate"),
            asyncio.create_task(self._keep_broker(), name="broker"),
        ]
        work = [*keepers, *others]
        stop = asyncio.ensure_future(interrupted.wait())
        await asyncio.wait([stop, *work], return_when=asyncio.FIRST_COMPLETED)
        failed = [task for task in work if task.done()]  # they end by an error only
        log.info("stopping")
        self.state.stopping = True
        self._changed.set()
        for task in (*keepers, others[-1]):
            task.cancel()
        await asyncio.gather(*keepers, others[-1], return_exceptions=True)
        await self._stop_services()
        await asyncio.to_thread(broker.stop, self.directory)
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        self._write_state()
        stop.cancel()
        for task in failed:
            task.result()

    async def _keep(self, program: Program, child: ChildState) -> None:
        """Starts the program, or takes over the one that runs, and again each time it has died."""
        asked = 0
        while True:
            await self._while_down(program, child)
            process = self._adopt(program) or self._start(program)
            if process is not None:
                self._running[program.name] = process
                self._set(child, "running", process.pid)
                await _ended(process)
                young = time.time() - child.since < GROWN_UP
                status, child.last_exit = self._reap(program)
                self._running.pop(program.name).close()
                asked = 0 if status != RESTART else asked + 1 if young else 1
                if 0 < asked <= AT_ONCE:
                    child.restarts += 1
                    log.info("%s: its host has another role in the pool, starting it again", program.name)
                    self._name_coordinator()
                    continue
                child.failures = child.failures + 1 if young else 1
            else:
                child.failures += 1
            child.restarts += 1
            delay = min(LONGEST_DELAY, FIRST_DELAY * 2 ** (child.failures - 1))
            self._set(child, "waiting", 0)
            log.warning("%s: ended (%s), starting it again in %.1f s", program.name, child.last_exit, delay)
            await asyncio.sleep(delay)

    async def _while_down(self, program: Program, child: ChildState) -> None:
        while (
            programs.down_file(self.directory, program.group).exists()
            or program.stay_down_file(self.directory).exists()
        ):
            child.failures = 0
            if child.state != "down":
                self._set(child, "down", 0)
            await asyncio.sleep(OUTAGE_CHECK)

    def _adopt(self, program: Program) -> Process | None:
        """What an earlier supervisor left running, even if it was killed before it could write the pid file."""
        pid = self._found.pop(tuple(program.argv[1:]), 0)
        process = Process.open(pid) if pid else None
        if process is None:
            return None
        if processes.command_line(pid)[1:] != program.argv[1:]:
            process.close()
            return None
        log.info("%s: found running with pid %d", program.name, pid)
        self._write_pid(program, pid)
        return process

    def _start(self, program: Program) -> Process | None:
        try:
            with program.log_file(self.directory).open("ab") as output:
                popen = subprocess.Popen(
                    program.argv,
                    cwd=Path(__file__).parent.parent,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    start_new_session=True,
                )
        except OSError as error:
            log.error("%s: cannot start: %s", program.name, error)
            return None
        process = Process(popen.pid, os.pidfd_open(popen.pid))  # our child: its number is ours until we reap it
        self._write_pid(program, popen.pid)
        self._popen[program.name] = popen
        return process

    def _write_pid(self, program: Program, pid: int) -> None:
        """Without the file the process is still found by its command line."""
        try:
            processes.write_pid(program.pid_file(self.directory), pid)
        except OSError as error:
            log.error("%s: cannot write its pid file: %s", program.name, error)

    def _reap(self, program: Program) -> tuple[int | None, str]:
        """The exit status, if it can be known, and how it ended, for people."""
        popen = self._popen.pop(program.name, None)
        if popen is None:
            return None, "it was not started by this supervisor"
        status = popen.wait()
        return status, f"exit status {status}" if status >= 0 else f"signal {signal.Signals(-status).name}"

    def _name_coordinator(self) -> None:
        """Clients find the coordinator by the file `env`. One that cannot be written names the old one."""
        try:
            pool = plan.load(self.directory)
            if pool is not None:
                write_env(self.directory, pool)
        except (OSError, PlanError) as error:
            log.error("cannot write who is coordinator: %s", error)

    def _set(self, child: ChildState, state: str, pid: int) -> None:
        child.state, child.pid, child.since = state, pid, time.time()
        self._changed.set()

    async def _publish(self) -> None:
        """Several changes in one moment are one write. A full disk must not stop the pool."""
        while True:
            await self._changed.wait()
            self._changed.clear()
            try:
                self._write_state()
            except OSError as error:
                log.error("cannot write supervisor.json: %s", error)
            await asyncio.sleep(0.05)

    def _write_state(self) -> None:
        new = self.directory / "supervisor.json.new"
        new.write_bytes(msgspec.json.encode(self.state))
        new.replace(self.directory / "supervisor.json")

    async def _stop_services(self) -> None:
        """Stage by stage, the last first."""
        for stage in sorted({program.stage for program in self.programs}, reverse=True):
            members = [program for program in self.programs if program.stage == stage]
            running = [self._running[program.name] for program in members if program.name in self._running]
            for pid in await asyncio.to_thread(processes.stop_all, running, STOP_TIMEOUT):
                log.error("pid %d did not end within %.0f s and was killed", pid, STOP_TIMEOUT)
            for program, child in zip(self.programs, self.state.children, strict=True):
                if program.stage != stage:
                    continue
                if program.name in self._running:
                    _, child.last_exit = self._reap(program)
                    self._running.pop(program.name).close()
                    program.pid_file(self.directory).unlink(missing_ok=True)
                self._set(child, "stopped", 0)

    async def _keep_broker(self) -> None:
        """Starts the private RabbitMQ node again when it dies. A broker that is not ours is left to its owner."""
        failures = 0
        while True:
            process = broker.process(self.directory)
            if process is None and not broker.private(self.directory):
                await asyncio.Event().wait()
            if process is not None:
                begun = time.monotonic()
                try:
                    await _ended(process)
                finally:
                    process.close()
                failures = failures + 1 if time.monotonic() - begun < GROWN_UP else 1
            delay = min(LONGEST_DELAY, FIRST_DELAY * 2**failures)
            log.warning("RabbitMQ has ended, starting it again in %.1f s", delay)
            await asyncio.sleep(delay)
            restart = asyncio.ensure_future(asyncio.to_thread(broker.restart, self.directory))
            try:
                await asyncio.shield(restart)
            except asyncio.CancelledError:
                await asyncio.wait([restart])  # a thread cannot be cancelled: the node must be there to be stopped
                raise
            except BrokerError as error:
                failures += 1
                log.error("RabbitMQ does not start: %s", error)

    async def _rotate(self) -> None:
        """Keeps each log below `LOG_LIMIT`, with one older part.

        The writer has the file open for appending, so it is copied and emptied; a line written between the two is lost.
        """
        own = self.directory / "supervisor.log"
        while True:
            for path in (own, *(program.log_file(self.directory) for program in self.programs)):
                try:
                    if path.stat().st_size > LOG_LIMIT:
                        await asyncio.to_thread(_rotate, path)
                except FileNotFoundError:
                    continue  # not started yet
                except OSError as error:
                    log.error("cannot rotate %s: %s", path, error)
            await asyncio.sleep(LOG_CHECK)


def _rotate(path: Path) -> None:
    shutil.copyfile(path, path.with_name(path.name + ".1"))
    os.truncate(path, 0)


async def _ended(process: Process) -> None:
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    loop.add_reader(process.descriptor, ended.set)
    try:
        await ended.wait()
    finally:
        loop.remove_reader(process.descriptor)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m pool.supervisor", description="Runs a pool's processes.")
    parser.add_argument("directory", type=Path, help="the pool's folder, with programs.json")
    directory = parser.parse_args().directory
    logs.configure("supervisor", "", "info")
    os.environ[processes.MARK] = str(directory)
    with (directory / "supervisor.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            sys.exit(f"another supervisor runs the pool in {directory}")
        processes.write_pid(directory / "supervisor.pid", os.getpid())
        try:
            asyncio.run(Supervisor(directory, programs.load(directory)).run())
        finally:
            (directory / "supervisor.pid").unlink(missing_ok=True)


if __name__ == "__main__":
    main()
