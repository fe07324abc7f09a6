"""What the coordinator does when a host appears: learn what it is, plug its storage, find its VMs, enable it.

A host appears when its heartbeats begin, or begin anew after its services were started again.
"""

from __future__ import annotations

import asyncio
import logging
import random
import uuid
from typing import Final

from services.api import clock, control_domain_disks
from services.api.allowed import published
from services.api.api import Api
from services.api.decisions.sr_hosts import scanner
from services.api.operations.host import DISABLED
from services.api.operations.sr import attach_request
from services.api.storage_drivers import StorageDrivers
from services.api.storage_hosts import rescan, stat_change
from services.api.vm_events import VmEvents
from shared.bus.contract import Empty
from shared.bus.interface import BusError
from shared.contracts import storage
from shared.contracts import vm as contract
from shared.contracts.db import Change, Create, Delta, Update
from shared.contracts.ha import HEARTBEAT, Heartbeat
from shared.errors import ApiError
from shared.store import NULL, Store, Touched

log = logging.getLogger("api.hosts")

PRODUCT_VERSION: Final = "8.3.0"
"""Clients choose their features by it (`host-services` 3.1)."""

ATTEMPTS: Final = 60


class HostConnect:
    """One task per host that is being brought in. Coordinator only."""

    def __init__(self, api: Api, vm_events: VmEvents, drivers: StorageDrivers) -> None:
        self._api = api
        self._drivers = drivers
        self._vm_events = vm_events
        self._boots: dict[str, str] = {}
        self._work: dict[str, asyncio.Task[None]] = {}
        api.replica.watch(self._on_commit)

    async def subscribe(self) -> None:
        await self._api.bus.subscribe(HEARTBEAT, self._on_heartbeat)
        self._api.bus.on_reconnect(self._reconnected)

    async def _reconnected(self) -> None:
        """What hosts said meanwhile is lost: each is asked anew when its next heartbeat comes."""
        self._boots.clear()

    def _on_heartbeat(self, beat: Heartbeat, _: str) -> None:
        if self._boots.get(beat.host) != beat.boot:
            self._boots[beat.host] = beat.boot
            self._begin(beat.host)

    def _on_commit(self, touched: list[Touched], _: Delta | None) -> None:
        """A host that was taken for dead and lives: its VMs may have changed unheard."""
        for item in touched:
            if item.cls == "host_metrics" and item.kind == "mod" and not item.row.fields["live"]:
                for host in self._api.store.rows("host").values():
                    if host["metrics"] == item.ref:
                        self._boots.pop(host["uuid"], None)

    def _begin(self, host: str) -> None:
        running = self._work.pop(host, None)
        if running is not None:
            running.cancel()
        task = asyncio.create_task(self._connect(host), name=f"connect {host}")
        self._work[host] = task
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and task.exception() is not None:
            log.error("bringing in a host failed", exc_info=task.exception())

    async def close(self) -> None:
        for task in self._work.values():
            task.cancel()
        await asyncio.gather(*self._work.values(), return_exceptions=True)

    async def _connect(self, host: str) -> None:
        """Tries until the host's services answer; gives up when it stays silent (its next heartbeat tries again)."""
        delay = 0.1
        for _ in range(ATTEMPTS):
            ref = self._api.store.ref_of_uuid("host", host)
            try:
                if ref is not None:
                    await self._bring_in(host, ref)
                    return
            except (BusError, ApiError) as error:
                log.info("host %s is not ready: %s", host, error)
            await asyncio.sleep(delay * random.uniform(0.8, 1.2))
            delay = min(delay * 1.5, 3.0)
        self._boots.pop(host, None)

    async def _bring_in(self, host: str, ref: str) -> None:
        bus, database = self._api.bus, self._api.database
        facts = await bus.call(contract.CAPABILITIES, Empty(), host=host)
        await database.transact(host_facts(self._api.store, ref, facts))
        await self._drivers.ask(host, ref)
        problems = await self._plug(host, ref)
        await control_domain_disks.follow(self._api, host, ref)
        await self._find_vms(host, ref)
        row = self._api.store.row("host", ref)
        if row is not None and row["other_config"].get(DISABLED) != "true" and not row["enabled"]:
            enabled: list[Change] = [Update(cls="host", ref=ref, fields={"enabled": True})]
            await database.transact([*enabled, *published(self._api.store, "host", ref, enabled)])
        log.info("host %s is in", host, extra={"backend": facts.backend, "accel": facts.accel, "unplugged": problems})

    async def _plug(self, host: str, ref: str) -> int:
        """Attaches every SR that has a PBD on the host. Returns how many could not be."""
        problems = 0
        store = self._api.store
        for pbd in list(store.get("host", ref, "PBDs")):
            row = store.row("PBD", pbd)
            if row is None or store.row("SR", row["SR"]) is None:
                continue
            try:
                stat = await self._api.bus.call(storage.SR_ATTACH, attach_request(store, pbd), host=host)
                plugged = Update(cls="PBD", ref=pbd, fields={"currently_attached": True})
                await self._api.database.transact([plugged, stat_change(row["SR"], stat)])
            except BusError:
                raise
            except ApiError as error:
                problems += 1
                log.warning("SR %s cannot be attached on host %s: %s", row["SR"], host, error)
                unplugged = Update(cls="PBD", ref=pbd, fields={"currently_attached": False})
                await self._api.database.transact([unplugged])
                continue
            by = scanner(store, row["SR"], ref)
            if by is None:
                continue
            try:
                await rescan(self._api, row["SR"], self._api.uuid_of("host", by))
            except BusError:
                raise
            except ApiError as error:
                log.warning("SR %s is attached on host %s, but not what it holds: %s", row["SR"], host, error)
        return problems

    async def _find_vms(self, host: str, ref: str) -> None:
        """The host says which VMs it has. Those the rows put there and it does not have are halted; those that belong
        elsewhere, or to nobody, are stopped (`vm-lifecycle` 3.8).
        """
        bus, store = self._api.bus, self._api.store
        self._api.vm_states.forget_host(host)
        # Before asking: a VM that is started meanwhile is in neither list.
        expected = [store.get("VM", vm, "uuid") for vm in store.get("host", ref, "resident_VMs")]
        listed = (await bus.call(contract.LIST, Empty(), host=host)).vms
        for state in listed:
            if self._is_stray(state, ref):
                await self._stop(host, state)
            else:
                self._vm_events.offer(contract.VmStateChanged(host=host, state=state, cause=contract.Cause.REQUEST))
        present = {state.uuid for state in listed}
        for vm in expected:
            row = self._api.store.row("VM", self._api.store.ref_of_uuid("VM", vm) or "")
            if vm in present or row is None or row["is_control_domain"]:
                continue
            state = await bus.call(contract.QUERY, contract.VmId(vm=vm), host=host)
            if state.power_state is contract.PowerState.HALTED:
                log.warning("VM %s is no longer on host %s", vm, host)
            self._vm_events.offer(contract.VmStateChanged(host=host, state=state, cause=contract.Cause.REQUEST))

    def _is_stray(self, state: contract.VmState, host: str) -> bool:
        """Whether the host runs a VM that runs on another host by now, or whose record is gone."""
        store = self._api.store
        row = store.row("VM", store.ref_of_uuid("VM", state.uuid) or "")
        if row is None:
            return True
        moving = not _MIGRATIONS.isdisjoint(row["current_operations"].values())
        return row["resident_on"] not in (host, NULL, "") and not moving

    async def _stop(self, host: str, state: contract.VmState) -> None:
        log.error("VM %s on host %s does not belong there: stopped", state.uuid, host)
        await self._api.bus.call(contract.SHUTDOWN, contract.VmShutdown(vm=state.uuid), host=host)


