"""Messages by which another host becomes coordinator, with databases that say what the test wants beside the hosts."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import msgspec
import pytest

from services.api import service, succession
from services.api.role import PREDECESSOR
from shared import host_role
from shared.bus.contract import Empty
from shared.bus.endpoint import Endpoint
from shared.bus.interface import Bus
from shared.contracts.alerts import ALERT, Alert
from shared.contracts.db import DB_ROLE, PROMOTE, TRANSACT, DbRole, Promote, Promoted, Transact, Update
from shared.errors import ApiError, internal_error
from shared.host_role import BROKEN, COORDINATOR, RESTART, HostRole, member_of
from tests.api.harness import PATIENCE, Client, Pool, error_of

FIRST, SECOND = "127.0.0.11", "127.0.0.12"
UNKNOWN = member_of("")


class HostDatabase:
    """The database's process of one host, as far as API processes ask it. It promotes by changing `pool.master`."""

    def __init__(self, pool: Pool, host: int, role: str) -> None:
        self._pool = pool
        self._host = host
        self.says = DbRole(host=pool.hosts[host].uuid, role=role, term=1, generation=0, durable=1 << 60)
        self.promotions: list[Promote] = []
        self.refuses: ApiError | None = None

    async def serve(self) -> Endpoint:
        bus = await self._pool.broker.connect("db")
        self._bus: Bus = bus
        await bus.serve(DB_ROLE, self._role, host=self.says.host)
        await bus.serve(PROMOTE, self._promote, host=self.says.host)
        await bus.start_consuming("db", host=self.says.host)
        return bus

    async def _role(self, _: Empty) -> DbRole:
        return self.says

    async def _promote(self, request: Promote) -> Promoted:
        self.promotions.append(request)
        if self.refuses is not None:
            raise self.refuses
        store = self._pool.core_of(self._host).api.store
        pool, host = next(iter(store.rows("pool"))), store.ref_of_uuid("host", self.says.host)
        change = Update(cls="pool", ref=pool, fields={"master": host})
        committed = await self._bus.call(TRANSACT, Transact(changes=[change]))
        self.says = msgspec.structs.replace(self.says, role="primary")
        return Promoted(term=committed.term, generation=committed.generation, source=self.says.host)


Databases = list[HostDatabase]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host_role, "LOOK_EVERY", 0.02)


@pytest.fixture
async def pool(tmp_path: Path) -> AsyncIterator[Pool]:
    running = await Pool.start(tmp_path, keeps_database=True)
    await running.start_api(1)
    yield running
    await running.stop()


@pytest.fixture
async def databases(pool: Pool) -> AsyncIterator[Databases]:
    made = [HostDatabase(pool, 0, "primary"), HostDatabase(pool, 1, "standby")]
    buses = [await one.serve() for one in made]
    yield made
    for bus in buses:
        await bus.close()


@pytest.fixture
async def client(pool: Pool, databases: Databases) -> Client:
    return await pool.login()


@pytest.fixture
async def member(pool: Pool, databases: Databases) -> Client:
    """Whom the member lets in without asking anybody."""
    root = pool.client(1, trusted=True)
    root.session = await root.raw("session.slave_local_login_with_password", "root", "")
    return root


def role(pool: Pool, host: int) -> HostRole:
    """What that host's file says."""
    return host_role.read(pool.role_file(host))


async def becomes(pool: Pool, host: int, wanted: HostRole) -> None:
    """Waits until the host's file says so."""
    async with asyncio.timeout(PATIENCE), aclosing(host_role.changes(pool.role_file(host), UNKNOWN)) as found:
        async for one in found:
            if one == wanted:
                return


async def ends(pool: Pool, host: int) -> int:
    """The status that the host's API process ends with."""
    async with asyncio.timeout(PATIENCE):
        await pool.service_of(host).stopping.wait()
    return pool.service_of(host).status


# ---- in good order


async def test_another_host_takes_over_and_both_start_anew(pool: Pool, client: Client, databases: Databases) -> None:
    task = await client.call("Async.pool.designate_new_master", pool.host_ref(1))
    assert await ends(pool, 1) == RESTART
    assert await ends(pool, 0) == RESTART
    assert pool.row("task", task)["status"] == "success"
    assert databases[1].promotions == [Promote(planned=True)]
    assert (role(pool, 0), role(pool, 1)) == (member_of(SECOND), COORDINATOR)
    [row] = pool.store.rows("pool").values()
    assert (row["master"], row["current_operations"]) == (pool.host_ref(1), {})
    refused = await error_of(pool.client().raw("session.login_with_password", "root", "any"))
    assert refused == ["HOST_IS_SLAVE", SECOND]


