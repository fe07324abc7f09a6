"""The SR types of a host's storage service: those that come with it, and those found in folders, which come and go."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Container, Iterator, Mapping

from services.storage.plugins.interface import Plugin


class Registry(Mapping[str, Plugin]):
    """By SR type. A type that comes with the service is not replaced by one that is found, unless it is among those
    that were `left` to others.

    `on_change` hears of each change after the first `settled`.
    """

    def __init__(
        self,
        bundled: Mapping[str, Plugin],
        on_change: Callable[[], None] = lambda: None,
        left: Container[str] = frozenset(),
    ) -> None:
        self._bundled = {kind: plugin for kind, plugin in bundled.items() if kind not in left}
        self._found: dict[str, Plugin] = {}
        self._on_change = on_change
        self._settled = False
        self._changed_at = asyncio.Event()
        """Set, and replaced, at each change."""

    def __getitem__(self, kind: str) -> Plugin:
        return self._bundled[kind] if kind in self._bundled else self._found[kind]

    def __iter__(self) -> Iterator[str]:
        yield from self._bundled
        yield from self._found

    def __len__(self) -> int:
        return len(self._bundled) + len(self._found)

    def settled(self) -> None:
        """What is there at the start has been found."""
        self._settled = True
        self._tell()

    async def look_out(self, kind: str) -> None:
        """Until there is that type, or all that is there at the start has been found."""
        while not self._settled and kind not in self:
            await self._changed_at.wait()

    async def complete(self) -> None:
        """Until all that is there at the start has been found."""
        while not self._settled:
            await self._changed_at.wait()

    def add(self, plugin: Plugin) -> bool:
        """Also instead of an earlier one of that type. False: the type comes with the service."""
        kind = plugin.query().type
        if kind in self._bundled:
            return False
        self._found[kind] = plugin
        self._changed()
        return True

    def remove(self, kind: str) -> Plugin | None:
        """SRs of that type that are attached can still be detached by who has it."""
        gone = self._found.pop(kind, None)
        if gone is not None:
            self._changed()
        return gone

    def _changed(self) -> None:
        self._tell()
        if self._settled:
            self._on_change()

    def _tell(self) -> None:
        self._changed_at.set()
        self._changed_at = asyncio.Event()
