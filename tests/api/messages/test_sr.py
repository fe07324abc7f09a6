"""SRs' records: what only a storage plug-in may say of them, what they are fit for."""

from __future__ import annotations

from shared.contracts import storage
from shared.contracts.db import MapPut, Update
from tests.api.core import records
from tests.api.harness import Client, Pool

HA_DISKS = 3992977408


def sr_of(pool: Pool) -> str:
    return pool.ref("SR", "storage")


async def lend(pool: Pool, *features: str) -> None:
    """The driver of the SR can do that too."""
    [driver] = pool.store.rows("SM")
    await pool.write(
        *[MapPut(cls="SM", ref=driver, field="features", key=name, value=1, new=True) for name in features]
    )


async def test_only_its_plug_in_says_how_full_an_sr_is(pool: Pool, client: Client) -> None:
    setters = ("SR.set_physical_size", "SR.set_virtual_allocation", "SR.set_physical_utilisation")
    for setter in setters:
        assert (await client.refusal(setter, sr_of(pool), 5))[0] == "PERMISSION_DENIED"
        assert (await client.refusal(setter, "OpaqueRef:x", 5))[0] == "PERMISSION_DENIED"
    owned = MapPut(cls="session", ref=client.session, field="other_config", key="_sm_session", value=sr_of(pool))
    await pool.write(owned)
    for setter in setters:
        await client.call(setter, sr_of(pool), 5)
        assert pool.row("SR", sr_of(pool))[setter.removeprefix("SR.set_")] == 5


async def test_what_is_allocated_in_an_sr_is_known_from_scans(pool: Pool, client: Client) -> None:
    """As the original has it: neither VDI.create and VDI.destroy nor SR.update change it."""
    sr = pool.ref("SR", "storage")
    seen = []
    vdi = await client.call("VDI.create", records.vdi(sr, 3 << 20))
    for step in ("SR.update", "SR.scan"):
        await client.call(step, sr)
        seen.append(pool.row("SR", sr)["virtual_allocation"])
    await client.call("VDI.destroy", vdi)
    for step in ("SR.update", "SR.scan"):
        await client.call(step, sr)
        seen.append(pool.row("SR", sr)["virtual_allocation"])
    assert seen == [0, 3 << 20, 3 << 20, 0]


async def test_what_several_hosts_know_stays_shared(pool: Pool, client: Client) -> None:
    pbds = pool.row("SR", sr_of(pool))["PBDs"]
    assert await client.refusal("SR.set_shared", sr_of(pool), False) == ["SR_HAS_MULTIPLE_PBDS", *pbds]
    sr = await client.call("SR.introduce", "", "new", "", "NFS", "", True, {})
    await client.call("SR.set_shared", sr, False)
    row = pool.row("SR", sr)
    assert (row["shared"], row["type"], row["physical_size"]) == (False, "nfs", -1)
    assert await client.refusal("SR.introduce", row["uuid"], "x", "", "nfs", "", True, {}) == [
        "SR_UUID_EXISTS",
        row["uuid"],
    ]


async def test_high_availability_needs_an_sr_everywhere_with_room(pool: Pool, client: Client) -> None:
    sr, ask = sr_of(pool), "SR.assert_can_host_ha_statefile"
    assert await client.refusal(ask, sr) == ["SR_OPERATION_NOT_SUPPORTED", sr]
    await lend(pool, "VDI_ATTACH_OFFLINE")
    await pool.write(Update(cls="SR", ref=sr, fields={"physical_size": HA_DISKS - 1, "physical_utilisation": 0}))
    assert await client.refusal(ask, sr) == ["SR_SOURCE_SPACE_INSUFFICIENT", sr]
    await pool.write(Update(cls="SR", ref=sr, fields={"physical_size": HA_DISKS}))
    await client.call(ask, sr)
    pbd = pool.row("SR", sr)["PBDs"][0]
    await pool.write(Update(cls="PBD", ref=pbd, fields={"currently_attached": False}))
    assert await client.refusal(ask, sr) == ["SR_HAS_NO_PBDS", sr]


async def test_databases_are_copied_to_srs_that_can_hold_them(pool: Pool, client: Client) -> None:
    sr = sr_of(pool)
    assert await client.refusal("SR.assert_supports_database_replication", sr) == ["SR_OPERATION_NOT_SUPPORTED", sr]
    assert await client.refusal("SR.enable_database_replication", sr) == ["SR_OPERATION_NOT_SUPPORTED", sr]
    await lend(pool, "SR_METADATA")
    await client.call("SR.assert_supports_database_replication", sr)


