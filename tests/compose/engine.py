"""Docker's engine, started for the test only: own data, socket and pid file, and no firewall rules.

Ports are published by its user-land proxy, so nothing of the machine's own network configuration changes.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pool.logfiles import tail

START_TIMEOUT = 60.0
STOP_TIMEOUT = 60.0


class Engine:
    """A running engine. `environment` makes docker and docker-compose use it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.environment = {**os.environ, "DOCKER_HOST": f"unix://{directory}/docker.sock", "DOCKER_BUILDKIT": "0"}

    def run(self, *command: str, timeout: float = 120.0, cwd: Path | None = None, check: bool = True) -> str:
        """Standard output."""
        done = subprocess.run(
            command,
            cwd=cwd,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
        assert not check or done.returncode == 0, f"{' '.join(command)}:\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
        return done.stdout


@contextmanager
def running(directory: Path) -> Iterator[Engine]:
    directory.mkdir(parents=True, exist_ok=True)
    log = directory / "dockerd.log"
    with log.open("w") as output:
        process = subprocess.Popen(
            [
                "dockerd",
                f"--data-root={directory}/data",
                f"--exec-root={directory}/exec",
                f"--pidfile={directory}/docker.pid",
                f"--host=unix://{directory}/docker.sock",
                "--bridge=none",
                "--iptables=false",
                "--ip6tables=false",
                "--ip-forward=false",
            ],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    engine = Engine(directory)
    try:
        deadline = time.monotonic() + START_TIMEOUT
        while subprocess.run(["docker", "info"], env=engine.environment, capture_output=True, check=False).returncode:
            assert process.poll() is None, f"dockerd does not start:\n{tail(log)}"
            assert time.monotonic() < deadline, f"dockerd is not ready after {START_TIMEOUT:g} s:\n{tail(log)}"
            time.sleep(0.3)
        yield engine
    finally:
        process.terminate()
        try:
            process.wait(STOP_TIMEOUT)
        finally:
            process.kill()
            process.wait()
        for part in ("data", "exec"):
            shutil.rmtree(directory / part, ignore_errors=True)