async def test_clients_that_wait_for_events_are_sent_to_the_new_coordinator(pool: Pool, client: Client) -> None:
    await client.call("event.register", ["vm"])
    token = (await client.call("event.from", ["vm"], "", 0.0))["token"]
    waiting = [
        asyncio.create_task(error_of(client.call("event.from", ["vm"], token, 60.0))),
        asyncio.create_task(error_of(client.call("event.next"))),
    ]
    await client.call("pool.designate_new_master", pool.host_ref(1))
    async with asyncio.timeout(PATIENCE):
        assert [await one for one in waiting] == [["HOST_IS_SLAVE", SECOND]] * 2


async def test_the_coordinator_itself_need_not_take_over(pool: Pool, client: Client, databases: Databases) -> None:
    await client.call("pool.designate_new_master", pool.host_ref(0))
    assert databases[0].promotions == []
    assert role(pool, 0) == COORDINATOR


async def test_hosts_that_cannot_take_over_are_refused(pool: Pool, client: Client, databases: Databases) -> None:
    unknown = "OpaqueRef:unknown"
    assert await client.refusal("pool.designate_new_master", unknown) == ["HANDLE_INVALID", "host", unknown]
    [ref] = pool.store.rows("pool")
    await pool.write(Update(cls="pool", ref=ref, fields={"ha_enabled": True}))
    assert await client.refusal("pool.designate_new_master", pool.host_ref(1)) == ["HA_IS_ENABLED"]
    metrics = pool.row("host", pool.host_ref(1))["metrics"]
    await pool.write(Update(cls="host_metrics", ref=metrics, fields={"live": False}))
    expected = ["HOST_OFFLINE", pool.host_ref(1)]
    assert await client.refusal("pool.designate_new_master", pool.host_ref(1)) == expected
    assert databases[1].promotions == []


async def test_one_change_of_coordinator_at_a_time(pool: Pool, client: Client, databases: Databases) -> None:
    databases[1].says = msgspec.structs.replace(databases[1].says, durable=0)  # so that the first one waits
    first = client.begin("pool.designate_new_master", pool.host_ref(1))
    [ref] = pool.store.rows("pool")
    await pool.until(lambda: pool.row("pool", ref)["current_operations"])
    assert list(pool.row("pool", ref)["current_operations"].values()) == ["designate_new_master"]
    refused = await client.refusal("pool.designate_new_master", pool.host_ref(0))
    assert refused == ["DESIGNATE_NEW_MASTER_IN_PROGRESS"]
    databases[1].says = msgspec.structs.replace(databases[1].says, durable=1 << 60)
    await first


async def test_a_host_that_has_agreed_to_another_one_stops_it_and_the_old_coordinator_goes_on(
    pool: Pool, client: Client, databases: Databases
) -> None:
    pool.core_of(1).api.succession.ballot.propose("10.0.0.9")
    refused = await client.refusal("pool.designate_new_master", pool.host_ref(1))
    assert refused[0] == "HA_ABORT_NEW_MASTER"
    assert databases[1].promotions == []
    pool.core_of(0).api.succession.ballot.propose("10.0.0.8")  # its vote is free again
    assert role(pool, 0) == COORDINATOR
    assert await client.call("pool.get_all")


async def test_a_database_that_does_not_take_over_leaves_the_old_coordinator_at_work(
    pool: Pool, client: Client, databases: Databases
) -> None:
    databases[1].refuses = internal_error("the primary does not hand over")
    refused = await client.refusal("pool.designate_new_master", pool.host_ref(1))
    assert refused == ["INTERNAL_ERROR", "the primary does not hand over"]
    assert (role(pool, 0), role(pool, 1)) == (COORDINATOR, member_of(FIRST))
    assert await client.call("VM.clone", pool.ref("VM", "Tiny guest"), "afterwards")
    databases[1].refuses = None
    await client.call("pool.designate_new_master", pool.host_ref(1))
    assert role(pool, 1) == COORDINATOR


# ---- in an emergency


async def test_a_member_takes_over_from_a_coordinator_that_is_lost(
    pool: Pool, member: Client, databases: Databases
) -> None:
    await member.call("pool.emergency_transition_to_master")
    assert databases[1].promotions == [Promote(planned=False)]
    assert role(pool, 1) == COORDINATOR
    assert await ends(pool, 1) == RESTART


async def test_taking_over_twice_is_the_same_as_once(pool: Pool, member: Client, databases: Databases) -> None:
    for _ in range(2):
        await member.call("pool.emergency_transition_to_master")
    assert len(databases[1].promotions) == 1


async def test_the_coordinator_takes_over_from_nobody(pool: Pool, client: Client, databases: Databases) -> None:
    await client.call("pool.emergency_transition_to_master")
    assert databases[0].promotions == []
    assert role(pool, 0) == COORDINATOR
    assert not pool.stopped


