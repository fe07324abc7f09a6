"""What the hosts of this process are in the pool now, and how that changes while it runs."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final

from shared import host_role
from shared.errors import internal_error
from shared.host_role import COORDINATOR, RESTART, HostRole, member_of
from shared.service import Service

log = logging.getLogger("api.role")

PATIENCE: Final = 10.0
"""Seconds that the calls which change the role get to their ends, before the process does."""

PREDECESSOR: Final = "became-coordinator"
"""File in the service's folder: the address of the coordinator before. There from the moment this host takes over
until it has told people so.
"""


class Role:
    """`started`: as what the process works until its end; `now`: what it will be when it is started anew. A process of
    a coordinator that is one no longer is a member at once: it takes no more calls.
    """

    def __init__(self, service: Service, started: HostRole, path: Path | None) -> None:
        self.started = self.now = started
        self._service = service
        self._path = path
        self._filed = started
        self._turn = asyncio.Lock()
        self._held: set[str] = set()
        self._free = asyncio.Event()
        self._free.set()
        self._leaving = False
        self._on_leave: list[Callable[[], None]] = []

    @property
    def is_coordinator(self) -> bool:
        return self.started.is_coordinator and self.now.is_coordinator

    @property
    def coordinator(self) -> str:
        """Address, "" when this host is it, or nothing is known."""
        return self.now.coordinator

    @property
    def predecessor(self) -> str | None:
        """The coordinator's address before this host took over, "" for nobody knows; None when that is an old story."""
        try:
            return (self._service.state_dir / PREDECESSOR).read_text().strip()
        except FileNotFoundError:
            return None

    def settled(self) -> None:
        """People know that this host has taken over."""
        (self._service.state_dir / PREDECESSOR).unlink(missing_ok=True)

    def hold(self, task: str) -> None:
        """The process does not end in this role before that call has `ended`."""
        self._held.add(task)
        self._free.clear()

    def ended(self, task: str) -> None:
        """Nothing happens if it was not held."""
        self._held.discard(task)
        if not self._held:
            self._free.set()

    def on_leave(self, callback: Callable[[], None]) -> None:
        """Called when it is decided that the process will not go on as what it was started as."""
        self._on_leave.append(callback)

    async def become(self, role: HostRole) -> None:
        """A process that works as something else ends, to start anew, as soon as the calls held have ended.

        Raises INTERNAL_ERROR when the file cannot be written: then to be tried again.
        """
        async with self._turn:
            before, self.now = self._filed, role
            if role != before:
                log.warning("this host was %s, it is %s from now on", before, role)
                try:
                    await asyncio.to_thread(self._write, before, role)
                except OSError as error:
                    raise internal_error(f"the role of this host cannot be written down: {error}") from error
                self._filed = role
            self._leave()

    def _write(self, before: HostRole, role: HostRole) -> None:
        if role == COORDINATOR and before != COORDINATOR:
            (self._service.state_dir / PREDECESSOR).write_text(before.coordinator)
        if self._path is not None:
            host_role.write(self._path, role)

    async def follow_file(self) -> None:
        """Somebody else may write it, too."""
        if self._path is None:
            return
        async for role in host_role.changes(self._path, self._filed):
            if role != self._filed:
                log.warning("%s says that this host is %s", self._path, role)
                self.now = self._filed = role
                self._leave()

    def _leave(self) -> None:
        if self.now.is_coordinator is not self.started.is_coordinator and not self._leaving:
            self._leaving = True
            for callback in self._on_leave:
                callback()
            self._service.spawn(self._end(), "end in this role")

    async def _end(self) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(PATIENCE):
                await self._free.wait()
        self._service.exit(RESTART)


def started(role_file: Path | None, role: str, coordinator: str) -> HostRole:
    """As which a process starts: what the file says, or without one the options `role` and `coordinator`."""
    if role_file is not None:
        return host_role.read(role_file)
    return COORDINATOR if role == "coordinator" else member_of(coordinator)
