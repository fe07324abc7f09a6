"""The datapaths of one host: opening and closing disks so that a crash at any point can be repaired.

Before the plug-in is asked to do anything, where a datapath is going (`target`) is durable; afterwards, where it is
(`state`). (Plug-ins that leave nothing to repair only get the second.) After a restart, a datapath whose two differ is
brought to its target. The caller of an open may have been answered and a VM may be using the disk, so an interrupted
open is completed, and only undone if that fails; an interrupted close is completed in any case. What cannot be closed
is leaked: it stays listed, and is tried again whenever its disk is used.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import msgspec

from services.storage import automaton
from services.storage.automaton import IllegalStep, IllegalTransition, InUse, State, Step
from services.storage.journal import Journal
from services.storage.locks import Locks
from services.storage.plugins.errors import in_use, is_of_medium
from services.storage.plugins.interface import ActivatedOnAnotherHost, Domain, Implementation
from services.storage.repositories import Repositories
from services.storage.settle import settle
from services.storage.sharing import can_be_shared, goes_direct
from shared.bus.contract import Record
from shared.contracts.motion import PREFIX as MOTION
from shared.contracts.storage import STATIC_DATAPATHS, Backend, Datapath, DiskOpen, HandOver
from shared.errors import ApiError, internal_error

log = logging.getLogger("storage.datapath")

COPY = "copy/"
"""Prefix of the datapaths of copies inside an SR."""
TASK = "task/"
"""Prefix of those of exports, imports and copies between disks."""
NBD = "nbd/"
"""Prefix of those of NBD clients."""
OWN = (COPY, TASK, NBD, MOTION)
"""Datapaths whose users are this process and its children, so they do not outlive it."""

Checkpoint = Callable[[str], None]
"""Called at every point between two durable or visible effects, with its name. For tests that end the process there."""

_Failures = (ApiError, IllegalStep, IllegalTransition, InUse)


class Entry(Record, frozen=True):
    """One datapath. `uri`, `backend`: of the disk, once it was attached. `known_as`: the name that the plug-in was
    told, where the datapath has another by now. `shared`: several may write to the disk; `direct`: past the page cache.
    """

    sr: str
    location: str
    writable: bool
    state: State
    target: State
    uri: str = ""
    backend: Implementation | None = None
    known_as: str = ""
    shared: bool = False
    direct: bool = False

    @property
    def disk(self) -> tuple[str, str]:
        return (self.sr, self.location)

    @property
    def leaked(self) -> bool:
        return self.target is State.DETACHED


class Datapaths:
    def __init__(
        self,
        repositories: Repositories,
        locks: Locks,
        journal: Journal,
        checkpoint: Checkpoint = lambda _: None,
    ) -> None:
        self._repositories = repositories
        self._locks = locks
        self._journal = journal
        self.checkpoint = checkpoint
        self._prefix = f"dp/{repositories.host}/"
        self._entries: dict[str, Entry] = {}
        self._leaks: dict[str, str] = {}
        """Why what is leaked cannot be closed, as the log says already."""
        self._on: dict[tuple[str, str], dict[str, None]] = {}
        for key, value in journal.data.items():
            if key.startswith(self._prefix):
                self._set(key.removeprefix(self._prefix), msgspec.convert(value, Entry))

    # -- what others ask ---------------------------------------------------------------------------------------------

    def held(self) -> list[Datapath]:
        """Everything that is attached or activated, leaked ones too."""
        return [
            Datapath(
                dp=dp,
                sr=entry.sr,
                location=entry.location,
                state="activated" if entry.state.activated else "attached",
                writable=entry.writable,
                leaked=entry.leaked,
            )
            for dp, entry in self._entries.items()
            if entry.state.attached
        ]

    def users(self, sr: str, location: str | None = None) -> list[str]:
        """The datapaths that hold something in an SR, or of one disk."""
        return [
            dp
            for dp, entry in self._entries.items()
            if entry.sr == sr and (location is None or entry.location == location)
        ]

    def working(self, sr: str) -> list[str]:
        """Those of `users` that are not being closed, nor leaked."""
        return [dp for dp in self.users(sr) if not self._entries[dp].leaked]

    def writers(self, sr: str, location: str) -> list[str]:
        return [dp for dp in self.users(sr, location) if self._entries[dp].writable]

    async def open(self, disks: Sequence[DiskOpen]) -> list[Backend]:
        """All or none; a datapath that has its disk open already keeps it. Cancelled: none.

        Raises SR_NOT_ATTACHED, VDI_IN_USE, VDI_READONLY, VDI_MISSING, SR_BACKEND_FAILURE_*.
        """
        fresh: list[str] = []
        try:
            return await settle(self._open(disks, fresh))
        except BaseException:
            if fresh:  # opened, but the caller is gone
                await settle(self.close(fresh))
            raise

    async def hand_over(self, request: HandOver) -> None:
        """What uses `dp` goes on with the disk that `other` has open; the disk that it had is closed. Asked again, only
        what is left of that is done.

        The two change names in one write, and no plug-in takes part: the disks are in use.
        """
        await settle(self._hand_over(request))

    async def close(self, dps: Iterable[str]) -> None:
        """Closes all that can be closed, then raises the first failure, if any. That a medium is gone or takes no
        writes is none: whoever used the disk has ended, and what is leaked is tried again until the medium is back.
        """
        await settle(self._close(list(dps)))

    async def close_leaked(self) -> None:
        """Tries again whatever nobody is working on."""
        for disk in sorted({entry.disk for entry in self._entries.values() if entry.leaked}):
            if disk[0] in self._repositories.attached() and self._locks.free(*disk):
                async with self._locks.disks({disk}):
                    await self._retry_leaked(disk)

    async def let_go(self, sr: str) -> list[Exception]:
        """Tries again all that is leaked in an SR, and says why not; what is left of it waits for the SR to come back.
        The caller holds the SR exclusively.
        """
        disks = {entry.disk for entry in self._entries.values() if entry.leaked and entry.sr == sr}
        return [failure for disk in sorted(disks) for failure in await self._retry_leaked(disk)]

    # -- after a restart ---------------------------------------------------------------------------------------------

    def _leaving_traces(self, dps: Iterable[str]) -> list[str]:
        """Those whose plug-in has to be repaired after a crash."""
        return [dp for dp in dps if not self._repositories.traceless(self._entries[dp].sr)]

    async def abandon(self, dps: Sequence[str], also: dict[str, Any] | None = None) -> None:
        """Says durably that these datapaths have no user any more. `also`: journal entries to write with that."""
        self._aim_away(dps)
        await self._journal.write({**self._changes(dps), **(also or {})})

    async def rebooted(self, also: dict[str, Any]) -> None:
        """Nothing is open any more; static datapaths are opened again when their SR is attached. `also`: as above."""
        static = [dp for dp, each in self._entries.items() if dp.startswith(STATIC_DATAPATHS) and not each.leaked]
        for dp in static:
            self._set(dp, _closed(self._entries[dp]))
        await self.abandon([dp for dp in self._entries if dp not in static], {**self._changes(static), **also})

    def own(self) -> list[str]:
        return [dp for dp in self._entries if dp.startswith(OWN)]

    async def recover(self, sr: str) -> None:
        """Makes the SR's idea of what this host has open that of the journal. The caller holds the SR exclusively."""
        mine = self.users(sr)
        for disk in sorted({self._entries[dp].disk for dp in mine}):
            await self._assert(disk)
        for dp in sorted(mine, key=lambda dp: self._entries[dp].writable):
            if self._entries[dp].leaked:
                await self._try_close(dp)
        for dp in sorted(mine, key=lambda dp: not self._entries[dp].writable):
            if dp in self._entries and not self._entries[dp].state.attached:
                await self._resume(dp)
        await self._adopt(sr)
        await self._record({*mine, *self.users(sr)})

    async def _assert(self, disk: tuple[str, str]) -> None:
        """Repeats what brought a disk to where it is: harmless when nothing was lost."""
        resting = [dp for dp in self._on.get(disk, {}) if self._entries[dp].state is self._entries[dp].target]
        try:
            now = automaton.superstate(self._entries[dp].state for dp in resting)
            for step in automaton.transition(State.DETACHED, now, shared=self._is_shared(disk)):
                await self._step(step, resting[0])
        except _Failures as error:
            log.critical(
                "disk %s of SR %s is open here for %s, but cannot be any more: %s", disk[1], disk[0], resting, error
            )

    async def _resume(self, dp: str) -> None:
        try:
            await self._advance(dp)
            log.info("completed the interrupted opening of %s", dp)
        except _Failures as error:
            log.warning("the interrupted opening of %s cannot be completed and is undone: %s", dp, error)
            static = dp.startswith(STATIC_DATAPATHS)  # those are tried again when the SR is attached the next time
            await self._undo([dp], {dp: self._entries[dp]} if static else {})

    async def _adopt(self, sr: str) -> None:
        """What the SR says this host holds, and the host does not remember, is listed until somebody closes it."""
        plugin, handle = self._repositories.find(sr)
        for held in await plugin.datapath.held(handle):
            if any(self._entries[dp].state.activated for dp in self._on.get((sr, held.key), {})):
                continue
            own = held.dp.startswith(OWN)
            if own or held.dp in self._entries:  # its user is gone, or uses another disk and so not this one
                await plugin.datapath.deactivate(held.uri, Domain(host=self._repositories.host, dp=held.dp))
                continue
            log.warning("SR %s: disk %s is held for %s, which nobody here remembers", sr, held.key, held.dp)
            state = automaton.activated(held.writable)
            self._set(
                held.dp,
                Entry(sr=sr, location=held.key, writable=held.writable, state=state, target=state, uri=held.uri),
            )

    # -- opening and closing -----------------------------------------------------------------------------------------

    async def _open(self, disks: Sequence[DiskOpen], fresh: list[str]) -> list[Backend]:
        keys = {(disk.sr, disk.location) for disk in disks}
        async with self._locks.disks(keys):
            for sr, _ in sorted(keys):
                self._repositories.find(sr)
            for key in sorted(keys):
                for failure in await self._retry_leaked(key):
                    if is_of_medium(failure):
                        raise failure
            opening = self._plan(disks)
            if opening:
                waiting = {dp: self._entries[dp] for dp in opening if dp in self._entries}
                await self._begin(opening)
                try:
                    for dp in opening:
                        await self._advance(dp)
                    await self._confirm(opening)
                except BaseException as error:
                    await self._undo(opening, waiting)
                    raise _translated(error) from error
                self.checkpoint("open: done")
            fresh.extend(opening)
            return [await self._answer(disk.dp) for disk in disks]

    def _plan(self, disks: Sequence[DiskOpen]) -> dict[str, Entry]:
        """The datapaths that have to be opened, writers first (a reader cannot be joined by one)."""
        opening: dict[str, Entry] = {}
        for disk in sorted(disks, key=lambda disk: not disk.writable):
            known = self._entries.get(disk.dp) or opening.get(disk.dp)
            if known is not None and (known.state.attached or known.leaked or disk.dp in opening):
                same = (known.sr, known.location, known.writable) == (disk.sr, disk.location, disk.writable)
                if not same or known.leaked:
                    raise internal_error(
                        f"datapath {disk.dp} has disk {known.location} of SR {known.sr} open"
                        f" ({known.state}, to be {known.target}); close it first"
                    )
                continue
            target = automaton.activated(disk.writable)
            states = {dp: self._entries[dp].state for dp in self._on.get((disk.sr, disk.location), {})}
            states |= {dp: entry.target for dp, entry in opening.items() if entry.disk == (disk.sr, disk.location)}
            shared = self._is_shared((disk.sr, disk.location))
            try:
                for operation in automaton.route(State.DETACHED, target):
                    states, _ = automaton.apply(states, disk.dp, operation, shared=shared)
            except (InUse, IllegalTransition) as error:
                log.info("%s cannot open disk %s: %s", disk.dp, disk.location, error)
                raise in_use(disk.location, "attach") from error
            opening[disk.dp] = Entry(
                sr=disk.sr, location=disk.location, writable=disk.writable, state=State.DETACHED, target=target
            )
        return opening

    async def _begin(self, opening: dict[str, Entry]) -> None:
        for dp, entry in opening.items():
            self._set(dp, entry)
        self.checkpoint("open: before intent")
        traces = self._leaving_traces(opening)
        try:
            await self._journal.write(self._changes(traces))
        except OSError as error:
            for dp in opening:
                self._drop(dp)
            raise internal_error(f"cannot record what is being opened: {error}") from error
        self.checkpoint("open: after intent")

    async def _confirm(self, opening: dict[str, Entry]) -> None:
        """Records what is open now. Where the intent is durable, a restart comes to the same without this."""
        traces = self._leaving_traces(opening)
        if traces:
            await self._journal.note(self._changes(traces))
        await self._journal.write(self._changes(dp for dp in opening if dp not in traces), sync=False)

    async def _hand_over(self, request: HandOver) -> None:
        dp, other, wanted = request.dp, request.other, (request.sr, request.location)
        had = self._entries.get(dp)
        async with self._locks.disks({wanted} if had is None else {wanted, had.disk}):
            before = {name: self._entries[name] for name in (dp, other) if name in self._entries}
            if dp not in before or before[dp].disk != wanted:
                taken = before.get(other)
                if taken is None or taken.disk != wanted or taken.leaked:
                    raise internal_error(f"{other} does not have disk {request.location} of SR {request.sr} open")
                self.checkpoint("hand over: before intent")
                self._exchange(dp, other)
                try:
                    await self._journal.write(self._changes((dp, other)))
                except OSError as error:
                    self._exchange(dp, other)
                    raise internal_error(f"cannot record what is handed over: {error}") from error
                self.checkpoint("hand over: after intent")
        await self._close([other])
        self.checkpoint("hand over: done")

    def _exchange(self, one: str, another: str) -> None:
        """Two names for what both of them have; the plug-ins go on with those that they know."""
        before = {name: self._entries[name] for name in (one, another) if name in self._entries}
        for name in before:
            self._drop(name)
        for name, entry in before.items():
            now = another if name == one else one
            known = entry.known_as or name
            self._set(now, msgspec.structs.replace(entry, known_as="" if known == now else known))

    async def _close(self, dps: list[str]) -> None:
        keys = {self._entries[dp].disk for dp in dps if dp in self._entries}
        async with self._locks.disks(keys):
            mine = [dp for dp in dict.fromkeys(dps) if dp in self._entries and self._entries[dp].disk in keys]
            if not mine:
                return
            self.checkpoint("close: before intent")
            before = {dp: self._entries[dp] for dp in mine}
            self._aim_away(mine)
            try:
                await self._journal.write(self._changes(self._leaving_traces(mine)))
            except OSError as error:
                for dp, entry in before.items():
                    self._set(dp, entry)
                raise internal_error(f"cannot record what is being closed: {error}") from error
            self.checkpoint("close: after intent")
            failures: list[BaseException] = []
            for dp in sorted(mine, key=lambda dp: self._entries[dp].writable):
                try:
                    await self._advance(dp)
                except _Failures as error:
                    log.error("%s is leaked: %s", dp, error)
                    self._leaks[dp] = str(error)
                    if not is_of_medium(error):
                        failures.append(error)
            await self._record(mine)
            self.checkpoint("close: done")
        if failures:
            raise _translated(failures[0]) from failures[0]

    async def _advance(self, dp: str) -> None:
        """Brings a datapath to its target, one operation after the other."""
        while (entry := self._entries[dp]).state is not entry.target:
            operation = automaton.route(entry.state, entry.target)[0]
            states = {name: self._entries[name].state for name in self._on[entry.disk]}
            after, steps = automaton.apply(states, dp, operation, shared=self._is_shared(entry.disk))
            if entry.target.attached and not entry.backend:
                self._borrow(dp)
            reached = after.get(dp, State.DETACHED)
            try:
                for step in steps:
                    await self._step(step, dp)
            except BaseException:
                if entry.target.attached:
                    # it may have happened before it failed: the way back starts from there
                    self._set(dp, msgspec.structs.replace(self._entries[dp], state=reached))
                raise
            self._set(dp, msgspec.structs.replace(self._entries[dp], state=reached))

    def _borrow(self, dp: str) -> None:
        """A disk that another datapath has attached is where that one found it."""
        entry = self._entries[dp]
        for other in self._on[entry.disk]:
            if self._entries[other].backend is not None:
                known = self._entries[other]
                self._set(
                    dp,
                    msgspec.structs.replace(
                        entry, uri=known.uri, backend=known.backend, shared=known.shared, direct=known.direct
                    ),
                )
                return

    async def _step(self, step: Step, dp: str) -> None:
        """Raises ApiError."""
        try:
            await self._ask(step, dp)
        except ActivatedOnAnotherHost as error:
            log.info("%s cannot have its disk: %s", dp, error)
            raise in_use(self._entries[dp].location, "attach") from error
        self.checkpoint(f"after {step}")

    async def _ask(self, step: Step, dp: str) -> None:
        entry = self._entries[dp]
        plugin, handle = self._repositories.find(entry.sr)
        writable = any(self._entries[other].writable for other in self._on[entry.disk])
        domain = Domain(host=self._repositories.host, dp=entry.known_as or dp, writable=writable)
        match step:
            case Step.ATTACH:
                volume = await plugin.volume.stat(handle, entry.location)
                if entry.writable and not volume.read_write:
                    raise ApiError("VDI_READONLY", entry.location)
                uri = next(iter(volume.uri), "")
                self._set(dp, msgspec.structs.replace(entry, uri=uri))
                backend = await plugin.datapath.attach(uri, domain)
                shared = volume.sharable and can_be_shared(backend)
                direct = shared and await goes_direct(backend)
                self._set(dp, msgspec.structs.replace(self._entries[dp], backend=backend, shared=shared, direct=direct))
            case Step.ACTIVATE_RW:
                await plugin.datapath.activate(entry.uri, domain)
            case Step.ACTIVATE_RO:
                await plugin.datapath.activate_readonly(entry.uri, domain)
            case Step.DEACTIVATE if entry.uri:
                await plugin.datapath.deactivate(entry.uri, domain)
            case Step.DETACH if entry.uri:
                await plugin.datapath.detach(entry.uri, domain)

    async def _undo(self, dps: Iterable[str], waiting: Mapping[str, Entry]) -> None:
        """Closes what an open that failed has opened. `waiting`: those that stay wanted nevertheless."""
        undone = sorted(dps, key=lambda dp: self._entries[dp].writable)
        for dp in undone:
            self._set(dp, msgspec.structs.replace(self._entries[dp], target=State.DETACHED))
            await self._try_close(dp)
            if dp in waiting and not self._entries[dp].state.attached:
                self._set(dp, _closed(waiting[dp]))
        await self._record(undone)

    async def _retry_leaked(self, disk: tuple[str, str]) -> list[Exception]:
        """What it failed with."""
        leaked = [dp for dp in self._on.get(disk, {}) if self._entries[dp].leaked]
        failures = [failure for dp in leaked if (failure := await self._try_close(dp))]
        if leaked:
            await self._record(leaked)
        return failures

    async def _try_close(self, dp: str) -> Exception | None:
        try:
            await self._advance(dp)
        except _Failures as error:
            if self._leaks.get(dp) != str(error):
                log.error("%s stays leaked: %s", dp, error)
            self._leaks[dp] = str(error)
            return error
        return None

    def _aim_away(self, dps: Iterable[str]) -> None:
        for dp in dps:
            self._set(dp, msgspec.structs.replace(self._entries[dp], target=State.DETACHED))

    # -- the table ---------------------------------------------------------------------------------------------------

    async def _record(self, dps: Iterable[str]) -> None:
        """Writes where datapaths are now; those that hold nothing any more are dropped."""
        traces = self._leaving_traces(dp for dp in dps if dp in self._entries)
        for dp in dps:
            entry = self._entries.get(dp)
            if entry is not None and entry.leaked and not entry.state.attached:
                self._drop(dp)
        await self._journal.note(self._changes(dps), sync=bool(traces))

    def _changes(self, dps: Iterable[str]) -> dict[str, Any]:
        return {
            self._prefix + dp: msgspec.to_builtins(self._entries[dp]) if dp in self._entries else None for dp in dps
        }

    def _is_shared(self, disk: tuple[str, str]) -> bool:
        """As whoever has attached the disk has found."""
        return any(self._entries[dp].shared for dp in self._on.get(disk, ()))

    def _set(self, dp: str, entry: Entry) -> None:
        self._entries[dp] = entry
        self._on.setdefault(entry.disk, {})[dp] = None

    def _drop(self, dp: str) -> None:
        entry = self._entries.pop(dp)
        self._leaks.pop(dp, None)
        others = self._on[entry.disk]
        del others[dp]
        if not others:
            del self._on[entry.disk]

    async def _answer(self, dp: str) -> Backend:
        entry = self._entries[dp]
        if entry.backend is None:
            raise internal_error(f"datapath {dp} is open without a backend")
        plugin, _ = self._repositories.find(entry.sr)
        domain = Domain(host=self._repositories.host, dp=entry.known_as or dp, writable=entry.writable)
        backend = await plugin.datapath.located(entry.uri, domain, entry.backend)
        return Backend(
            dp=dp,
            kind=backend.kind,
            path=backend.path,
            format=backend.format,
            writable=entry.writable,
            shared=entry.shared,
            direct=entry.direct,
        )


def _closed(entry: Entry) -> Entry:
    """The same, wanted as before, with nothing open."""
    return Entry(
        sr=entry.sr, location=entry.location, writable=entry.writable, state=State.DETACHED, target=entry.target
    )


def _translated(error: BaseException) -> BaseException:
    """What the caller is told."""
    if isinstance(error, OSError):
        return internal_error(f"cannot record what was opened: {error}")
    if isinstance(error, IllegalStep | IllegalTransition | InUse):
        return internal_error(f"storage: {error}")
    return error
