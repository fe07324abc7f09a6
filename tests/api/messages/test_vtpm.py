"""Virtual TPMs: one for a VM, and what it holds."""

from __future__ import annotations

from shared.contracts.db import Update
from tests.api.harness import Client, Pool

SECRET = "c2VjcmV0"
NOWHERE = "OpaqueRef:00000000-0000-4000-8000-0000000000aa"


async def test_a_halted_vm_gets_one(pool: Pool, client: Client) -> None:
    vm = await pool.vm(client)
    assert await client.refusal("VTPM.create", NOWHERE, False) == ["HANDLE_INVALID", "VM", NOWHERE]
    vtpm = await client.call("VTPM.create", vm, False)
    record = await client.call("VTPM.get_record", vtpm)
    assert (record["allowed_operations"], record["persistence_backend"]) == (["destroy"], "xapi")
    assert (record["is_unique"], record["is_protected"], record["backend"]) == (False, False, "OpaqueRef:NULL")
    assert "contents" not in record
    assert "create_vtpm" not in pool.row("VM", vm)["allowed_operations"]
    assert await client.refusal("VTPM.create", vm, False) == ["VTPM_MAX_AMOUNT_REACHED", "1"]


async def test_only_a_halted_vm_gets_one(pool: Pool, client: Client) -> None:
    vm = await pool.vm(client)
    await client.call("VM.start", vm, False, False)
    assert await client.refusal("VTPM.create", vm, False) == ["VM_BAD_POWER_STATE", vm, "halted", "running"]


async def test_what_it_holds_goes_with_it(pool: Pool, client: Client) -> None:
    vm = await pool.vm(client)
    vtpm = await client.call("VTPM.create", vm, False)
    assert await client.call("VTPM.get_contents", vtpm) == ""
    await client.call("VTPM.set_contents", vtpm, SECRET)
    assert await client.call("VTPM.get_contents", vtpm) == SECRET
    assert (await client.refusal("VTPM.set_contents", vtpm, "not base64!"))[0] == "INTERNAL_ERROR"
    assert len(pool.store.rows("secret")) == 1
    await client.call("VTPM.destroy", vtpm)
    assert pool.store.rows("secret") == {}
    assert "create_vtpm" in pool.row("VM", vm)["allowed_operations"]


async def test_it_stays_while_its_vm_runs(pool: Pool, client: Client) -> None:
    vm = await pool.vm(client)
    vtpm = await client.call("VTPM.create", vm, False)
    await pool.write(Update(cls="VM", ref=vm, fields={"power_state": "Running"}))
    refusal = ["VM_BAD_POWER_STATE", vm, "halted;suspended", "running"]
    assert await client.refusal("VTPM.destroy", vtpm) == refusal
    await pool.until(lambda: pool.row("VTPM", vtpm)["allowed_operations"] == [])


async def test_a_vm_goes_with_its_vtpm_and_what_that_holds(pool: Pool, client: Client) -> None:
    vm = await pool.vm(client)
    vtpm = await client.call("VTPM.create", vm, False)
    await client.call("VM.destroy", vm)
    assert pool.row("VTPM", vtpm) is None
    assert pool.store.rows("secret") == {}


async def test_a_copy_of_a_vm_has_a_copy_unless_it_is_unique(pool: Pool, client: Client) -> None:
    for unique, expected in ((False, SECRET), (True, "")):
        vm = await pool.vm(client, f"unique {unique}")
        vtpm = await client.call("VTPM.create", vm, unique)
        await client.call("VTPM.set_contents", vtpm, SECRET)
        clone = await client.call("VM.clone", vm, "clone")
        [copy] = pool.row("VM", clone)["VTPMs"]
        assert await client.call("VTPM.get_contents", copy) == expected
        assert pool.row("VTPM", copy)["is_unique"] == unique


async def test_a_revert_brings_back_what_it_held(pool: Pool, client: Client) -> None:
    vm = await pool.vm(client)
    vtpm = await client.call("VTPM.create", vm, False)
    await client.call("VTPM.set_contents", vtpm, SECRET)
    snapshot = await client.call("VM.snapshot", vm, "snapshot")
    await client.call("VTPM.set_contents", vtpm, "bGF0ZXI=")
    await client.call("VM.revert", snapshot)
    [present] = pool.row("VM", vm)["VTPMs"]
    assert await client.call("VTPM.get_contents", present) == SECRET
    assert len(pool.store.rows("secret")) == 2


async def test_a_vm_with_one_is_not_started_without_it(pool: Pool, client: Client) -> None:
    vm = await pool.vm(client)
    await client.call("VTPM.create", vm, False)
    assert await client.refusal("VM.start", vm, False, False) == ["NOT_IMPLEMENTED", "VM.start of a VM with a VTPM"]
    assert pool.row("VM", vm)["power_state"] == "Halted"
    assert pool.row("VM", vm)["current_operations"] == {}