async def test_under_ha_nobody_takes_over_by_hand(pool: Pool, member: Client, databases: Databases) -> None:
    [ref] = pool.store.rows("pool")
    await pool.write(Update(cls="pool", ref=ref, fields={"ha_enabled": True}))
    await pool.core_of(1).api.replica.wait_generation(pool.store.generation)
    assert await member.refusal("pool.emergency_transition_to_master") == ["HA_IS_ENABLED"]
    assert await member.refusal("pool.emergency_reset_master", FIRST) == ["HA_IS_ENABLED"]


async def test_a_host_without_a_database_takes_over_nothing(pool: Pool, databases: Databases) -> None:
    api = pool.core_of(1).api
    api.options = msgspec.structs.replace(api.options, keeps_database=False)
    client = await pool.login()
    assert (await client.refusal("pool.designate_new_master", pool.host_ref(1)))[0] == "OPERATION_NOT_ALLOWED"
    assert role(pool, 0) == COORDINATOR


# ---- the old coordinator


async def test_a_coordinator_that_was_away_while_it_was_replaced_becomes_a_member(pool: Pool, member: Client) -> None:
    await pool.kill_api(0)
    await member.call("pool.emergency_transition_to_master")
    starting = asyncio.create_task(pool.start_api(0))
    await becomes(pool, 0, member_of(SECOND))
    starting.cancel()
    await asyncio.gather(starting, return_exceptions=True)
    await pool.start_api(0)
    refused = await error_of(pool.client().raw("session.login_with_password", "root", "any"))
    assert refused == ["HOST_IS_SLAVE", SECOND]


async def test_members_name_the_new_coordinator_at_once_and_need_not_start_anew(pool: Pool) -> None:
    master = pool.row("host", pool.host_ref(0))
    await pool.write(Update(cls="host", ref=pool.host_ref(0), fields={"address": "127.0.0.99"}))
    assert master["address"] == FIRST
    await pool.core_of(1).api.replica.wait_generation(pool.store.generation)
    refused = await error_of(pool.client(1).raw("session.login_with_password", "root", "any"))
    assert refused == ["HOST_IS_SLAVE", "127.0.0.99"]
    await becomes(pool, 1, member_of("127.0.0.99"))
    assert not pool.service_of(1).stopping.is_set()


async def test_a_broken_host_says_so_until_the_rows_say_what_it_is(
    pool: Pool, databases: Databases, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service, "PATIENCE", 0.05)
    await pool.kill_api(1)
    await pool.kill_db()
    host_role.write(pool.role_file(1), BROKEN)
    await pool.start_api(1)
    assert await error_of(pool.client(1).raw("VM.get_all", "x")) == ["HOST_BROKEN"]
    await pool.start_db()
    await becomes(pool, 1, member_of(FIRST))
    assert await error_of(pool.client(1).raw("VM.get_all", "x")) == ["SESSION_INVALID", "x"]


# ---- the new coordinator


async def test_the_new_coordinator_ends_the_calls_of_the_old_one(pool: Pool, client: Client, member: Client) -> None:
    mine = await client.call("task.create", "a client's own", "")
    fields = {"name_label": "Async.VM.start", "status": "pending", "resident_on": pool.host_ref(0)}
    await pool.write(Update(cls="task", ref=mine, fields=fields))
    await pool.kill_api(0)
    await member.call("pool.emergency_transition_to_master")
    marker = pool.service_of(1).state_dir / PREDECESSOR
    assert marker.read_text() == FIRST
    await pool.kill_api(1)
    new = await pool.start_api(1)
    row: Any = new.api.store.row("task", mine)
    assert (row["status"], row["error_info"][0]) == ("failure", "INTERNAL_ERROR")
    assert not marker.exists()


async def test_only_who_takes_over_raises_the_alert(pool: Pool, member: Client) -> None:
    heard: asyncio.Queue[Alert] = asyncio.Queue()
    listener = await pool.broker.connect("listener")
    await listener.subscribe(ALERT, lambda alert, _: heard.put_nowait(alert))
    await member.call("pool.emergency_transition_to_master")
    for _ in range(2):
        await pool.kill_api(1)
        await pool.start_api(1)
    async with asyncio.timeout(PATIENCE):
        alert = await heard.get()
    assert (alert.name, alert.priority, alert.cls, alert.body) == ("POOL_MASTER_TRANSITION", 4, "Host", "")
    assert alert.obj_uuid == pool.hosts[1].uuid
    assert heard.empty()
    await listener.close()


# ---- being told