_MIGRATIONS: Final = frozenset({"pool_migrate", "migrate_send"})


def host_facts(store: Store, host: str, facts: contract.HostCapabilities) -> list[Change]:
    """What a host says about itself, in rows."""
    row = store.row("host", host)
    if row is None:
        return []
    cpus = {
        "cpu_count": str(facts.cpu_count),
        "socket_count": "1",
        "threads_per_core": "1",
        "vendor": facts.cpu_vendor,
        "speed": str(facts.cpu_speed),
        "modelname": facts.cpu_model,
        "flags": facts.cpu_flags,
        "features_pv": "",
        "features_hvm": "",
        "features_hvm_host": "",
        "features_pv_host": "",
    }
    version = {
        "product_brand": "xapi-toolstack",
        "product_version": PRODUCT_VERSION,
        "product_version_text": PRODUCT_VERSION,
        "product_version_text_short": PRODUCT_VERSION,
        "platform_name": "XCP",
        "platform_version": "3.4.0",
        "xapi": "2.23",
        "xencenter_min": "2.23",
        "xencenter_max": "2.23",
        "hypervisor": facts.backend,
        "hypervisor_version": facts.version,
        "accelerator": facts.accel,
        "network_backend": "bridge",
        "db_schema": "5.909",
    }
    changes: list[Change] = [
        Update(
            cls="host",
            ref=host,
            fields={
                "cpu_info": cpus,
                "software_version": version,
                "capabilities": list(facts.capabilities),
                "memory_overhead": facts.memory_overhead,
                "boot_free_mem": facts.memory_total - facts.memory_overhead,
                "cpu_configuration": {},
            },
        ),
        Update(
            cls="host_metrics",
            ref=row["metrics"],
            fields={
                "live": True,
                "memory_total": facts.memory_total,
                "memory_free": facts.memory_total - facts.memory_overhead,
                "last_updated": clock.now(),
            },
        ),
    ]
    known = len(row["host_CPUs"])
    for number in range(known, facts.cpu_count):
        fields = {
            "host": host,
            "number": number,
            "vendor": facts.cpu_vendor,
            "speed": facts.cpu_speed,
            "modelname": facts.cpu_model,
            "flags": facts.cpu_flags,
        }
        changes.append(Create(cls="host_cpu", ref=f"OpaqueRef:{uuid.uuid4()}", fields=fields))
    return changes
