"""A file system that is small enough to be filled (root)."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

FILLER = "filler"


@contextmanager
def mounted(folder: Path, megabytes: int) -> Iterator[Path]:
    """Mounts it over the folder, which is made; nothing of it is left."""
    folder.mkdir(parents=True, exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "xapi-test", str(folder)], check=True)
    try:
        yield folder
    finally:
        if folder.is_mount():  # a pool that is stopped unmounts what is inside it
            subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill(folder: Path) -> None:
    """Leaves no byte."""
    with (folder / FILLER).open("wb", buffering=0) as file:
        try:
            while True:
                file.write(b"\0" * 65536)
        except OSError:
            return


def make_room(folder: Path) -> None:
    os.unlink(folder / FILLER)
