"""From what a host says about a VM to the rows that show it."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping
from typing import Any, Final

from services.api import clock
from services.api.decisions import vbd_devices
from services.api.decisions.rows import is_null
from services.api.decisions.vm_state_reset import force_state_reset
from shared.contracts.db import Change, Create, Delete, Update
from shared.contracts.vm import PowerState, VmState
from shared.errors import ApiError
from shared.store import NULL, Store

Url = Callable[[str, str], str]
"""Makes a URL from an address and a path."""


class SeenStates:
    """How far the rows have followed each VM on each host, by the `seq` of its states, which only rises: what a host
    said earlier may arrive later, and what a call has written is no news when it comes as an event.
    """

    def __init__(self) -> None:
        self._seen: dict[str, dict[str, int]] = {}

    def is_news(self, host: str, state: VmState) -> bool:
        """`host`: uuid."""
        return state.seq > self._seen.get(host, {}).get(state.uuid, -1)

    def note(self, host: str, state: VmState) -> None:
        if self.is_news(host, state):
            self._seen.setdefault(host, {})[state.uuid] = state.seq

    def forget_host(self, host: str) -> None:
        """Its services count anew, perhaps."""
        self._seen.pop(host, None)

    def forget_vm(self, vm: str) -> None:
        for seen in self._seen.values():
            seen.pop(vm, None)


def changes(store: Store, host: str, vm: str, state: VmState, url: Url) -> list[Change]:
    """The changes that bring the VM's rows in line with its state on that host; none for what is already so.

    Operations in progress are left alone: they end by themselves.
    """
    if state.power_state is PowerState.HALTED:
        return halted(store, vm)
    row = store.row("VM", vm)
    if row is None:
        return []
    fields = {
        "power_state": str(state.power_state),
        "domid": state.domid,
        "resident_on": host,
        "scheduled_to_be_resident_on": NULL,
    }
    result: list[Change] = []
    if any(row[name] != value for name, value in fields.items()):
        result.append(Update(cls="VM", ref=vm, fields=fields))
    result += _metrics(store, vm, state)
    result += _guest_metrics(store, vm, state)
    result += _consoles(store, host, vm, state, url)
    for cls, attached in (("VBD", state.vbds), ("VIF", state.vifs)):
        for ref in row[cls + "s"]:
            device = store.row(cls, ref)
            if device is None:
                continue
            now: dict[str, object] = {"currently_attached": ref in attached}
            if cls == "VBD" and ref in attached:
                now |= _vbd(store, device, state.disks.get(ref, ""), ref in state.empty)
            if any(device[name] != value for name, value in now.items()):
                result.append(Update(cls=cls, ref=ref, fields=now))
    return result


def _vbd(store: Store, device: Mapping[str, Any], disk: str, empty: bool) -> dict[str, object]:
    """`disk`: what the VM has there; another than before when it has moved, or was inserted, and nobody could write
    that down. `empty`: it is a drive without a medium; its guest may have ejected that. Calls that are busy with a
    drive write for themselves what is in it.
    """
    now: dict[str, object] = {}
    if not device["device"]:
        now["device"] = _linux_device(str(device["userdevice"]))
    busy = bool(device["current_operations"])
    if store.row("VDI", disk) is not None and not (busy and device["empty"]):
        now |= {"VDI": disk, "empty": False}
    elif empty and not busy:
        now |= {"VDI": NULL, "empty": True}
    return now


def _linux_device(userdevice: str) -> str:
    try:
        return vbd_devices.linux_device(vbd_devices.position(userdevice))
    except ApiError:
        return ""


def _metrics(store: Store, vm: str, state: VmState) -> list[Change]:
    metrics = store.get("VM", vm, "metrics")
    fields = {
        "memory_actual": state.memory_actual,
        "VCPUs_number": state.vcpus,
        "current_domain_type": state.domain_type,
        "hvm": state.domain_type == "hvm",
    }
    if state.start_time:
        fields["start_time"] = clock.stamp(state.start_time)
    row = store.row("VM_metrics", metrics)
    if row is not None and all(row[name] == value for name, value in fields.items()):
        return []
    fields["last_updated"] = clock.now()
    if row is not None:
        return [Update(cls="VM_metrics", ref=metrics, fields=fields)]
    ref = f"OpaqueRef:{uuid.uuid4()}"
    start = {"start_time": clock.EPOCH, "install_time": clock.EPOCH}
    return [
        Create(cls="VM_metrics", ref=ref, fields={**start, **fields}),
        Update(cls="VM", ref=vm, fields={"metrics": ref}),
    ]


HOTPLUG: Final = frozenset({"kvm", "tcg"})
"""Accelerators of machines with slots for disks that come and go: guests need no drivers of a hypervisor for that."""


def _guest_metrics(store: Store, vm: str, state: VmState) -> list[Change]:
    """A VM that runs has guest metrics, as long as no agent in the guest says anything with what its machine can."""
    fields = {"can_use_hotplug_vbd": "yes"} if state.accel in HOTPLUG else {}
    known = store.get("VM", vm, "guest_metrics")
    row = store.row("VM_guest_metrics", known)
    if row is not None:
        said_nothing = row["can_use_hotplug_vbd"] == "unspecified"
        return [Update(cls="VM_guest_metrics", ref=known, fields=fields)] if fields and said_nothing else []
    ref = f"OpaqueRef:{uuid.uuid4()}"
    first = {"uuid": str(uuid.uuid4()), "last_updated": clock.now(), **fields}
    return [
        Create(cls="VM_guest_metrics", ref=ref, fields=first),
        Update(cls="VM", ref=vm, fields={"guest_metrics": ref}),
    ]


def _consoles(store: Store, host: str, vm: str, state: VmState, url: Url) -> list[Change]:
    """One row for each console the VM has; its location says which host serves it."""
    address = str(store.get("host", host, "address"))
    wanted = {console.protocol for console in state.consoles}
    result: list[Change] = []
    present: set[str] = set()
    for ref in store.get("VM", vm, "consoles"):
        row = store.row("console", ref)
        if row is None:
            continue
        if row["protocol"] not in wanted:
            result.append(Delete(cls="console", ref=ref))
            continue
        present.add(row["protocol"])
        location = url(address, f"/console?uuid={row['uuid']}")
        if row["location"] != location:
            result.append(Update(cls="console", ref=ref, fields={"location": location}))
    for protocol in sorted(wanted - present):
        name = str(uuid.uuid4())
        fields = {
            "uuid": name,
            "protocol": protocol,
            "VM": vm,
            "location": url(address, f"/console?uuid={name}"),
        }
        result.append(Create(cls="console", ref=f"OpaqueRef:{uuid.uuid4()}", fields=fields))
    return result


def halted(store: Store, vm: str) -> list[Change]:
    """The VM is on no host: devices detached, consoles gone."""
    row = store.row("VM", vm)
    if row is None:
        return []
    result = force_state_reset(store, vm, "Halted", keep_operations=True)
    result += [Delete(cls="console", ref=ref) for ref in row["consoles"]]
    if not is_null(row["metrics"]) and store.row("VM_metrics", row["metrics"]) is not None:
        fields = {"current_domain_type": "unspecified", "last_updated": clock.now()}
        result.append(Update(cls="VM_metrics", ref=row["metrics"], fields=fields))
    return result
