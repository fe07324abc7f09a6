"""What a host remembers of its directory in a file only root can read: the secrets of the configuration, which are
never in the database, and which boot of the machine has seen the directory.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

import msgspec

BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")


class Kept(msgspec.Struct, frozen=True):
    """`secrets`: keys of the configuration of that type and service."""

    auth_type: str = ""
    service_name: str = ""
    secrets: dict[str, str] = {}
    boot: str = ""


class KeptFile:
    """Blocking; the file is small."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def read(self) -> Kept:
        """Raises OSError, ValueError for a file that cannot be used."""
        try:
            return msgspec.json.decode(self._path.read_bytes(), type=Kept)
        except FileNotFoundError:
            return Kept()
        except msgspec.MsgspecError as error:
            raise ValueError(f"{self._path} is damaged: {error}") from error

    def write(self, kept: Kept) -> None:
        """At every moment the file is the old one or the new one."""
        self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        new = self._path.with_suffix(".new")
        descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(msgspec.json.encode(kept))
            file.flush()
            os.fsync(file.fileno())
        new.replace(self._path)

    def keep_secrets(self, auth_type: str, service_name: str, secrets: dict[str, str]) -> None:
        self.write(Kept(auth_type, service_name, secrets, self.read().boot))

    def secrets(self, auth_type: str, service_name: str) -> dict[str, str]:
        kept = self.read()
        return kept.secrets if (kept.auth_type, kept.service_name) == (auth_type, service_name) else {}

    def forget_secrets(self) -> None:
        kept = self.read()
        if kept.secrets:
            self.write(Kept(boot=kept.boot))

    def is_new_boot(self) -> bool:
        """Whether the machine has started since `note_boot`."""
        return self.read().boot != _boot()

    def note_boot(self) -> None:
        kept, boot = self.read(), _boot()
        if kept.boot != boot:
            self.write(msgspec.structs.replace(kept, boot=boot))


def _boot() -> str:
    return BOOT_ID.read_text().strip()
