"""What has to be true of a pool after whatever was done to it: nothing is left over, and rows agree with hosts."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from shared import config
from shared.bus import amqp
from shared.bus.contract import Empty
from shared.bus.interface import BusError
from shared.contracts import storage, vm
from tests.support.jsonrpc import Client, Failure, NoAnswer
from tests.support.pool import PoolUnderTest

LOCKED = ("VM", "VDI", "VBD", "VIF", "SR", "host", "network", "pool")
"""Classes with `current_operations` that operations of this pool take."""
NULL = "OpaqueRef:NULL"
SETTLING = 45.0
"""Seconds a pool gets to put itself in order; its sweep of leftovers comes every half minute."""

Tables = Mapping[str, Mapping[str, Mapping[str, Any]]]


class HostView:
    """What one host says that it has. VMs by uuid; datapaths as (vm uuid, location)."""

    def __init__(self, states: list[vm.VmState], datapaths: list[storage.Datapath]) -> None:
        self.vms = {state.uuid: state for state in states}
        self.datapaths = {(path.dp.split("/")[1], path.location): path for path in datapaths}


async def views(pool: PoolUnderTest) -> dict[str, HostView]:
    """By the host's uuid. Raises `BusError`."""
    group = next(name for name, _ in pool.plan.groups())
    settings = config.load(pool.directory / group / "vm.toml")
    bus = await amqp.connect(settings.bus.url, "tests")
    try:
        return {
            host.uuid: HostView(
                (await bus.call(vm.LIST, Empty(), host=host.uuid)).vms,
                (await bus.call(storage.DATAPATHS, Empty(), host=host.uuid)).datapaths,
            )
            for host in pool.plan.hosts
        }
    finally:
        await bus.close()


async def tables(client: Client) -> Tables:
    """All rows as they are at one moment."""
    names = {*LOCKED, "task", "host_metrics", "console", "PBD"}
    found: dict[str, dict[str, Any]] = {name: {} for name in names}
    spelling = {name.lower(): name for name in names}
    for event in (await client.call("event.from", sorted(names), "", 0.0))["events"]:
        found[spelling[event["class"]]][event["ref"]] = event["snapshot"]
    return found


def faults(found: Tables, hosts: Mapping[str, HostView]) -> Iterator[str]:
    """What is wrong, one line each."""
    for cls in LOCKED:
        for ref, row in found[cls].items():
            if row["current_operations"]:
                yield f"{cls} {row.get('name_label') or ref} is locked: {row['current_operations']}"
    for row in found["task"].values():
        if row["status"] == "pending":
            yield f"task {row['name_label'][:80]} is pending"
    for row in found["host"].values():
        if not row["enabled"] or not found["host_metrics"][row["metrics"]]["live"]:
            yield f"host {row['name_label']} is not live and enabled"
    for row in found["PBD"].values():
        if not row["currently_attached"]:
            yield "an SR is not attached"
    machines = [row for row in found["VM"].values() if not row["is_a_template"] and not row["is_control_domain"]]
    for row in machines:
        yield from _machine(row, found, hosts)
    known = {row["uuid"] for row in machines}
    for host, view in hosts.items():
        for uuid in view.vms.keys() - known:
            yield f"host {host} has VM {uuid}, of which there is no record"
        for uuid, location in view.datapaths:
            if uuid not in view.vms:
                yield f"host {host} has disk {location} open for VM {uuid}, which it does not run"


def _machine(row: Mapping[str, Any], found: Tables, hosts: Mapping[str, HostView]) -> Iterator[str]:
    name, resident = f"VM {row['name_label']}", row["resident_on"]
    if row["scheduled_to_be_resident_on"] != NULL:
        yield f"{name} still has a host reserved for it"
    here = [uuid for uuid, view in hosts.items() if row["uuid"] in view.vms]
    if row["power_state"] in ("Halted", "Suspended"):
        if here or resident != NULL:
            yield f"{name} is {row['power_state']}, but resident on {resident} and running on {here}"
        if row["consoles"]:
            yield f"{name} is {row['power_state']} and has consoles"
        attached = False
    else:
        where = found["host"][resident]["uuid"] if resident in found["host"] else ""
        if here != [where]:
            yield f"{name} is {row['power_state']} on {where or 'no host'}, and really on {here}"
            return
        state = hosts[where].vms[row["uuid"]]
        if state.power_state != row["power_state"] or int(row["domid"]) != state.domid:
            told = f"{row['power_state']} (domain {row['domid']})"
            yield f"{name} is {told}, but its host says {state.power_state} (domain {state.domid})"
        attached = True
    for cls in ("VBD", "VIF"):
        for ref in row[cls + "s"]:
            if found[cls][ref]["currently_attached"] is not attached:
                yield f"{name} is {row['power_state']}, but its {cls}'s currently_attached is {not attached}"


def files(pool: PoolUnderTest) -> set[str]:
    """Names of the disks in the default SR's folder."""
    assert pool.plan.sr is not None
    return {path.name for path in Path(pool.plan.sr.location).glob("*.qcow2")}


async def assert_sound(pool: PoolUnderTest, client: Client, patience: float = SETTLING) -> float:
    """Waits until nothing is wrong any more. Returns the seconds it took; fails with what stays wrong."""
    begun = time.monotonic()
    while True:
        try:
            wrong = list(faults(await tables(client), await views(pool)))
        except (BusError, Failure, NoAnswer, OSError) as error:
            wrong = [f"the pool does not answer: {error}"]
        took = time.monotonic() - begun
        if not wrong:
            return took
        assert took < patience, f"after {took:.0f} s:\n" + "\n".join(wrong)
        await asyncio.sleep(0.25)
