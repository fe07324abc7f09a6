"""Finding the script folders while the service runs: those that come, go and change.

`volume/org.xen.xapi.storage.<type>/` is an SR type, `datapath/<scheme>/` serves URIs of a scheme (often a symbolic link
to another one). The folders are looked at twice a second, in a thread. That is a few stats, and unlike inotify it sees
what lies behind symbolic links and on network storage, folders that are not there yet, and nothing is lost when many
things happen at once. A folder that is being copied is left alone until it has stood still from one look to the next.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import NamedTuple

from services.storage.journal import Journal
from services.storage.plugins.interface import ActivatedOnAnotherHost, Unimplemented
from services.storage.registry import Registry
from services.storage.smapiv3 import bindings
from services.storage.smapiv3.datapaths import Schemes
from services.storage.smapiv3.failures import was_killed
from services.storage.smapiv3.plugin import ScriptPlugin
from services.storage.smapiv3.query import WrongVersion, query
from services.storage.smapiv3.scripts import Scripts
from services.storage.smapiv3.state import State
from shared.errors import ApiError

log = logging.getLogger("storage.smapiv3")

INTERVAL = 0.5
"""Seconds between two looks."""
ASKED_AGAIN = 2
"""How often one that was killed is asked again what it is."""
PREFIX = "org.xen.xapi.storage."
_IGNORED = frozenset({"__pycache__"})

_Broken = (ApiError, Unimplemented, ActivatedOnAnotherHost, WrongVersion, OSError)


class Folder(NamedTuple):
    """`part`: "volume" or "datapath"."""

    part: str
    name: str


Fingerprint = tuple[tuple[str, int, int, int, int], ...]
"""Of each file in a folder: name, time of its last change in ns, size, mode, inode."""


class Differences(NamedTuple):
    changed: list[Folder]
    gone: list[Folder]


def differences(
    known: Mapping[Folder, Fingerprint], before: Mapping[Folder, Fingerprint], now: Mapping[Folder, Fingerprint]
) -> Differences:
    """What to do about what is there. `known`: what was acted upon. `before`: what the last look has found."""
    changed = [folder for folder, found in now.items() if found != known.get(folder) and found == before.get(folder)]
    return Differences(changed, [folder for folder in known if folder not in now])


def look(root: Path) -> dict[Folder, Fingerprint]:
    """The folders that are there, datapaths first. What cannot be read is not there."""
    found: dict[Folder, Fingerprint] = {}
    for part in ("datapath", "volume"):
        for name in _names(root / part):
            try:
                found[Folder(part, name)] = _fingerprint(root / part / name)
            except OSError:
                continue  # a file, or gone while it was looked at
    return found


def _names(folder: Path) -> list[str]:
    try:
        return sorted(name for name in os.listdir(folder) if not name.startswith("."))
    except OSError:
        return []


def _fingerprint(folder: Path) -> Fingerprint:
    """Scripts leave compiled modules behind when they run: those are no change."""
    files = []
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name not in _IGNORED and not entry.name.startswith("."):
                status = entry.stat(follow_symlinks=os.path.exists(entry))
                files.append((entry.name, status.st_mtime_ns, status.st_size, status.st_mode, status.st_ino))
    return tuple(sorted(files))


def discovery(root: Path, folder: Path, registry: Registry) -> Discovery:
    """`folder`: for what has to be remembered, and for the packages that scripts import."""
    folder.mkdir(parents=True, exist_ok=True)
    return Discovery(root, folder / "python", registry, State(Journal(folder / "journal")))


class Discovery:
    """Puts the script plug-ins below `root` into the registry. `bindings`: folder for what their scripts import."""

    def __init__(self, root: Path, bindings: Path, registry: Registry, state: State) -> None:
        self._root, self._bindings, self._registry, self._state = root, bindings, registry, state
        self.schemes = Schemes()
        self._plugins: dict[str, ScriptPlugin] = {}
        """By SR type, also those that are gone: SRs may still be attached."""
        self._known: dict[Folder, Fingerprint] = {}
        self._seen: dict[Folder, Fingerprint] = {}
        self._asking: dict[Folder, asyncio.Task[None]] = {}
        self._written = False
        self._writing = asyncio.Lock()

    async def start(self, boot: str, within: float) -> None:
        """Finds what is there. A plug-in that takes longer (seconds) to say what it is comes later."""
        await self._state.start(boot)
        self._seen = await asyncio.to_thread(look, self._root)
        await self._act(differences({}, self._seen, self._seen))
        await self.answers(within)

    async def watch(self) -> None:
        """For ever."""
        while True:
            await asyncio.sleep(INTERVAL)
            await self.refresh()

    async def refresh(self) -> None:
        """One look."""
        found = await asyncio.to_thread(look, self._root)
        await self._act(differences(self._known, self._seen, found))
        self._seen = found

    async def answers(self, within: float | None = None) -> None:
        """Waits (seconds) until the plug-ins that were found have said what they are."""
        asking = [task for task in self._asking.values() if not task.done()]
        if asking:
            await asyncio.wait(asking, timeout=within)

    async def close(self) -> None:
        asking = list(self._asking.values())
        for task in asking:
            task.cancel()
        await asyncio.gather(*asking, return_exceptions=True)
        await self._state.close()

    async def _act(self, found: Differences) -> None:
        for folder in found.gone:
            del self._known[folder]
            await self._stop_asking(folder)
            self._remove(folder)
        for folder in found.changed:
            self._known[folder] = self._seen[folder]
            await self._stop_asking(folder)
            self._asking[folder] = asyncio.create_task(self._ask(folder), name=f"ask {folder.name} what it is")

    async def _stop_asking(self, folder: Folder) -> None:
        task = self._asking.pop(folder, None)
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _ask(self, folder: Folder) -> None:
        try:
            await self._write_bindings()
            await self._patiently(self._datapath if folder.part == "datapath" else self._volume, folder.name)
        except _Broken as error:
            log.error("SMAPIv3: %s %s cannot be used: %s", *folder, error)
            self._remove(folder)
        except Exception:
            # a fault of ours, for which the other plug-ins must not suffer
            log.exception("SMAPIv3: %s %s cannot be used", *folder)
            self._remove(folder)

    async def _patiently(self, ask: Callable[[str], Awaitable[None]], name: str) -> None:
        """One that is killed is no broken one, and nothing in its folder changes for it to be asked another time."""
        for _ in range(ASKED_AGAIN):
            try:
                return await ask(name)
            except ApiError as error:
                if not was_killed(error):
                    raise
        return await ask(name)

    async def _write_bindings(self) -> None:
        """Before the first script runs."""
        async with self._writing:
            if not self._written:
                await asyncio.to_thread(bindings.write, self._bindings)
                self._written = True

    async def _datapath(self, scheme: str) -> None:
        scripts = Scripts(self._root / "datapath" / scheme, self._bindings)
        self.schemes.register(scheme, scripts, (await query(scripts)).features)
        log.info("SMAPIv3: URIs of scheme %s are served by %s", scheme, scripts.folder)

    async def _volume(self, name: str) -> None:
        kind = name.removeprefix(PREFIX).lower()
        if not name.startswith(PREFIX) or not kind:
            log.error("SMAPIv3: volume %s is no SR type: its name does not begin with %s", name, PREFIX)
            return
        plugin = self._plugins.get(kind)
        if plugin is None:
            scripts = Scripts(self._root / "volume" / name, self._bindings)
            plugin = self._plugins[kind] = ScriptPlugin(kind, scripts, self.schemes, self._state)
        await plugin.ask()
        if self._registry.get(kind) not in (None, plugin) or not self._registry.add(plugin):
            log.error("SMAPIv3: volume %s is not used: another plug-in is the SR type %s", name, kind)
            return
        log.info("SMAPIv3: SR type %s is served by %s", kind, self._root / "volume" / name)

    def _remove(self, folder: Folder) -> None:
        if folder.part == "datapath":
            self.schemes.remove(folder.name)
            return
        kind = folder.name.removeprefix(PREFIX).lower()
        plugin = self._plugins.get(kind)
        if plugin is not None and self._registry.get(kind) is plugin:
            self._registry.remove(kind)
            log.info("SMAPIv3: SR type %s is gone", kind)
