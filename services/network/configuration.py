"""The last good network configuration: which bridges there should be. Kept over reboots."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec

from shared.bus.contract import Record


class Configuration(Record, frozen=True):
    """`bridges`: name, as in `network.bridge`, to MTU."""

    bridges: dict[str, int] = {}
    version: int = 1


class ConfigurationFile:
    """Its methods block, for less than a disk's sync takes; call them in a thread."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def read(self) -> Configuration:
        """Raises `msgspec.DecodeError`, OSError."""
        try:
            return msgspec.json.decode(self._path.read_bytes(), type=Configuration)
        except FileNotFoundError:
            return Configuration()

    def write(self, configuration: Configuration) -> None:
        """Atomic and durable. Raises OSError."""
        draft = self._path.with_suffix(".new")
        with open(draft, "wb") as file:
            file.write(msgspec.json.format(msgspec.json.encode(configuration)))
            file.flush()
            os.fsync(file.fileno())
        os.replace(draft, self._path)
        folder = os.open(self._path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