async def test_a_member_is_told_where_the_coordinator_is(pool: Pool, member: Client) -> None:
    await member.call("pool.emergency_reset_master", "127.0.0.77")
    assert role(pool, 1) == member_of("127.0.0.77")
    refused = await member.refusal("pool.emergency_reset_master", "no.such.host.invalid")
    assert refused == ["INVALID_VALUE", "master_address", "no.such.host.invalid"]


async def test_a_coordinator_that_is_told_to_follow_another_one_does_not_argue(pool: Pool, client: Client) -> None:
    await client.call("pool.emergency_reset_master", SECOND)
    assert await ends(pool, 0) == RESTART
    assert role(pool, 0) == member_of(SECOND)


async def test_members_that_can_be_reached_are_told_who_is_coordinator(pool: Pool, client: Client) -> None:
    await pool.core_of(1).api.role.become(member_of("127.0.0.77"))
    assert await client.call("pool.recover_slaves") == [pool.host_ref(1)]
    assert role(pool, 1) == member_of(FIRST)
    await pool.kill_api(1)
    assert await client.call("pool.recover_slaves") == []


async def test_votes_are_asked_for_by_hosts_and_kept_by_each(pool: Pool, member: Client) -> None:
    outsider = await pool.login()
    refused = await outsider.refusal("host.propose_new_master", "10.0.0.9", True)
    assert refused[0] == "INTERNAL_ERROR"
    assert "non-pool" in refused[1]
    other = pool.client(1)
    other.session = await other.raw("session.slave_local_login", pool.secret)
    await other.call("host.propose_new_master", "127.0.0.77", True)
    assert (await other.refusal("host.propose_new_master", "127.0.0.78", True))[0] == "HA_ABORT_NEW_MASTER"
    assert (await other.refusal("host.commit_new_master", "127.0.0.78"))[0] == "HA_ABORT_NEW_MASTER"
    await other.call("host.commit_new_master", "127.0.0.77")
    assert role(pool, 1) == member_of("127.0.0.77")
    await other.call("host.abort_new_master", "127.0.0.77")


async def test_a_host_that_commits_to_itself_takes_over(pool: Pool, member: Client, databases: Databases) -> None:
    other = pool.client(1)
    other.session = await other.raw("session.slave_local_login", pool.secret)
    await other.call("host.propose_new_master", SECOND, False)
    await other.call("host.commit_new_master", SECOND)
    assert databases[1].promotions == [Promote(planned=False)]
    assert role(pool, 1) == COORDINATOR


# ---- copies of the database


async def test_the_database_is_synchronized_when_every_standby_holds_it(
    pool: Pool, client: Client, databases: Databases
) -> None:
    databases[1].says = msgspec.structs.replace(databases[1].says, durable=0)
    sync = client.begin("pool.sync_database")
    await asyncio.sleep(3 * succession.HOLD_EVERY)
    assert not sync.done()
    databases[1].says = msgspec.structs.replace(databases[1].says, durable=pool.store.generation)
    await sync


async def test_a_standby_that_does_not_catch_up_is_an_error(
    pool: Pool, client: Client, databases: Databases, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(succession, "HOLD_PATIENCE", 0.1)
    databases[1].says = msgspec.structs.replace(databases[1].says, durable=0, role="fenced")
    refused = await client.refusal("pool.sync_database")
    assert refused[0] == "INTERNAL_ERROR"
    assert f"host {pool.hosts[1].uuid} (fenced) is at generation 0" in refused[1]


async def test_a_host_that_is_away_cannot_hold_the_database(pool: Pool, client: Client) -> None:
    metrics = pool.row("host", pool.host_ref(1))["metrics"]
    await pool.write(Update(cls="host_metrics", ref=metrics, fields={"live": False}))
    assert await client.refusal("pool.sync_database") == ["HOST_OFFLINE", pool.host_ref(1)]


async def test_hosts_that_keep_no_database_are_not_waited_for(pool: Pool, client: Client, databases: Databases) -> None:
    databases[1].says = msgspec.structs.replace(databases[1].says, durable=0, role="idle")
    await client.call("pool.sync_database")


async def test_a_host_fetches_a_backup_when_it_is_made_to(pool: Pool, client: Client, databases: Databases) -> None:
    host = pool.host_ref(1)
    refused = await client.refusal("host.request_backup", host, 1, True)
    assert refused[0] == "INTERNAL_ERROR"  # not for clients
    own = pool.client()
    own.session = await own.raw("session.slave_login", pool.host_ref(0), pool.secret)
    databases[1].says = msgspec.structs.replace(databases[1].says, durable=1)
    await own.call("host.request_backup", host, 1 << 40, False)
    await own.call("host.request_backup", host, 1, True)
    unknown = await own.refusal("host.request_backup", "OpaqueRef:x", 1, False)
    assert unknown == ["HOST_OFFLINE", "OpaqueRef:x"]
