"""What the coordinator does to SRs by itself, and SR types that come and go."""

from __future__ import annotations

import asyncio

import msgspec

from services.api.sr_upkeep import SrUpkeep, interval
from shared.bus.contract import Empty
from shared.contracts.alerts import ALERT, Alert
from shared.contracts.db import MapPut, Update
from shared.contracts.storage import DRIVERS, DRIVERS_CHANGED, DriversChanged, VdiInfo
from tests.api.core.leftovers import leftovers
from tests.api.harness import Client, Pool


def sr_of(pool: Pool) -> str:
    return pool.ref("SR", "storage")


def put(pool: Pool, key: str, value: str) -> MapPut:
    return MapPut(cls="SR", ref=sr_of(pool), field="other_config", key=key, value=value, new=True)


async def test_srs_that_want_it_are_scanned(pool: Pool, client: Client) -> None:
    upkeep = SrUpkeep(pool.api)
    assert upkeep.begin_scans() == []
    place = pool.disks.srs[pool.row("SR", sr_of(pool))["uuid"]]
    place["new"] = VdiInfo(uuid="new", location="new", virtual_size=1, physical_utilisation=0)
    await pool.write(put(pool, "dirty", ""))
    [scan] = upkeep.begin_scans()
    assert upkeep.begin_scans() == []
    await scan
    assert len(pool.row("SR", sr_of(pool))["VDIs"]) == 1
    assert pool.row("SR", sr_of(pool))["other_config"] == {}
    assert upkeep.begin_scans() == []
    await pool.write(put(pool, "auto-scan", "true"))
    await asyncio.gather(*upkeep.begin_scans())
    [scan] = upkeep.begin_scans()
    await scan
    await pool.idle()
    assert leftovers(pool) == {}


def test_how_often_they_are_looked_at_is_said_by_the_coordinators_row() -> None:
    assert interval(None) == 30
    assert interval({"other_config": {"auto-scan-interval": "5"}}) == 5
    assert interval({"other_config": {"auto-scan-interval": "x"}}) == 30


async def test_an_alarm_tells_that_an_sr_is_full(pool: Pool, client: Client) -> None:
    told: asyncio.Queue[Alert] = asyncio.Queue()
    await pool.api_bus.subscribe(ALERT, lambda alert, _: told.put_nowait(alert))
    text = '<config><variable><name value="physical_utilisation"/><alarm_trigger_level value="-1"/>'
    perfmon = text + '<alarm_trigger_period value="0"/><alarm_priority value="2"/></variable></config>'
    await pool.write(put(pool, "perfmon", perfmon))
    upkeep = SrUpkeep(pool.api)
    await pool.write(Update(cls="SR", ref=sr_of(pool), fields={"physical_size": 5}))
    await asyncio.gather(*upkeep.begin_figures())
    assert pool.row("SR", sr_of(pool))["physical_size"] == pool.disks.size
    await asyncio.gather(*upkeep.begin_figures())
    alert = await asyncio.wait_for(told.get(), 30)
    assert (alert.name, alert.priority, alert.cls) == ("ALARM", 2, "SR")
    assert alert.body == f"value: 0.000000\nconfig:\n{perfmon}"


async def test_a_new_sr_type_is_known_as_soon_as_hosts_say_so(pool: Pool, client: Client) -> None:
    for host in pool.hosts:
        drivers = await pool.api_bus.call(DRIVERS, Empty(), host=host.uuid)
        info = msgspec.structs.replace(drivers.drivers[0], type="other")
        host.drivers.append(info)
        await host.bus.publish(DRIVERS_CHANGED, DriversChanged(host=host.uuid), host=host.uuid)
    await pool.until(lambda: {row["type"] for row in pool.store.rows("SM").values()} == {"fake", "other"})
    assert await client.call("SR.get_supported_types") == ["fake", "other"]
    for host in pool.hosts:
        host.drivers.pop()
        await host.bus.publish(DRIVERS_CHANGED, DriversChanged(host=host.uuid), host=host.uuid)
    await pool.until(lambda: {row["type"] for row in pool.store.rows("SM").values()} == {"fake"})
