"""Fixtures: whole pools of processes for end-to-end tests, each in a temporary folder with addresses of its own.

A pool that a session shares is left as it was found: what a test kills comes back (`wait_ready`), what it creates it
destroys.
"""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pool import plan, processes, programs, ready
from pool.plan import Plan

ROOT = Path(__file__).parent.parent.parent
START_TIMEOUT = 150.0
STOP_TIMEOUT = 150.0


class PoolUnderTest:
    """One pool, driven through `python -m pool` as a user would."""

    def __init__(self, directory: Path, *options: str) -> None:
        self.directory = directory
        self.options = options

    def command(
        self, *arguments: str, timeout: float = 60.0, environment: dict[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "pool", "--dir", str(self.directory), *arguments],
            cwd=ROOT,
            env={**os.environ, **(environment or {})},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )

    def up(self, *more: str) -> subprocess.CompletedProcess[str]:
        done = self.command("up", *self.options, *more, timeout=START_TIMEOUT)
        assert done.returncode == 0, f"the pool does not start:\n{done.stdout}\n{done.stderr}"
        return done

    def down(self) -> subprocess.CompletedProcess[str]:
        done = self.command("down", timeout=STOP_TIMEOUT)
        assert done.returncode == 0, f"the pool does not stop:\n{done.stdout}\n{done.stderr}"
        return done

    @property
    def plan(self) -> Plan:
        found = plan.load(self.directory)
        assert found is not None, f"there is no pool in {self.directory}"
        return found

    @property
    def env(self) -> dict[str, str]:
        """The variables of the `env` file."""
        words = [shlex.split(line)[1] for line in (self.directory / "env").read_text().splitlines()]
        return dict(word.split("=", 1) for word in words)

    @property
    def url(self) -> str:
        return self.env["XAPI_URL"]

    @property
    def password(self) -> str:
        return self.env["XAPI_PASSWORD"]

    @property
    def hosts(self) -> dict[str, str]:
        """Host name to address."""
        return {host.name: host.address for host in self.plan.hosts}

    def host_url(self, name: str) -> str:
        port = self.plan.http_port
        return f"http://{self.hosts[name]}{'' if port == 80 else f':{port}'}"

    def pid(self, service: str, host: str = "host1") -> int:
        """0 while it does not run."""
        for program in programs.load(self.directory):
            if program.name != f"{host}/{service}":
                continue
            process = processes.find(program.pid_file(self.directory), program.argv)
            if process is None:
                return 0
            with process:
                return process.pid
        raise AssertionError(f"the pool has no process {host}/{service}")

    def log(self, service: str, host: str = "host1") -> str:
        return (self.directory / host / f"{service}.log").read_text()

    def kill(self, service: str, host: str = "host1", number: signal.Signals = signal.SIGKILL) -> int:
        """Sends the signal; the supervisor will start it again. The pid it had."""
        pid = self.pid(service, host)
        assert pid, f"{host}/{service} does not run"
        os.kill(pid, number)
        return pid

    def wait_restarted(self, service: str, host: str = "host1", *, other_than: int, timeout: float = 60.0) -> int:
        deadline = time.monotonic() + timeout
        while (pid := self.pid(service, host)) in (0, other_than):
            assert time.monotonic() < deadline, f"{host}/{service} has not come back within {timeout:g} s"
            time.sleep(0.02)
        return pid

    def wait_ready(self, timeout: float = 60.0) -> None:
        """Until the pool answers and all its hosts are live."""
        ready.wait(self.directory, self.plan, programs.load(self.directory), timeout, lambda _: None)


def addresses(worker: str, first: int) -> tuple[str, ...]:
    """Options for a pool at addresses that no other worker has, nor (most likely) another run on this machine."""
    run = 1 + os.getpid() % 250
    number = 20 + int(worker.removeprefix("gw") or 0) if worker.startswith("gw") else 0
    return (
        "--base-address",
        f"127.{run}.{number}.{first}",
        "--simulated-address",
        f"127.{run}.{100 + number}.{first}",
    )


def _run(directory: Path, *options: str) -> Iterator[PoolUnderTest]:
    pool = PoolUnderTest(directory, *options)
    pool.up()
    try:
        yield pool
    finally:
        pool.down()


@pytest.fixture(scope="session")
def simulator_pool(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Iterator[PoolUnderTest]:
    """Three hosts on the simulator."""
    yield from _run(tmp_path_factory.mktemp("sim"), "--hosts", "3", "--backend", "simulator", *addresses(worker_id, 31))


@pytest.fixture(scope="session")
def qemu_pool(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Iterator[PoolUnderTest]:
    """Three hosts on QEMU."""
    if shutil.which("qemu-system-x86_64") is None:
        pytest.skip("qemu-system-x86_64 is not installed")
    yield from _run(tmp_path_factory.mktemp("qemu"), "--hosts", "3", "--backend", "qemu", *addresses(worker_id, 51))


@pytest.fixture
def new_pool(tmp_path: Path, worker_id: str) -> Iterator[PoolUnderTest]:
    """One that the test itself starts, at addresses that no other pool has; it is stopped if the test does not."""
    pool = PoolUnderTest(tmp_path / "p", "--hosts", "1", "--backend", "simulator", *addresses(worker_id, 91))
    try:
        yield pool
    finally:
        pool.command("down", timeout=STOP_TIMEOUT)
