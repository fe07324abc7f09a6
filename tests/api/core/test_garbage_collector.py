"""Garbage goes while the pool works, and nothing waits for it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest
import pytest_asyncio

from services.api import garbage_collector, sweep
from shared.contracts.db import Change, Create, Delete, Precondition, Update
from tests.api.harness import Client, Pool

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def pool(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Pool]:
    folder: Path = tmp_path_factory.mktemp("pool")
    made = await Pool.start(folder, hosts=1)
    yield made
    await made.stop()


@pytest_asyncio.fixture(loop_scope="module")
async def client(pool: Pool) -> Client:
    return await pool.login()


def vm(number: int) -> Create:
    return Create(cls="VM", ref=f"OpaqueRef:vm{number}", fields={"name_label": "v"})


def vif(vm_: str, network: str, number: int) -> Create:
    fields = {"VM": vm_, "network": network, "device": str(number), "MAC": ""}
    return Create(cls="VIF", ref=f"OpaqueRef:vif{number}", fields=fields)


async def test_a_pool_that_works_has_no_garbage(pool: Pool, client: Client) -> None:
    await pool.vm(client)
    assert await garbage_collector.collect(pool.api) == 0


async def test_the_sweep_collects_it_and_who_listens_hears_of_it(pool: Pool, client: Client) -> None:
    network = pool.ref("network", "network")
    await pool.write(vm(1), vif("OpaqueRef:vm1", network, 1))
    token = (await client.call("event.from", ["VIF"], "", 1.0))["token"]
    await pool.write(Delete(cls="VM", ref="OpaqueRef:vm1"))
    sweeping = asyncio.create_task(sweep.run(pool.api, every=0.01))
    try:
        await pool.until(lambda: pool.row("VIF", "OpaqueRef:vif1") is None)
    finally:
        sweeping.cancel()
    events = (await client.call("event.from", ["VIF"], token, 5.0))["events"]
    assert [(event["operation"], event["ref"]) for event in events] == [("del", "OpaqueRef:vif1")]


async def test_much_garbage_goes_in_transactions_of_bounded_size(pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    network = pool.ref("network", "network")
    changes: list[Change] = [vm(2), *(vif("OpaqueRef:vm2", network, number) for number in range(10, 35))]
    await pool.write(*changes)
    await pool.write(Delete(cls="VM", ref="OpaqueRef:vm2"))
    monkeypatch.setattr(garbage_collector, "BATCH", 10)
    before = pool.store.generation
    assert await garbage_collector.collect(pool.api) == 25
    assert pool.store.generation == before + 3


async def test_a_row_that_is_needed_again_before_it_goes_stays(pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody writes between the collector's decision and its transaction."""
    network = pool.ref("network", "network")
    await pool.write(vm(3), vm(4), vif("OpaqueRef:vm3", network, 3), vif("OpaqueRef:vm3", network, 4))
    await pool.write(Delete(cls="VM", ref="OpaqueRef:vm3"))
    database = pool.api.database
    transact, first = database.transact, [True]

    async def overtaken(changes: Sequence[Change], given: Sequence[Precondition] = ()) -> int:
        if first:
            first.clear()
            await transact([Update(cls="VIF", ref="OpaqueRef:vif3", fields={"VM": "OpaqueRef:vm4"})])
        return await transact(changes, given)

    monkeypatch.setattr(database, "transact", overtaken)
    assert await garbage_collector.collect(pool.api) == 1
    assert pool.row("VIF", "OpaqueRef:vif3") is not None
    assert pool.row("VIF", "OpaqueRef:vif4") is None


async def test_a_look_at_many_rows_lets_others_go_on(pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(garbage_collector, "SLICE", 2)
    turns = 0

    async def others() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    beside = asyncio.create_task(others())
    rows = len(pool.store.rows("VM")) + len(pool.store.rows("VIF"))
    await garbage_collector.collect(pool.api)
    beside.cancel()
    assert turns > rows // 4
