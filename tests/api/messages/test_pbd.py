"""SRs on hosts: connections and the passwords in their settings."""

from __future__ import annotations

from typing import Any

from shared.contracts import storage
from shared.contracts.db import Update
from shared.errors import ApiError
from tests.api.core import records
from tests.api.core.leftovers import leftovers
from tests.api.harness import Client, Pool


def sr_of(pool: Pool) -> str:
    return pool.ref("SR", "storage")


def pbd_on(pool: Pool, number: int, sr: str = "") -> str:
    pbds = pool.row("SR", sr or sr_of(pool))["PBDs"]
    return next(str(pbd) for pbd in pbds if pool.row("PBD", pbd)["host"] == pool.host_ref(number))


def secrets(pool: Pool) -> dict[str, str]:
    return {row["uuid"]: row["value"] for row in pool.store.rows("secret").values()}


def asked(pool: Pool, kind: type[Any]) -> list[Any]:
    return [request for request in pool.disks.asked if isinstance(request, kind)]


async def test_passwords_become_secrets_one_for_each_connection(pool: Pool, client: Client) -> None:
    config = {"server": "s", "cifspassword": "p"}
    sr = await client.call("SR.create", pool.host_ref(0), config, 0, "mine", "", "fake", "", True, {})
    [request] = asked(pool, storage.SrCreate)
    assert request.device_config["cifspassword"] == "p"  # not a SMAPIv1 driver: it cannot look secrets up
    configs = [pool.row("PBD", pbd)["device_config"] for pbd in pool.row("SR", sr)["PBDs"]]
    assert [set(one) for one in configs] == [{"server", "cifspassword_secret"}] * 2
    assert secrets(pool) == {one["cifspassword_secret"]: "p" for one in configs}
    assert len(secrets(pool)) == 2
    pbd = pbd_on(pool, 1, sr)
    await client.call("PBD.unplug", pbd)
    assert (await client.refusal("PBD.destroy", pbd_on(pool, 0, sr)))[0] == "OPERATION_NOT_ALLOWED"
    await client.call("PBD.destroy", pbd)
    assert len(secrets(pool)) == 1
    again = {"host": pool.host_ref(1), "SR": sr, "device_config": {"password": "q"}, "other_config": {}}
    new = await client.call("PBD.create", again)
    assert secrets(pool)[pool.row("PBD", new)["device_config"]["password_secret"]] == "q"
    exists = ["PBD_EXISTS", sr, pool.host_ref(1), new]
    assert await client.refusal("PBD.create", again) == exists
    lost = {**again, "host": pool.host_ref(0), "device_config": {"password_secret": "x"}}
    await client.call("PBD.unplug", pbd_on(pool, 0, sr))
    await client.call("PBD.destroy", pbd_on(pool, 0, sr))
    assert await client.refusal("PBD.create", lost) == ["UUID_INVALID", "secret", "x"]
    await client.call("SR.forget", sr)
    assert secrets(pool) == {}
    assert leftovers(pool) == {}


async def test_a_connection_that_cannot_be_made_changes_nothing(pool: Pool, client: Client) -> None:
    pbd = pbd_on(pool, 1)
    await client.call("PBD.unplug", pbd)
    await client.call("PBD.unplug", pbd)
    pool.hosts[1].fail("storage.sr_attach", ApiError("SR_BACKEND_FAILURE_47", "", "no server", ""))
    assert await client.refusal("PBD.plug", pbd) == ["SR_BACKEND_FAILURE_47", "", "no server", ""]
    assert not pool.row("PBD", pbd)["currently_attached"]
    pool.hosts[1].fail("storage.sr_scan", ApiError("SR_BACKEND_FAILURE_40", "", "", ""))
    await client.call("PBD.plug", pbd)
    assert pool.row("PBD", pbd)["currently_attached"]
    assert leftovers(pool) == {}


async def test_what_is_done_to_disks_is_waited_for(pool: Pool, client: Client) -> None:
    vdi = await client.call("VDI.create", records.vdi(sr_of(pool)))
    held = pool.hosts[0].hold("storage.vdi_clone")
    cloning = client.begin("VDI.clone", vdi)
    await held.reached.wait()
    unplugging = client.begin("PBD.unplug", pbd_on(pool, 0))
    await pool.until(lambda: "VDI.clone" in {row["name_label"] for row in pool.store.rows("task").values()})
    assert not unplugging.done()
    held.open()
    await cloning
    await unplugging
    assert leftovers(pool) == {}


async def test_what_high_availability_needs_stays_connected(pool: Pool, client: Client) -> None:
    vdi = await client.call("VDI.create", records.vdi(sr_of(pool)))
    vm = await pool.vm(client, ha_always_run=True, ha_restart_priority="restart")
    await client.call("VBD.create", records.vbd(vm, vdi))
    [ref] = pool.store.rows("pool")
    await pool.write(Update(cls="pool", ref=ref, fields={"ha_enabled": True, "ha_statefiles": [vdi]}))
    pbd = pbd_on(pool, 1)
    assert await client.refusal("PBD.unplug", pbd) == ["HA_CONSTRAINT_VIOLATION_SR_NOT_SHARED", sr_of(pool)]
    await pool.write(Update(cls="VM", ref=vm, fields={"ha_always_run": False}))
    assert await client.refusal("PBD.unplug", pbd) == ["HA_IS_ENABLED"]
    await pool.write(Update(cls="pool", ref=ref, fields={"ha_statefiles": []}))
    await client.call("PBD.unplug", pbd)


async def test_an_sr_with_figures_about_itself_only_is_destroyed_with_them(pool: Pool, client: Client) -> None:
    await client.call("VDI.create", records.vdi(sr_of(pool), type="rrd"))
    for number in (0, 1):
        await client.call("PBD.unplug", pbd_on(pool, number))
    pool.hosts[0].fail("storage.sr_destroy", ApiError("SR_BACKEND_FAILURE_63", "", "", ""))
    assert (await client.refusal("SR.destroy", sr_of(pool)))[0] == "SR_BACKEND_FAILURE_63"
    assert not pool.row("PBD", pbd_on(pool, 0))["currently_attached"]
    assert pool.hosts[0].attached == set()
    await client.call("SR.destroy", sr_of(pool))
    assert not pool.store.rows("SR")
    assert not pool.disks.srs


async def test_a_smapiv1_driver_scans_a_shared_sr_on_its_master_alone(pool: Pool, client: Client) -> None:
    [driver] = pool.store.rows("SM")
    await pool.write(Update(cls="SM", ref=driver, fields={"required_api_version": "1.0"}))
    for number in (0, 1):
        await client.call("PBD.unplug", pbd_on(pool, number))
        pool.hosts[number].served.clear()
    await client.call("PBD.plug", pbd_on(pool, 1))
    assert [host.served.count("storage.sr_scan") for host in pool.hosts] == [0, 0]
    await client.call("PBD.plug", pbd_on(pool, 0))
    assert [host.served.count("storage.sr_scan") for host in pool.hosts] == [1, 0]
