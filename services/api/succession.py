"""How the pool gets another coordinator, as far as one host's API process takes part in it.

`pool.master` decides, and the promotion of a database process is what changes it: the first commit of its term says
that its host is coordinator now. Everything else follows from that row: each host writes its role file, the old and
the new coordinator start anew (`role.py`). Votes are asked for before, so that two hosts do not try at once; a host
that did not hear what came of its vote sees it in the rows.
"""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from collections.abc import Iterable
from typing import Final

from services.api.api import Api
from services.api.ballot import Ballot
from services.api.decisions.host_role import due
from services.api.decisions.rows import the_pool
from shared import alerts
from shared.bus.contract import Empty, Method, Request
from shared.contracts.alerts import Alert
from shared.contracts.coordinator import (
    ABORT,
    COMMIT,
    HOLD_DATABASE,
    PROPOSE,
    RESET,
    TAKE_OVER,
    Coordinator,
    Held,
    Proposal,
)
from shared.contracts.db import DB_ROLE, PROMOTE, DbRole, Delta, Promote
from shared.errors import ApiError, internal_error
from shared.host_role import COORDINATOR, member_of
from shared.service import Service, wait_for
from shared.store import NULL, Touched

log = logging.getLogger("api.succession")

ALERT_NAME: Final = "POOL_MASTER_TRANSITION"
ALERT_PRIORITY: Final = 4

RETRY: Final = 2.0
"""Seconds until a role that could not be written down is tried again."""

DATABASE_PATIENCE: Final = 10.0
"""Seconds that the database's process of this host gets to answer: it may be starting."""

HOLD_PATIENCE: Final = 50.0
HOLD_EVERY: Final = 0.02
"""Seconds that a standby gets to catch up, and between two looks how far it is."""


