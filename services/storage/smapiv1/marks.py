"""What drivers have attached and activated on a host, as long as it is there: drivers must not be asked twice.

Repeating `vdi_activate` is refused by drivers, and `sr_attach` forgets who uses the disks, so the marks are kept where
they vanish together with what they stand for (`View.state`), and outlive the service.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from typing import TYPE_CHECKING, Final

import msgspec

from services.storage.boot import boot_identity
from shared.bus.contract import Record

if TYPE_CHECKING:
    from pathlib import Path

    from services.storage.smapiv1.view import View

_BOOT: Final = "boot"


class Activation(Record, frozen=True):
    """`sr`: uuid. `done` false: the driver was asked, and nobody knows what came of it."""

    sr: str
    location: str
    dp: str
    writable: bool
    done: bool


class Marks:
    """Files of a few bytes on a file system in memory: written in place, so the event loop does not wait."""

    def __init__(self, view: View) -> None:
        self._view = view
        self._srs: set[str] = set()
        self._disks: dict[tuple[str, str], Activation] = {}

    def load(self) -> None:
        """Marks of an earlier boot stand for nothing."""
        folder, boot = self._view.state, boot_identity()
        if folder.is_dir() and _read(folder / _BOOT) != boot:
            shutil.rmtree(folder)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / _BOOT).write_text(boot)
        for path in folder.iterdir():
            kind, _, name = path.name.partition(" ")
            if kind == "sr":
                self._srs.add(name)
            elif kind == "vdi":
                activation = msgspec.json.decode(path.read_bytes(), type=Activation)
                self._disks[activation.sr, activation.location] = activation

    @property
    def nothing_attached(self) -> bool:
        return not self._srs

    def is_attached(self, sr: str) -> bool:
        return sr in self._srs

    def attached(self, sr: str) -> None:
        self._write(f"sr {sr}", "")
        self._srs.add(sr)

    def detached(self, sr: str) -> None:
        """With all its disks."""
        for disk in [disk for disk in self._disks if disk[0] == sr]:
            self.deactivated(*disk)
        self._srs.discard(sr)
        (self._view.state / f"sr {sr}").unlink(missing_ok=True)

    def activation(self, sr: str, location: str) -> Activation | None:
        return self._disks.get((sr, location))

    def activations(self, sr: str) -> dict[str, Activation]:
        """By location."""
        return {location: each for (where, location), each in self._disks.items() if where == sr}

    def activated(self, activation: Activation) -> None:
        sr, location = activation.sr, activation.location
        self._write(_name(sr, location), msgspec.json.encode(activation).decode())
        self._disks[sr, location] = activation

    def deactivated(self, sr: str, location: str) -> None:
        self._disks.pop((sr, location), None)
        (self._view.state / _name(sr, location)).unlink(missing_ok=True)

    def _write(self, name: str, text: str) -> None:
        new = self._view.state / "new"
        new.write_text(text)
        os.replace(new, self._view.state / name)


def _name(sr: str, location: str) -> str:
    """Locations may be longer than names of files."""
    return f"vdi {hashlib.sha256(f'{sr}/{location}'.encode()).hexdigest()}"


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
