"""What VMs do by themselves: the hosts say so on the bus, the coordinator writes it down.

A change that a call asked for is written by that call. While a call is busy with the VM, what its host says is kept and
looked at again when the call has ended, so a guest that crashes right after its start is not missed.
"""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from typing import Final

from services.api import vm_state
from services.api.allowed import published
from services.api.api import Api
from services.api.decisions import vm_messages
from shared.bus.interface import BusError
from shared.contracts import vm as contract
from shared.contracts.alerts import ALERT, Alert
from shared.contracts.db import Change, Delta
from shared.errors import ApiError
from shared.store import NULL, Touched

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
        self._latest: dict[str, contract.VmStateChanged] = {}
        self._wake = asyncio.Event()
        api.replica.watch(self._on_commit)

    async def subscribe(self) -> None:
        await self._api.bus.subscribe(contract.STATE, self._on_state)

    def _on_state(self, change: contract.VmStateChanged, _: str) -> None:
        self._latest[change.state.uuid] = change
        self._wake.set()

    def _on_commit(self, touched: list[Touched], _: Delta | None) -> None:
        if self._latest and any(item.cls == "VM" for item in touched):
            self._wake.set()

    async def run(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            for name, change in list(self._latest.items()):
                if self._busy(name):
                    continue
                try:
                    await self.apply(change)
                except (BusError, ApiError) as error:
                    log.warning("the new state of VM %s is not written yet: %s", name, error)
                    asyncio.get_running_loop().call_later(1.0, self._wake.set)
                    continue
                if self._latest.get(name) is change:
                    del self._latest[name]

    def _busy(self, name: str) -> bool:
        ref = self._api.store.ref_of_uuid("VM", name)
        row = self._api.store.row("VM", ref) if ref is not None else None
        return row is not None and not LIFECYCLE.isdisjoint(row["current_operations"].values())

    async def apply(self, change: contract.VmStateChanged) -> None:
        """Brings the VM's rows in line with what its host says, if that is news."""
        store = self._api.store
        host = store.ref_of_uuid("host", change.host)
        ref = store.ref_of_uuid("VM", change.state.uuid)
        if host is None or ref is None:
            return
        row = store.row("VM", ref)
        if row is None or row["is_control_domain"]:
            return
        resident = row["resident_on"]
        if change.state.power_state is contract.PowerState.HALTED and resident not in (host, NULL, ""):
            return  # it has moved on; this host has only let go of it
        known = str(change.state.power_state) == row["power_state"] and change.state.domid == row["domid"]
        if known and (change.state.power_state is contract.PowerState.HALTED or resident == host):
            return  # the call that asked for it has written it
        changes: list[Change] = vm_state.changes(store, host, ref, change.state, self._api.https_url)
        changes += published(store, "VM", ref, changes)
        if change.cause is not contract.Cause.REQUEST:
            log.info(
                "VM %s is %s: %s", row["uuid"], change.state.power_state, change.cause, extra={"host_uuid": change.host}
            )
        await self._api.database.transact(changes)
        await self._tell(change, ref)

    async def _tell(self, change: contract.VmStateChanged, vm: str) -> None:
        """An alert for what the guest did (upstream has none for this; people want to know)."""
        row = self._api.store.row("VM", vm)
        name = _ALERTS.get(change.cause)
        if row is None or name is None:
            return
        alert = Alert(
            id=str(uuid.uuid4()),
            name=name,
            priority=vm_messages.PRIORITY if name != "VM_CRASHED" else 3,
            cls="VM",
            obj_uuid=row["uuid"],
            body=f"VM '{row['name_label']}' (uuid: {row['uuid']}) {_WORDS[change.cause]}",
            time=time.time(),
        )
        await self._api.bus.publish(ALERT, alert, cls=alert.cls, priority=str(alert.priority), name=alert.name)


_ALERTS: Final = {
    contract.Cause.GUEST_SHUTDOWN: "VM_SHUTDOWN",
    contract.Cause.GUEST_REBOOT: "VM_REBOOTED",
    contract.Cause.GUEST_CRASH: "VM_CRASHED",
    contract.Cause.PROCESS_DIED: "VM_CRASHED",
}

_WORDS: Final = {
    contract.Cause.GUEST_SHUTDOWN: "was shut down by its guest",
    contract.Cause.GUEST_REBOOT: "was rebooted by its guest",
    contract.Cause.GUEST_CRASH: "crashed",
    contract.Cause.PROCESS_DIED: "lost its hypervisor process",
}
