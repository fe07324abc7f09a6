"""Messages about which host is the coordinator."""

from __future__ import annotations

import asyncio
import logging
import socket
from typing import Final

from services.api import clock
from services.api.call import Call
from services.api.decisions.liveness import require_live
from services.api.decisions.rows import existing, the_pool
from services.api.on_hosts import on_host
from services.api.operation import Lock, operation
from shared.bus.contract import Empty
from shared.contracts.coordinator import HOLD_DATABASE, RESET, TAKE_OVER, Coordinator, Held
from shared.contracts.db import Update
from shared.errors import ApiError
from shared.host_role import member_of

log = logging.getLogger("api.coordinator")

SYNC: Final = "pool.sync_database"


@operation("pool.is_slave")
def is_slave(call: Call, host: str) -> bool:
    """Of the host that is asked."""
    return not call.api.is_coordinator


# ---- in good order


@operation("pool.designate_new_master", Lock("pool", "designate_new_master", argument=None))
async def designate_new_master(call: Call, host: str) -> None:
    """All hosts hold the database and agree, then the other one takes over. This process goes on until the call has
    ended. Raises HOST_OFFLINE, HA_IS_ENABLED, HA_ABORT_NEW_MASTER, OPERATION_NOT_ALLOWED.
    """
    existing(call.store, "host", host)
    pool = call.api.pool()
    if host == pool["master"]:
        return
    require_live(call.store, host)
    _require_no_ha(call)
    ref = next(iter(call.store.rows("pool")))
    await call.transact([Update(cls="pool", ref=ref, fields={"last_update_sync": clock.EPOCH})])
    await sync_database(call)
    call.api.role.hold(call.task)
    await on_host(call, host, TAKE_OVER, Empty())


def _require_no_ha(call: Call) -> None:
    """As far as this host knows, which may have lost the database."""
    pool = the_pool(call.store)
    if pool is not None and pool["ha_enabled"]:
        raise ApiError("HA_IS_ENABLED")


# ---- in an emergency


@operation("pool.emergency_transition_to_master")
async def emergency_transition_to_master(call: Call) -> None:
    _require_no_ha(call)
    call.api.role.hold(call.task)
    await call.api.succession.seize()


@operation("pool.emergency_reset_master")
async def emergency_reset_master(call: Call, master_address: str) -> None:
    """By name or address. While this host reaches the database, that says who is coordinator all the same.
    Raises INVALID_VALUE for a name that nobody knows the address of.
    """
    _require_no_ha(call)
    call.api.role.hold(call.task)
    await call.api.role.become(member_of(await _address(master_address)))


async def _address(name: str) -> str:
    try:
        found = await asyncio.get_running_loop().getaddrinfo(name, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        raise ApiError("INVALID_VALUE", "master_address", name) from None
    return str(found[0][4][0])


@operation("pool.recover_slaves")
async def recover_slaves(call: Call) -> list[str]:
    """Tells all members who is coordinator, whether they are thought to live or not; answers who has heard it."""
    store = call.store
    here = Coordinator(address=str(existing(store, "host", call.api.host_ref)["address"]))

    async def told(host: str) -> bool:
        try:
            await call.api.bus.call(RESET, here, host=call.api.uuid_of("host", host))
        except ApiError as error:
            log.warning("host %s does not hear who is coordinator: %s", host, error)
            return False
        return True

    others = [host for host in store.rows("host") if host != call.api.host_ref]
    async with asyncio.TaskGroup() as group:
        asked = {host: group.create_task(told(host)) for host in others}
    return [host for host, answer in asked.items() if answer.result()]


# ---- votes


@operation("host.propose_new_master")
def propose_new_master(call: Call, address: str, manual: bool) -> None:
    call.api.succession.ballot.propose(address)


@operation("host.commit_new_master")
async def commit_new_master(call: Call, address: str) -> None:
    call.api.role.hold(call.task)
    await call.api.succession.commit(address)


@operation("host.abort_new_master")
def abort_new_master(call: Call, address: str) -> None:
    """Whatever the host had agreed to."""
    call.api.succession.ballot.abort()


# ---- copies of the database


@operation("pool.sync_database")
async def sync_database(call: Call) -> None:
    """Every host that keeps the database has what is committed by now. Raises HOST_OFFLINE for a host that is away."""
    async with call.api.turns.of(SYNC):
        generation = await call.api.database.transact([])
        for host in call.store.rows("host"):
            require_live(call.store, host)
        held = Held(generation=generation)
        try:
            async with asyncio.TaskGroup() as group:
                for host in call.store.rows("host"):
                    group.create_task(on_host(call, host, HOLD_DATABASE, held))
        except ExceptionGroup as failed:
            raise failed.exceptions[0] from None


@operation("host.request_backup")
async def request_backup(call: Call, host: str, generation: int, force: bool) -> None:
    """Standbys follow every commit, so that a hint is not needed; `force` waits until what is committed is there."""
    require_live(call.store, host)
    if force:
        committed = await call.api.database.transact([])
        await on_host(call, host, HOLD_DATABASE, Held(generation=min(max(generation, 0), committed)))
