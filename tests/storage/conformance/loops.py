"""Block devices for tests: files behind loop devices."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

_SYSFS = Path("/sys/block")


@dataclass
class Loop:
    path: str
    file: Path

    def vanish(self) -> None:
        """Every read and write beyond the first block fails from now on, as with a disk that was pulled out."""
        self.file.write_bytes(b"")
        subprocess.run(["losetup", "--set-capacity", self.path], check=True)


@contextmanager
def loop_device(file: Path, size: int) -> Iterator[Loop]:
    """Bytes."""
    with file.open("wb") as image:
        image.truncate(size)
    path = _losetup("--find", "--show", str(file))
    try:
        yield Loop(path, file)
    finally:
        if (_SYSFS / Path(path).name / "ro").read_text().strip() == "1":
            subprocess.run(["blockdev", "--setrw", path], check=True)  # the kernel keeps this for whoever is next
        _losetup("--detach", path)
        file.unlink()


def attached_below(folder: Path) -> list[str]:
    """Loop devices whose files are in the folder."""
    files = (device.read_text().rstrip("\n") for device in _SYSFS.glob("loop*/loop/backing_file"))
    return [file for file in files if file.startswith(str(folder))]


def _losetup(*arguments: str) -> str:
    done = subprocess.run(["losetup", *arguments], capture_output=True, text=True, check=True)
    return done.stdout.strip()
