"""Many writers, one row: every decision is made on what is there."""

from __future__ import annotations

import asyncio

from shared.contracts.db import Change, Precondition, Unchanged, Update
from shared.database import Database
from shared.store import Store
from tests.api.core.leftovers import leftovers
from tests.api.harness import Client, Pool


async def test_every_one_of_many_concurrent_decisions_about_a_row_counts(pool: Pool, client: Client) -> None:
    """Each adds one to what it sees; a lost update would show in the sum."""
    vm = await pool.vm(client, order=0)
    database: Database = pool.api.database

    def add_one(store: Store) -> tuple[list[Change], list[Precondition], None]:
        row = store.find("VM", vm)
        assert row is not None
        fields = {"order": row.fields["order"] + 1}
        return [Update(cls="VM", ref=vm, fields=fields)], [Unchanged(cls="VM", ref=vm, generation=row.modified)], None

    await asyncio.gather(*(database.decide(add_one) for _ in range(40)))
    assert pool.row("VM", vm)["order"] == 40


async def test_writes_of_different_fields_of_one_row_all_arrive(pool: Pool, client: Client) -> None:
    vm = await pool.vm(client)
    calls = [client.call("VM.add_to_other_config", vm, f"k{number}", "v") for number in range(50)]
    calls += [client.call("VM.add_tags", vm, f"t{number}") for number in range(50)]
    await asyncio.gather(*calls)
    config = await client.call("VM.get_other_config", vm)
    assert {f"k{number}" for number in range(50)} <= set(config)
    assert len(await client.call("VM.get_tags", vm)) == 50


async def test_operations_of_one_vm_take_turns(pool: Pool, client: Client) -> None:
    vm = await pool.vm(client)
    calls = [client.call("VM.set_VCPUs_max", vm, number % 4 + 1) for number in range(30)]
    calls += [client.call("VM.clone", vm, f"clone{number}") for number in range(10)]
    await asyncio.gather(*calls)
    assert len(pool.store.by_name_label("VM", "clone9")) == 1
    assert leftovers(pool) == {}


async def test_starts_and_stops_of_many_vms_while_others_write_to_them(pool: Pool, client: Client) -> None:
    vms = [await pool.vm(client, f"vm{number}") for number in range(8)]

    async def cycle(vm: str) -> None:
        for _ in range(3):
            await client.call("VM.start", vm, False, False)
            await client.call("VM.hard_shutdown", vm)

    async def scribble(vm: str) -> None:
        for number in range(30):
            await client.call("VM.set_name_description", vm, str(number))

    await asyncio.gather(*(cycle(vm) for vm in vms), *(scribble(vm) for vm in vms))
    assert all(pool.row("VM", vm)["power_state"] == "Halted" for vm in vms)
    assert all(not host.vms for host in pool.hosts)
    assert leftovers(pool) == {}
