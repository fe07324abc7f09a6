"""`allowed_operations` end up right, whatever was written by whom."""

from __future__ import annotations

import asyncio

from services.api.owners import Owners
from shared.contracts.db import Delta, RowChange, RowCreated, RowDeleted, RowModified, Update
from shared.store import NULL, Store
from tests.api.core import records
from tests.api.harness import Client, Pool


async def test_what_was_published_on_old_rows_is_corrected(pool: Pool, client: Client) -> None:
    vm = await pool.vm(client)
    wrong = {"allowed_operations": ["unpause"], "name_description": "x"}
    await pool.write(Update(cls="VM", ref=vm, fields=wrong))
    await pool.until(lambda: "start" in pool.row("VM", vm)["allowed_operations"])
    assert "unpause" not in pool.row("VM", vm)["allowed_operations"]


async def test_a_host_that_is_enabled_is_not_to_be_rebooted(pool: Pool, client: Client) -> None:
    host = pool.host_ref(1)
    assert "reboot" not in pool.row("host", host)["allowed_operations"]
    await client.call("host.disable", host)
    await pool.until(lambda: "reboot" in pool.row("host", host)["allowed_operations"])
    await client.call("host.enable", host)
    await pool.until(lambda: "reboot" not in pool.row("host", host)["allowed_operations"])


async def test_a_host_that_is_dead_may_be_powered_on(pool: Pool, client: Client) -> None:
    host = pool.host_ref(1)
    await pool.write(Update(cls="host", ref=host, fields={"power_on_mode": "wake-on-lan"}))
    await pool.settled()
    assert "power_on" not in pool.row("host", host)["allowed_operations"]
    await pool.write(Update(cls="host_metrics", ref=pool.row("host", host)["metrics"], fields={"live": False}))
    await pool.until(lambda: "power_on" in pool.row("host", host)["allowed_operations"])


async def test_disks_follow_the_plugs_and_the_driver_of_their_sr(pool: Pool, client: Client) -> None:
    vdi = await client.call("VDI.create", records.vdi(pool.ref("SR", "storage")))
    await pool.until(lambda: "resize" in pool.row("VDI", vdi)["allowed_operations"])
    pbds = list(pool.store.rows("PBD"))
    await pool.write(*[Update(cls="PBD", ref=ref, fields={"currently_attached": False}) for ref in pbds])
    await pool.until(lambda: "resize" not in pool.row("VDI", vdi)["allowed_operations"])
    await pool.write(*[Update(cls="PBD", ref=ref, fields={"currently_attached": True}) for ref in pbds])
    [driver] = [ref for ref, row in pool.store.rows("SM").items() if row["type"] == "fake"]
    features = {**pool.row("SM", driver)["features"]}
    del features["VDI_CLONE"]
    await pool.write(Update(cls="SM", ref=driver, fields={"features": features}))
    await pool.until(lambda: "clone" not in pool.row("VDI", vdi)["allowed_operations"])


async def test_devices_follow_their_vm(pool: Pool, client: Client) -> None:
    vm = await pool.vm(client)
    vif = await client.call("VIF.create", records.vif(vm, pool.ref("network", "network")))
    await client.call("VM.start", vm, False, False)
    await pool.until(lambda: "unplug" in pool.row("VIF", vif)["allowed_operations"])
    await client.call("VM.hard_shutdown", vm)
    await pool.until(lambda: "unplug" not in pool.row("VIF", vif)["allowed_operations"])


async def test_devices_follow_what_is_known_of_the_guest_in_their_vm(pool: Pool, client: Client) -> None:
    vm, other = await pool.vm(client, domain_type="hvm"), await pool.vm(client, "other")
    await client.call("VM.start", vm, False, False)
    vbd = await client.call(
        "VBD.create", records.vbd(vm, await client.call("VDI.create", records.vdi(pool.ref("SR", "storage"))))
    )
    await pool.write(Update(cls="VM", ref=other, fields={"allowed_operations": []}))
    await pool.until(lambda: "start" in pool.row("VM", other)["allowed_operations"])
    # it is corrected, and all that came before it has been looked at
    assert "plug" not in pool.row("VBD", vbd)["allowed_operations"]
    metrics = pool.row("VM", vm)["guest_metrics"]
    await pool.write(Update(cls="VM_guest_metrics", ref=metrics, fields={"can_use_hotplug_vbd": "yes"}))
    await pool.until(lambda: "plug" in pool.row("VBD", vbd)["allowed_operations"])


async def test_after_a_storm_every_object_says_what_it_allows(pool: Pool, client: Client) -> None:
    vms = [await pool.vm(client, f"vm{number}") for number in range(6)]

    async def live(vm: str) -> None:
        for _ in range(3):
            await client.call("VM.start", vm, False, False)
            await client.call("VM.add_to_blocked_operations", vm, "pause", "no")
            await client.call("VM.hard_shutdown", vm)
            await client.call("VM.remove_from_blocked_operations", vm, "pause")

    await asyncio.gather(*(live(vm) for vm in vms))
    await pool.settled()


def test_owners_of_metrics_are_those_that_refer_to_them_now() -> None:
    store = Store()

    def apply(*changes: RowChange) -> None:
        owners.note(store.apply(Delta(term=1, generation=store.generation + 1, previous=0, changes=list(changes))))

    def vm(ref: str, metrics: str) -> RowCreated:
        return RowCreated(cls="VM", ref=ref, fields={"guest_metrics": metrics})

    owners = Owners(store)
    apply(vm("a", "m"), vm("b", "m"), vm("c", NULL))
    assert owners.of(store, "m") == [("VM", "a"), ("VM", "b")]
    apply(RowModified(cls="VM", ref="a", fields={"guest_metrics": "n"}), RowDeleted(cls="VM", ref="b"))
    assert (owners.of(store, "m"), owners.of(store, "n")) == ([], [("VM", "a")])
    assert Owners(store).of(store, "n") == [("VM", "a")]
    assert owners.of(store, NULL) == []
