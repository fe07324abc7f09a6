"""Where the sockets of this service are: a folder whose paths are short enough for Unix sockets."""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
import signal
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from services.storage.nbd.credentials import ARGUMENT, escaped
from services.storage.nbd.credentials import SUFFIX as CREDENTIALS
from shared.config import ConfigError

log = logging.getLogger("storage.sockets")

LONGEST: Final = 100
"""Bytes of a socket's path that every program takes."""
_NAME: Final = 24
"""Bytes of the longest name in the folder."""


def socket_folder(state: Path, run_dir: str) -> Path:
    """Made, and nobody else's; what a killed process has left there is removed.

    `run_dir`: as in the service's options. Raises `ConfigError`.
    """
    digest = hashlib.sha256(str(state.absolute()).encode()).hexdigest()[:12]
    run = Path(run_dir) if run_dir else state / "run"
    for folder in (
        run.absolute() / "disks",
        Path("/run") / f"xapi-{digest}-disks",
        Path("/tmp") / f"xapi-{digest}-disks",
    ):
        if len(os.fsencode(folder)) + 1 + _NAME <= LONGEST and _usable(folder):
            _end_servers(folder)
            _sweep(folder.iterdir())
            return folder
    raise ConfigError("no folder for sockets: set run_dir to one that is short and writable")


def _usable(folder: Path) -> bool:
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError:
        return False
    return folder.stat().st_uid == os.geteuid() and os.access(folder, os.W_OK)


def _end_servers(folder: Path) -> None:
    """Servers end with their service, but for one that was just being started: it was not tied to it yet. It would keep
    its image open, and locked, for ever.
    """
    mine = (
        os.fsencode(f"--socket={folder}/"),
        os.fsencode(f"{ARGUMENT}{escaped(folder)}/"),
        os.fsencode(f"addr.path={escaped(folder)}/"),
    )
    for process in Path("/proc").glob("[0-9]*"):
        try:
            arguments = (process / "cmdline").read_bytes().split(b"\0")
            if any(option in argument for argument in arguments for option in mine):
                os.kill(int(process.name), signal.SIGKILL)
                log.warning("ended a server that its service had left: %s", os.fsdecode(b" ".join(arguments)))
        except (FileNotFoundError, ProcessLookupError):
            continue  # it has ended meanwhile


def _sweep(left: Iterable[Path]) -> None:
    for path in left:
        if path.is_socket():
            path.unlink(missing_ok=True)
        elif path.name.endswith(CREDENTIALS):
            shutil.rmtree(path, ignore_errors=True)
