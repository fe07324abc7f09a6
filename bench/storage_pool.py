"""A pool of one host with QEMU and the default SR of type `file`, to measure storage: disks, streams, processes.

What streams are compared with reads and writes the same file system as the SR.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from bench.vm import connect, environment

PAUSE = 0.5
"""Seconds after each that is measured in turns: what it leaves to be done, as the start of the next transfer's worker,
is not in the next one's time.
"""
ADDRESS = "127.0.3.21"
HTTP, HTTPS = 8080, 8443
MIB, GIB = 1 << 20, 1 << 30


@dataclass
class StoragePool:
    """`scratch`: a folder for what comparisons write. `sr`: ref of the SR; `images`: its folder."""

    directory: Path
    scratch: Path
    session: Any
    sr: str

    @property
    def api(self) -> Any:
        return self.session.xenapi

    @property
    def images(self) -> Path:
        return self.directory / "sr"

    # ---- disks

    def disk(self, size: int, sr: str = "") -> str:
        """A new VDI."""
        return str(
            self.api.VDI.create(
                {
                    "name_label": "bench",
                    "name_description": "",
                    "SR": sr or self.sr,
                    "virtual_size": str(size),
                    "type": "user",
                    "sharable": False,
                    "read_only": False,
                    "other_config": {},
                }
            )
        )

    def image(self, vdi: str) -> Path:
        return self.images / f"{self.api.VDI.get_location(vdi)}.qcow2"

    def raw_file(self, size: int) -> Path:
        """Data without zeros, of which no two mebibytes are the same."""
        path, data = self.scratch / f"data-{size}", os.urandom(MIB)
        if not path.exists():
            with path.open("wb") as file:
                for number in range(size // MIB):
                    file.write(number.to_bytes(8) + data[8:])
        return path

    # ---- streams

    def export(self, vdi: str, form: str, scheme: str = "http", into: str = "/dev/null") -> float:
        """Seconds that curl took."""
        return curl("-o", into, self._url("export_raw_vdi", vdi, form, scheme))

    def import_(self, vdi: str, form: str, file: Path, scheme: str = "http") -> float:
        """Seconds that curl took."""
        return curl("-T", str(file), self._url("import_raw_vdi", vdi, form, scheme))

    def _url(self, path: str, vdi: str, form: str, scheme: str) -> str:
        port = HTTP if scheme == "http" else HTTPS
        session = self.session._session
        return f"{scheme}://{ADDRESS}:{port}/{path}?session_id={session}&vdi={vdi}&format={form}"

    # ---- processes

    def service(self, name: str) -> psutil.Process:
        return psutil.Process(int((self.directory / "host1" / f"{name}.pid").read_text().split()[0]))

    def worker(self) -> psutil.Process | None:
        """The process of the transfer that runs; None without one."""
        for each in self.service("storage").children():
            try:
                if "services.storage.transfer" in each.cmdline():
                    return each
            except psutil.NoSuchProcess:
                continue
        return None


@contextmanager
def running(*, in_memory: bool = False) -> Iterator[StoragePool]:
    """In a folder of its own. `in_memory`: on a tmpfs where there is one, so that no disk's speed is measured."""
    memory = "/dev/shm" if in_memory and os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix="bench-storage-", dir=memory) as name:
        directory, scratch = Path(name) / "p", Path(name) / "scratch"
        scratch.mkdir()
        command = [sys.executable, "-m", "pool", "--dir", str(directory)]
        ports = ["--http-port", str(HTTP), "--https-port", str(HTTPS)]
        up = [*command, "up", "--hosts", "1", "--base-address", ADDRESS, *ports]
        subprocess.run(up, check=True, stdout=subprocess.DEVNULL, env=_as_installed(Path(name)))
        try:
            session = connect(environment(directory))
            sr = next(iter(session.xenapi.pool.get_all_records().values()))["default_SR"]
            yield StoragePool(directory, scratch, session, sr)
        finally:
            subprocess.run([*command, "down"], check=True, stdout=subprocess.DEVNULL)


def _as_installed(folder: Path) -> dict[str, str]:
    """The environment, with modules compiled once, in that folder, whatever it says of a checkout."""
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    return {**kept, "PYTHONPYCACHEPREFIX": str(folder / "compiled")}


def curl(*arguments: str) -> float:
    """Seconds. Raises `CalledProcessError` for an answer that is none of success."""
    return seconds(["curl", "--silent", "--show-error", "--fail", "--insecure", *arguments])


def seconds(command: list[str]) -> float:
    begin = time.perf_counter()
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    return time.perf_counter() - begin


def in_turns(rounds: int, **sides: Callable[[], float]) -> dict[str, list[float]]:
    """What each gave, one after the other in every round, so that all have the same of the machine's load."""
    found: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(rounds):
        for name, side in sides.items():
            found[name].append(side())
            time.sleep(PAUSE)
    return found
