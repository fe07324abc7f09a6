"""What VMs do by themselves: the hosts say so on the bus, the coordinator writes it down.

A change that a call asked for is written by that call. While a call is busy with the VM, what its host says is kept and
looked at again when the call has ended, so a guest that crashes right after its start is not missed.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Sequence
from typing import Final

from services.api import vm_state
from services.api.allowed import published
from services.api.api import Api
from services.api.decisions import vm_messages
from services.api.decisions.rows import existing
from services.api.decisions.vm_state_reset import OFF_DUTY
from shared import alerts
from shared.bus.interface import BusError
from shared.contracts import vm as contract
from shared.contracts.db import Change, Delta, Precondition, Unchanged
from shared.errors import ApiError
from shared.store import NULL, Store, Touched

log = logging.getLogger("api.vm_events")

LIFECYCLE: Final = frozenset(
    {
        "start",
        "start_on",
        "pause",
        "unpause",
        "clean_shutdown",
        "hard_shutdown",
        "shutdown",
        "clean_reboot",
        "hard_reboot",
        "suspend",
        "resume",
        "resume_on",
        "pool_migrate",
        "migrate_send",
        "power_state_reset",
        "checkpoint",
    }
)
"""Operations that write the power state themselves."""


class VmEvents:
    """Follows `vm.<host>.state`; coordinator only."""

    def __init__(self, api: Api) -> None:
        self._api = api
        self._latest: dict[tuple[str, str], contract.VmStateChanged] = {}
        """By host and VM, both as uuid: what is not written yet."""
        self._untold: deque[contract.VmStateChanged] = deque()
        """What people are to hear of, in order."""
        self._wake = asyncio.Event()
        api.replica.watch(self._on_commit)

    async def subscribe(self) -> None:
        await self._api.bus.subscribe(contract.STATE, self._on_state)

    def _on_state(self, change: contract.VmStateChanged, _: str) -> None:
        self.offer(change)

    def offer(self, change: contract.VmStateChanged) -> None:
        """Has it written as soon as no call is busy with the VM, unless something newer is known by then. What happens
        without a change of the power state is told whatever else happens by then.
        """
        if change.cause in _WITHOUT_CHANGE:
            self._untold.append(change)
            self._wake.set()
        key = (change.host, change.state.uuid)
        known = self._latest.get(key)
        if known is None or change.state.seq >= known.state.seq:
            self._latest[key] = change
            self._wake.set()

    def _on_commit(self, touched: list[Touched], _: Delta | None) -> None:
        for item in touched:
            if item.cls == "VM":
                if self._latest:
                    self._wake.set()
                if item.kind == "del":
                    self._api.vm_states.forget_vm(item.row.fields["uuid"])

    async def run(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            for key, change in list(self._latest.items()):
                try:
                    done = await self.apply(change)
                except (BusError, ApiError) as error:
                    log.warning("the new state of VM %s is not written yet: %s", change.state.uuid, error)
                    asyncio.get_running_loop().call_later(1.0, self._wake.set)
                    continue
                if done and self._latest.get(key) is change:
                    del self._latest[key]
            await self._tell_all()

    async def apply(self, change: contract.VmStateChanged) -> bool:
        """Brings the VM's rows in line with what its host says. False: a call is busy with the VM, later."""

        def decision(store: Store) -> tuple[Sequence[Change], Sequence[Precondition], bool]:
            ref = store.ref_of_uuid("VM", change.state.uuid)
            row = store.find("VM", ref) if ref is not None else None
            if ref is None or row is None or not self._api.vm_states.is_news(change.host, change.state):
                return [], [], True
            if not LIFECYCLE.isdisjoint(row.fields["current_operations"].values()):
                return [], [], False
            changes = self._changes(store, ref, change)
            return changes, [Unchanged(cls="VM", ref=ref, generation=row.modified)] if changes else [], True

        before = self._power_state(change.state.uuid)
        done = await self._api.database.decide(decision)
        if done:
            self._api.vm_states.note(change.host, change.state)
            if self._power_state(change.state.uuid) != before and change.cause not in _WITHOUT_CHANGE:
                self._untold.append(change)
        return done

    def _power_state(self, vm: str) -> str | None:
        ref = self._api.store.ref_of_uuid("VM", vm)
        row = self._api.store.row("VM", ref) if ref is not None else None
        return None if row is None else str(row["power_state"])

    def _changes(self, store: Store, vm: str, change: contract.VmStateChanged) -> list[Change]:
        host = store.ref_of_uuid("host", change.host)
        row = existing(store, "VM", vm)
        if host is None or row["is_control_domain"]:
            return []
        halted = change.state.power_state is contract.PowerState.HALTED
        resident = row["resident_on"]
        if resident not in (host, NULL, ""):
            if not halted:
                log.error("VM %s runs on host %s, but belongs on %s", row["uuid"], change.host, resident)
            return []  # it has moved on; this host has only let go of it
        if halted and row["power_state"] in OFF_DUTY:
            return []
        changes = vm_state.changes(store, host, vm, change.state, self._api.https_url)
        return [*changes, *published(store, "VM", vm, changes)] if changes else []

    async def _tell_all(self) -> None:
        """However often it takes: a newer state says nothing of what people have not heard."""
        while self._untold:
            try:
                await self._tell(self._untold[0])
            except BusError as error:
                log.warning("people do not hear yet of VM %s: %s", self._untold[0].state.uuid, error)
                asyncio.get_running_loop().call_later(1.0, self._wake.set)
                return
            self._untold.popleft()

    async def _tell(self, change: contract.VmStateChanged) -> None:
        """An alert for what the guest did (upstream has none for this; people want to know)."""
        ref = self._api.store.ref_of_uuid("VM", change.state.uuid)
        row = self._api.store.row("VM", ref) if ref is not None else None
        cause = change.cause
        if cause is contract.Cause.REQUEST and change.state.stalled:
            cause = contract.Cause.DISK_FULL  # the state was asked for, since nobody had heard the event
        name = _ALERTS.get(cause)
        if row is None or name is None:
            return
        words = _WORDS[cause].format(disk=vm_messages.disk(self._api.store, change.vbd or change.state.stalled))
        log.info("VM %s %s", row["uuid"], words, extra={"host_uuid": change.host})
        body = f"VM '{row['name_label']}' (uuid: {row['uuid']}) {words}"
        alert = alerts.new(name, _PRIORITIES.get(name, vm_messages.PRIORITY), "VM", row["uuid"], body)
        await alerts.publish(self._api.bus, alert)


