"""Where a domain's sockets and logs are. Everything is named by its domid, which is never used again."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_PID_FILE = re.compile(r"(\d+)\.pid")


@dataclass(frozen=True)
class DomainPaths:
    """`events`: what QEMU has said on its QMP socket, also while nobody listened. `output`: of the serial port."""

    pid: Path
    qmp: Path
    serial: Path
    console: Path
    vnc: Path
    events: Path
    output: Path

    def all(self) -> Iterator[Path]:
        yield from (self.pid, self.qmp, self.serial, self.console, self.vnc, self.events, self.output)


@dataclass(frozen=True)
class HostPaths:
    """`run`: sockets and pid files, gone with the machine. `logs`: the rest."""

    run: Path
    logs: Path

    def domain(self, domid: int) -> DomainPaths:
        run, logs = self.run, self.logs
        return DomainPaths(
            pid=run / f"{domid}.pid",
            qmp=run / f"{domid}.qmp",
            serial=run / f"{domid}.serial",
            console=run / f"{domid}.console",
            vnc=run / f"{domid}.vnc",
            events=logs / f"{domid}.events",
            output=logs / f"{domid}.output",
        )

    def domid_of(self, pid_file: str) -> int | None:
        """The domain whose pid file this is, if it is one of this host."""
        path = Path(pid_file)
        match = _PID_FILE.fullmatch(path.name)
        return int(match.group(1)) if match is not None and path.parent == self.run else None

    def files(self) -> Iterator[tuple[int, Path]]:
        """Everything that domains of former processes have left, with their domid."""
        for folder in (self.run, self.logs):
            for path in folder.iterdir() if folder.is_dir() else ():
                if path.stem.isdigit():
                    yield int(path.stem), path