async def test_disks_with_this_pools_database_go_when_it_is_not_copied_any_more(pool: Pool, client: Client) -> None:
    sr, ours = sr_of(pool), next(iter(pool.store.rows("pool")))
    old, other = [await client.call("VDI.create", records.vdi(sr, type="metadata")) for _ in range(2)]
    await pool.write(Update(cls="VDI", ref=old, fields={"metadata_of_pool": ours}))
    await client.call("SR.disable_database_replication", sr)
    assert pool.row("VDI", old) is None
    assert pool.row("VDI", other) is not None
    assert (await client.refusal("SR.disable_database_replication", "OpaqueRef:x"))[0] == "HANDLE_INVALID"


async def test_an_sr_is_looked_for_on_a_host_with_a_driver(pool: Pool, client: Client) -> None:
    for message in ("SR.probe", "SR.probe_ext"):
        assert await client.refusal(message, "OpaqueRef:x", {}, "frob", {}) == ["HOST_OFFLINE", "OpaqueRef:x"]
        assert await client.refusal(message, pool.host_ref(0), {}, "frob", {}) == ["SR_UNKNOWN_DRIVER", "frob"]
    found = storage.ProbedSr(uuid="u", name_label="<n>", total_space=5, free_space=3)
    place = storage.ProbeResult(configuration={"at": "there"}, complete=True, sr=found)
    pool.disks.probed = storage.SrProbed(results=[place, storage.ProbeResult(configuration={}, complete=False)])
    text = await client.call("SR.probe", pool.host_ref(0), {"chappassword": "p"}, "fake", {})
    assert "<UUID>u</UUID>" in text
    assert "<name_label>&lt;n&gt;</name_label>" in text
    assert "<size>5</size>" in text
    [asked] = [request for request in pool.disks.asked if isinstance(request, storage.SrProbe)]
    assert asked.device_config == {"chappassword": "p"}
    known, room = await client.call("SR.probe_ext", pool.host_ref(0), {}, "FAKE", {})
    assert (known["configuration"], known["complete"], known["sr"]["free_space"]) == ({"at": "there"}, True, 3)
    assert (room["complete"], "sr" in room) == (False, False)
    pool.disks.probed = storage.SrProbed(raw="<SRlist/>")
    assert await client.call("SR.probe", pool.host_ref(0), {}, "fake", {}) == "<SRlist/>"
    assert await client.refusal("SR.probe_ext", pool.host_ref(0), {}, "fake", {}) == ["SR_OPERATION_NOT_SUPPORTED"]
    assert not pool.store.rows("secret")
    made = ["x", {}, 0, "", "", "fake", "", {}]
    assert await client.refusal("SR.make", *made) == ["HOST_OFFLINE", "x"]
    made[0] = pool.host_ref(0)
    assert await client.refusal("SR.make", *made) == ["MESSAGE_DEPRECATED"]
    unreachable = await client.refusal("SR.create", "OpaqueRef:x", {}, 0, "", "", "fake", "", False, {})
    assert unreachable == ["HOST_OFFLINE", "OpaqueRef:x"]


async def test_an_sr_that_is_needed_is_not_destroyed(pool: Pool, client: Client) -> None:
    sr = sr_of(pool)
    off = {"currently_attached": False}
    await pool.write(*[Update(cls="PBD", ref=ref, fields=off) for ref in pool.row("SR", sr)["PBDs"]])
    await pool.write(Update(cls="host", ref=pool.host_ref(1), fields={"local_cache_sr": sr}))
    assert await client.refusal("SR.destroy", sr) == ["SR_IS_CACHE_SR", pool.host_ref(1)]
    await pool.write(Update(cls="SR", ref=sr, fields={"other_config": {"indestructible": "true"}}))
    assert await client.refusal("SR.destroy", sr) == ["SR_INDESTRUCTIBLE", sr]


async def test_srs_have_no_figures(pool: Pool, client: Client) -> None:
    assert await client.call("SR.get_data_sources", sr_of(pool)) == []
    await client.call("SR.forget_data_source_archives", sr_of(pool), "x")
    assert await client.refusal("SR.query_data_source", sr_of(pool), "x") == ["INVALID_VALUE", "data_source", "x"]
    await client.call("SR.record_data_source", sr_of(pool), "x")


async def test_how_a_host_reaches_an_sr_is_changed_by_its_plug_in(pool: Pool, client: Client) -> None:
    pbd = pool.row("SR", sr_of(pool))["PBDs"][0]
    assert (await client.refusal("PBD.set_device_config", pbd, {"a": "b"}))[0] == "PERMISSION_DENIED"
    assert (await client.refusal("PBD.set_device_config", "OpaqueRef:x", {}))[0] == "HANDLE_INVALID"
    owned = MapPut(cls="session", ref=client.session, field="other_config", key="_sm_session", value=sr_of(pool))
    await pool.write(owned)
    assert (await client.refusal("PBD.set_device_config", pbd, {"SRmaster": "true"}))[0] == "VALUE_NOT_SUPPORTED"
    await client.call("PBD.set_device_config", pbd, {"a": "b"})
    assert pool.row("PBD", pbd)["device_config"] == {"a": "b"}