_ALERTS: Final = {
    contract.Cause.GUEST_SHUTDOWN: "VM_SHUTDOWN",
    contract.Cause.GUEST_REBOOT: "VM_REBOOTED",
    contract.Cause.GUEST_CRASH: "VM_CRASHED",
    contract.Cause.PROCESS_DIED: "VM_CRASHED",
    contract.Cause.DISK_FULL: "VM_DISK_FULL",
    contract.Cause.DISK_ROOM: "VM_DISK_ROOM",
    contract.Cause.DISK_ERROR: "VM_DISK_ERROR",
}

_PRIORITIES: Final = {"VM_CRASHED": 3, "VM_DISK_FULL": 2, "VM_DISK_ERROR": 2}
"""Of those that are no mere information."""

_WITHOUT_CHANGE: Final = frozenset({contract.Cause.GUEST_REBOOT, contract.Cause.DISK_ERROR})
"""What is told although the power state is as it was."""

_WORDS: Final = {
    contract.Cause.GUEST_SHUTDOWN: "was shut down by its guest",
    contract.Cause.GUEST_REBOOT: "was rebooted by its guest",
    contract.Cause.GUEST_CRASH: "crashed",
    contract.Cause.PROCESS_DIED: "lost its hypervisor process",
    contract.Cause.DISK_FULL: "is paused: there is no room for what it writes to {disk}",
    contract.Cause.DISK_ROOM: "goes on: there is room again for what it writes",
    contract.Cause.DISK_ERROR: "was told of an error of {disk}",
}
