"""Finding drivers: executables `<Name>SR` in a folder, looked at again and again: users add and remove them."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable, Coroutine, Iterable
from pathlib import Path

from services.storage.plugins.interface import Unimplemented
from services.storage.registry import Registry
from services.storage.smapiv1.driver_info import Unusable, driver_info
from services.storage.smapiv1.host import DriverHost, Program
from services.storage.smapiv1.plugin import DriverPlugin
from shared.errors import ApiError

log = logging.getLogger("storage.smapiv1")

SUFFIX = "SR"
PARALLEL = 4
"""Drivers that are asked at a time what they are."""
START_WITHIN = 10.0
"""Seconds after which the service starts, with drivers that have not answered yet."""
SESSIONS_RETRY = 10.0
"""Seconds."""
Version = tuple[int, int, int]
"""Tells a file from what was there before: its inode, time of change and mode."""


def candidates(folder: Path, allowed: Iterable[str]) -> dict[str, Version]:
    """Files whose names end as those of drivers do, by the names of the drivers. `allowed`: these only; `*` is all."""
    wanted = set(allowed)
    found: dict[str, Version] = {}
    try:
        entries = list(os.scandir(folder))
    except FileNotFoundError:
        return {}
    for entry in entries:
        name = entry.name.removesuffix(SUFFIX)
        if not entry.name.endswith(SUFFIX) or not name or ("*" not in wanted and name not in wanted):
            continue
        try:
            status = Path(entry.path).stat()
        except OSError as error:
            log.error("driver %s is rejected: %s", name, error.strerror)
            continue
        found[name] = (status.st_ino, status.st_mtime_ns, status.st_mode)
    return found


class Discovery:
    """`hosts`: of this process, by uuid; drivers say what they are on the first of them.

    `patience`: seconds that a driver has for that: nothing but this is asked of all of them at once.
    """

    def __init__(
        self,
        folder: Path,
        allowed: Iterable[str],
        hosts: dict[str, DriverHost],
        registry: Registry,
        patience: float = 60.0,
    ) -> None:
        self._folder = folder
        self._allowed = tuple(allowed)
        self._hosts = hosts
        self._registry = registry
        self._patience = patience
        self._seen: dict[str, Version] = {}
        self._types: dict[str, str] = {}

    async def look(self) -> None:
        """What is new or changed is asked what it is; what has gone is removed. A broken driver stops no other."""
        found = await asyncio.to_thread(candidates, self._folder, self._allowed)
        for name in self._seen.keys() - found.keys():
            self._remove(name)
        fresh = [name for name, version in sorted(found.items()) if self._seen.get(name) != version]
        self._seen = found
        turns = asyncio.Semaphore(PARALLEL)
        await asyncio.gather(*(self._ask(name, turns) for name in fresh))

    async def watch(self, interval: float, looked: asyncio.Event) -> None:
        """`looked` is set after the first time."""
        while True:
            try:
                await self.look()
            except OSError as error:
                log.error("the folder of drivers %s cannot be read: %s", self._folder, error)
            looked.set()
            await asyncio.sleep(interval)

    async def _ask(self, name: str, turns: asyncio.Semaphore) -> None:
        async with turns:
            path = self._folder / f"{name}{SUFFIX}"
            try:
                plugin = await self._plugin(name, path)
            except TimeoutError:
                log.error("driver %s is rejected: it has not said within %g s what it is", name, self._patience)
                self._remove(name)
                return
            except (ApiError, Unusable, Unimplemented, OSError) as error:
                log.error("driver %s is rejected: %s", name, error)
                self._remove(name)
                return
        kind = plugin.query().type
        if self._types.get(name, kind) != kind or kind in {t for n, t in self._types.items() if n != name}:
            log.error("driver %s is rejected: another one is of the type %s, too", name, kind)
        elif self._registry.add(plugin):
            self._types[name] = kind
            log.info("driver %s: SR type %s", path, kind)
        else:
            log.error("driver %s is rejected: the type %s comes with the service", name, kind)

    async def _plugin(self, name: str, path: Path) -> DriverPlugin:
        if not os.access(path, os.X_OK):
            raise Unusable("it is not executable")
        program = Program(type=name.lower(), path=str(path))
        host = next(iter(self._hosts.values()))
        async with asyncio.timeout(self._patience):
            said = await host.describe_driver(program)
        info = driver_info(name, str(path), said)
        return DriverPlugin(program, info, self._hosts)

    def _remove(self, name: str) -> None:
        kind = self._types.pop(name, None)
        if kind is not None:
            self._registry.remove(kind)
            log.info("driver %s is gone", name)


class Drivers:
    """All that a process has of drivers: found at the start, watched, and closed."""

    def __init__(self, discovery: Discovery, hosts: dict[str, DriverHost], interval: float) -> None:
        self._discovery = discovery
        self._hosts = hosts
        self._interval = interval

    async def start(self, spawn: Callable[[Coroutine[None, None, None], str], object]) -> None:
        """Returns when all drivers are known, or enough time has gone by."""
        looked = asyncio.Event()
        spawn(self._discovery.watch(self._interval, looked), "look for drivers of SMAPIv1")
        spawn(self._end_former_sessions(), "end sessions of a former process")
        try:
            async with asyncio.timeout(START_WITHIN):
                await looked.wait()
        except TimeoutError:
            log.warning("drivers of SMAPIv1 take long to say what they are: some come later")

    async def _end_former_sessions(self) -> None:
        """As often as it takes: the API may start later."""
        for host in self._hosts.values():
            while True:
                try:
                    await host.xapi.end_former()
                    break
                except ApiError as error:
                    log.info("sessions of a former process are not ended yet: %s", error)
                await asyncio.sleep(SESSIONS_RETRY)

    async def close(self) -> None:
        for host in self._hosts.values():
            await host.close()
