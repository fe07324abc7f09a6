"""What has to be remembered of script plug-ins while the service is restarted: they remember little themselves."""

from __future__ import annotations

from typing import Any, TypeVar

import msgspec

from services.storage.journal import Journal
from shared.bus.contract import Record

_BOOT = "boot"
_OF_THIS_BOOT = ("sr/", "domain/")
_Entry = TypeVar("_Entry", bound=Record)


class AttachedSr(Record, frozen=True):
    """`handle`: what the plug-in calls it since it is attached."""

    handle: str
    configuration: dict[str, str]


class Made(Record, frozen=True):
    """A volume that was made for a request, so that the request finds it when it is repeated.

    `origin`: what was asked for. `pending`: metadata that it does not have yet.
    """

    key: str
    origin: str
    pending: dict[str, str] = {}


class State:
    """Attached SRs and domains end with the boot of the machine; the rest does not."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal

    async def start(self, boot: str) -> None:
        """`boot`: see `services.storage.boot`."""
        gone = []
        if self._journal.data.get(_BOOT) != boot:
            gone = [key for key in self._journal.data if key.startswith(_OF_THIS_BOOT)]
        await self._journal.write({**dict.fromkeys(gone), _BOOT: boot})

    async def close(self) -> None:
        await self._journal.close()

    # -- SRs -------------------------------------------------------------------------------------------------------

    def attached(self, kind: str, host: str, sr: str) -> AttachedSr | None:
        return self._get(f"sr/{kind}/{host}/{sr}", AttachedSr)

    async def attach(self, kind: str, host: str, sr: str, entry: AttachedSr | None) -> None:
        """None: it is not attached any more."""
        await self._put(f"sr/{kind}/{host}/{sr}", entry)

    # -- domains ---------------------------------------------------------------------------------------------------

    async def domain(self, host: str, uri: str, fallback: str) -> str:
        """For whom a URI is attached on a host: from its attach to its detach it is the same name."""
        key = f"domain/{host}/{uri}"
        known: str | None = self._journal.data.get(key)
        if known is None:
            await self._journal.note({key: fallback}, sync=False)
        return known or fallback

    def known_domain(self, host: str, uri: str, fallback: str) -> str:
        return str(self._journal.data.get(f"domain/{host}/{uri}", fallback))

    async def forget_domain(self, host: str, uri: str) -> None:
        await self._remove([f"domain/{host}/{uri}"])

    # -- volumes ---------------------------------------------------------------------------------------------------

    def made(self, sr: str, request: str) -> Made | None:
        return self._get(f"made/{sr}/{request}", Made)

    def unfinished(self, sr: str) -> dict[str, Made]:
        """By request: the volumes that lack metadata."""
        prefix = f"made/{sr}/"
        known = {
            key.removeprefix(prefix): msgspec.convert(value, Made)
            for key, value in self._journal.data.items()
            if key.startswith(prefix)
        }
        return {request: made for request, made in known.items() if made.pending}

    async def make(self, sr: str, request: str, made: Made) -> None:
        await self._put(f"made/{sr}/{request}", made)

    async def unmake(self, sr: str, volume: str) -> None:
        """A volume (key) is gone."""
        prefix = f"made/{sr}/"
        data = self._journal.data
        await self._remove([key for key, value in data.items() if key.startswith(prefix) and value["key"] == volume])

    def temporaries(self, sr: str) -> dict[str, str]:
        """Clones that a run of a VM writes to, and what they are clones of, unless the plug-in knows that already."""
        prefix = f"temporary/{sr}/"
        data = self._journal.data
        return {key.removeprefix(prefix): value for key, value in data.items() if key.startswith(prefix)}

    async def add_temporary(self, sr: str, clone: str, of: str) -> None:
        await self._journal.note({f"temporary/{sr}/{clone}": of})

    async def forget_temporary(self, sr: str, clone: str) -> None:
        await self._remove([f"temporary/{sr}/{clone}"])

    async def forget_sr(self, sr: str) -> None:
        """The SR is no more."""
        prefixes = (f"made/{sr}/", f"temporary/{sr}/")
        await self._remove([key for key in self._journal.data if key.startswith(prefixes)])

    def _get(self, key: str, kind: type[_Entry]) -> _Entry | None:
        value: Any = self._journal.data.get(key)
        return None if value is None else msgspec.convert(value, kind)

    async def _put(self, key: str, entry: Record | None) -> None:
        """Has to outlive the process, not the machine. What has happened cannot fail for want of space for a note."""
        if entry is None:
            await self._remove([key])
        else:
            await self._journal.note({key: msgspec.to_builtins(entry)}, sync=False)

    async def _remove(self, keys: list[str]) -> None:
        await self._journal.note({key: None for key in keys if key in self._journal.data}, sync=False)