class Succession:
    """`ballot`: this host's vote."""

    def __init__(self, service: Service, api: Api) -> None:
        self._service = service
        self._api = api
        self._uuids = [host.uuid for host in service.hosts]
        self._look = asyncio.Event()
        self.ballot = Ballot()

    async def serve(self) -> None:
        async def propose(request: Proposal) -> Empty:
            self.ballot.propose(request.address)
            return Empty()

        async def commit(request: Coordinator) -> Empty:
            await self.commit(request.address)
            return Empty()

        async def abort(_: Empty) -> Empty:
            self.ballot.abort()
            return Empty()

        async def reset(request: Coordinator) -> Empty:
            await self._api.role.become(member_of(request.address))
            return Empty()

        async def take_over(_: Empty) -> Empty:
            await self.take_over()
            return Empty()

        async def hold(request: Held) -> Empty:
            await self.hold(request.generation)
            return Empty()

        for host in self._uuids:
            await self._service.serve(PROPOSE, propose, host=host)
            await self._service.serve(COMMIT, commit, host=host)
            await self._service.serve(ABORT, abort, host=host)
            await self._service.serve(RESET, reset, host=host)
            await self._service.serve(TAKE_OVER, take_over, host=host)
            await self._service.serve(HOLD_DATABASE, hold, host=host)

    # ---- following the rows

    async def confirm(self) -> None:
        """For a coordinator that starts: returns if it still is. Else the process ends, to start as a member."""
        while (wanted := due(self._api.store, self._uuids, self._api.role.now)) is not None:
            log.warning("another host has become coordinator while this one was away")
            try:
                await self._api.role.become(wanted)
            except ApiError as error:
                log.error("%s", error)
                await asyncio.sleep(RETRY)
            else:
                await asyncio.Event().wait()

    async def follow(self) -> None:
        """Keeps the role what the rows say, until cancelled."""
        self._api.replica.watch(self._on_commit)
        await self._api.replica.wait_ready()
        while True:
            self._look.clear()
            role = self._api.role
            wanted = due(self._api.store, self._uuids, role.now)
            # Who was told to be no coordinator any more is not taught otherwise by the rows of his own database.
            if wanted is not None and not (wanted.is_coordinator and role.started.is_coordinator):
                try:
                    await role.become(wanted)
                except ApiError as error:
                    log.error("%s", error)
                    await asyncio.sleep(RETRY)
                    continue
            await self._look.wait()

    async def follow_file(self) -> None:
        await self._api.role.follow_file()

    def _on_commit(self, touched: list[Touched], delta: Delta | None) -> None:
        if delta is None or any(item.cls in ("pool", "host") for item in touched):
            self._look.set()

    # ---- votes

    async def commit(self, address: str) -> None:
        """What the vote was given for. Raises HA_ABORT_NEW_MASTER, INTERNAL_ERROR."""
        self.ballot.commit(address)
        if address in [host.address for host in self._service.hosts]:
            await self.seize()
        else:
            await self._api.role.become(member_of(address))

    async def _ask(self, peers: Iterable[str], address: str) -> None:
        """Raises what the first one says that does not agree; then the others have their votes back."""
        agreed: list[str] = []
        try:
            for host in peers:
                await self._api.bus.call(PROPOSE, Proposal(address=address), host=host)
                agreed.append(host)
            self.ballot.propose(address)
        except BaseException:
            await self._tell(agreed, ABORT, Empty())
            raise

    async def _tell(self, peers: Iterable[str], method: Method[Request, Empty], what: Request) -> None:
        """Whoever does not hear it finds out by the rows."""

        async def one(host: str) -> None:
            try:
                await self._api.bus.call(method, what, host=host)
            except ApiError as error:
                log.warning("host %s: %s: %s", host, method.name, error)

        async with asyncio.TaskGroup() as group:
            for host in peers:
                group.create_task(one(host))

    # ---- becoming coordinator

    async def take_over(self) -> None:
        """From a coordinator that hands over. When it fails before that, everything is as it was.

        Raises HA_ABORT_NEW_MASTER, HOST_OFFLINE, OPERATION_NOT_ALLOWED, INTERNAL_ERROR.
        """
        api = self._api
        if api.is_coordinator:
            return
        self._require_database()
        own = self._service.hosts[0]
        peers = self._peers()
        await self._ask(peers, own.address)
        try:
            promoted = await api.bus.call(PROMOTE, Promote(planned=True), host=own.uuid)
        except BaseException:
            self.ballot.abort()
            await self._tell(peers, ABORT, Empty())
            raise
        log.warning("this host is coordinator now, in term %d from generation %d", promoted.term, promoted.generation)
        await self._tell(peers, COMMIT, Coordinator(address=own.address))
        self.ballot.commit(own.address)
        await api.role.become(COORDINATOR)

    async def seize(self) -> None:
        """From a coordinator that is lost: nobody is asked, and its late writes are refused. Once more does no harm.

        Raises OPERATION_NOT_ALLOWED, INTERNAL_ERROR.
        """
        self._require_database()
        if (await self._database()).role != "primary" or not self._is_master():
            host = self._service.hosts[0].uuid
            promoted = await self._api.bus.call(PROMOTE, Promote(planned=False), host=host)
            log.warning(
                "this host is coordinator now, in term %d from generation %d, with the rows of host %s",
                promoted.term,
                promoted.generation,
                promoted.source,
            )
        await self._api.role.become(COORDINATOR)

    def _is_master(self) -> bool:
        pool = the_pool(self._api.store)
        return pool is not None and pool["master"] == self._api.host_ref

    def _require_database(self) -> None:
        if not self._api.options.keeps_database:
            raise ApiError("OPERATION_NOT_ALLOWED", "This host keeps no database, so it cannot be coordinator.")

    def _peers(self) -> list[str]:
        """Uuids of the other hosts, the coordinator's first."""
        store = self._api.store
        master = self._api.pool()["master"]
        hosts = sorted(store.rows("host"), key=lambda ref: ref != master)
        return [uuid for ref in hosts if (uuid := str(store.get("host", ref, "uuid"))) not in self._uuids]

    # ---- the database beside this process

    async def _database(self) -> DbRole:
        """Raises INTERNAL_ERROR while it does not answer."""
        host = self._service.hosts[0].uuid
        try:
            async with asyncio.timeout(DATABASE_PATIENCE):
                return await wait_for(
                    "the database of this host", lambda: self._api.bus.call(DB_ROLE, Empty(), host=host)
                )
        except TimeoutError:
            raise internal_error("the database's process of this host does not answer") from None

    async def hold(self, generation: int) -> None:
        """Returns when this host has it durably; one that keeps nothing, has nothing to wait for.

        Raises INTERNAL_ERROR.
        """
        if not self._api.options.keeps_database:
            return
        deadline = time.monotonic() + HOLD_PATIENCE
        while True:
            found = await self._database()
            if found.role == "idle" or (found.role in ("primary", "standby") and found.durable >= generation):
                return
            if time.monotonic() > deadline:
                behind = f"is at generation {found.durable}, not {generation}"
                raise internal_error(f"the database of host {found.host} ({found.role}) {behind}")
            await asyncio.sleep(HOLD_EVERY)

    # ---- having become coordinator

    @property
    def predecessor(self) -> str:
        """The coordinator (reference) from which this host has just taken over; null if that is an old story."""
        address = self._api.role.predecessor
        hosts = self._api.store.rows("host")
        return next((ref for ref, row in hosts.items() if address and row["address"] == address), NULL)

    async def announce(self) -> None:
        """Tells people once that this host has taken over."""
        if self._api.role.predecessor is None:
            return
        host = self._service.hosts[0].uuid
        alert = Alert(
            id=str(uuid.uuid5(uuid.UUID(host), f"coordinator in term {self._api.store.term}")),
            name=ALERT_NAME,
            priority=ALERT_PRIORITY,
            cls="Host",
            obj_uuid=host,
            body="",
            time=time.time(),
        )
        await alerts.publish(self._api.bus, alert)
        self._api.role.settled()
