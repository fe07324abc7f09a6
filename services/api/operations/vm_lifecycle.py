"""VM messages that change the power state: locks on the coordinator, work on the VM's host."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import partial
from typing import Any

from services.api import epochs, vm_state
from services.api.allowed import CHECKS
from services.api.call import Call
from services.api.decisions import passed_devices, vm_messages, vm_records
from services.api.decisions import placement as placing
from services.api.decisions.rows import existing, is_null
from services.api.forwarding import vm_spec
from services.api.operation import Lock, operation
from shared import alerts
from shared.bus.interface import BusError, HostOffline
from shared.contracts import vm as contract
from shared.contracts.db import Change, MapDrop, MapPut, Update
from shared.errors import ApiError
from shared.store import NULL, Store

log = logging.getLogger("api.vm")

CLEAN_TIMEOUT = 1200.0
"""Seconds a guest gets to shut down (`vm-lifecycle` 1.6)."""

UNDO_TIMEOUT = 60.0


# ---- start


def _reserve_any(call: Call, store: Store, arguments: tuple[Any, ...]) -> Sequence[Change]:
    return _reserve(call, store, arguments[0], call.api.placement.choose(arguments[0]))


def _reserve_given(call: Call, store: Store, arguments: tuple[Any, ...]) -> Sequence[Change]:
    vm, host = arguments[0], arguments[1]
    refusal = call.api.placement.check(vm, host)
    if refusal is not None:
        raise refusal
    return _reserve(call, store, vm, host)


def _reserve(call: Call, store: Store, vm: str, host: str) -> list[Change]:
    """The VM counts on the host from here on, its devices are spoken for, the host knows that something is started."""
    row = existing(store, "VM", vm)
    refusal = passed_devices.not_built(row, call.message.wire_name)
    if refusal is not None:
        raise refusal
    devices = [("VBD", ref) for ref in row["VBDs"]] + [("VIF", ref) for ref in row["VIFs"]]
    for cls, ref in devices:
        refusal = CHECKS[cls](store, ref, "attach")
        if refusal is not None:
            raise refusal
    marks = [_mark(call, "host", host, "vm_start"), *(_mark(call, cls, ref, "attach") for cls, ref in devices)]
    call.ending = [MapDrop(cls=mark.cls, ref=mark.ref, field=mark.field, key=mark.key) for mark in marks]
    call.on_failure = [Update(cls="VM", ref=vm, fields={"scheduled_to_be_resident_on": NULL})]
    prepared = vm_records.prepared_for_start(row)
    call.api.placement.promise(vm, host)
    return [
        Update(cls="VM", ref=vm, fields={**prepared, "scheduled_to_be_resident_on": host}),
        *marks,
    ]


def _mark(call: Call, cls: str, ref: str, operation: str) -> MapPut:
    return MapPut(cls=cls, ref=ref, field="current_operations", key=call.task, value=operation)


async def _start(call: Call, vm: str, paused: bool, force: bool) -> None:
    """Runs the VM on the host that was reserved for it."""
    host = str(call.store.get("VM", vm, "scheduled_to_be_resident_on"))
    await epochs.begin(call, vm, host)
    request = contract.VmStart(vm=vm_spec(call.store, vm), paused=paused, force=force)
    undo = partial(_stop_again, call, vm, host)
    call.undo.append(undo)
    try:
        await do_on_host(call, vm, host, contract.START, request)
    except ApiError as error:
        if not isinstance(error, BusError) and error.code != "TASK_CANCELLED":
            call.undo.remove(undo)  # the host says that it does not run
        raise
    home = existing(call.store, "host", host)
    call.on_success.append(Update(cls="VM", ref=vm, fields=vm_records.booted_on(home)))
    _alert(call, vm, "VM_STARTED", host=home)


async def _stop_again(call: Call, vm: str, host: str) -> None:
    """A start that was cancelled, or got no answer, may have come about. What a host that is gone has, shows when it is
    back.
    """
    request = contract.VmShutdown(vm=call.api.uuid_of("VM", vm))
    try:
        await call.api.bus.call(contract.SHUTDOWN, request, host=call.api.uuid_of("host", host), timeout=UNDO_TIMEOUT)
    except HostOffline as error:
        log.warning("VM %s may run on a host that is gone: %s", request.vm, error)
    except ApiError as error:
        if error.code != "VM_BAD_POWER_STATE":
            raise


@operation("VM.start", Lock("VM", "start", reserve=_reserve_any))
async def start(call: Call, vm: str, start_paused: bool, force: bool) -> None:
    await _start(call, vm, start_paused, force)


@operation("VM.start_on", Lock("VM", "start_on", reserve=_reserve_given))
async def start_on(call: Call, vm: str, host: str, start_paused: bool, force: bool) -> None:
    await _start(call, vm, start_paused, force)


# ---- what a running VM does


def host_of(call: Call, vm: str) -> str:
    """The host that runs the VM. Raises VM_BAD_POWER_STATE when the guest has just halted by itself."""
    row = existing(call.store, "VM", vm)
    if row["power_state"] == "Halted":
        raise ApiError("VM_BAD_POWER_STATE", vm, "running", "halted")
    if is_null(row["resident_on"]):
        raise ApiError("INTERNAL_ERROR", f"the database does not say on which host {vm} is")
    return str(row["resident_on"])


async def do_on_host(call: Call, vm: str, host: str, method: Any, request: Any) -> None:
    """Has the host do it, and shows the state it answers."""
    where = call.api.uuid_of("host", host)
    state = await call.api.bus.call(method, request, host=where)
    call.on_success += vm_state.changes(call.store, host, vm, state, call.api.https_url)
    call.written.append(lambda: call.api.vm_states.note(where, state))


async def _in_place(call: Call, vm: str, method: Any, request: Any, name: str, forcibly: bool = False) -> None:
    await do_on_host(call, vm, host_of(call, vm), method, request)
    _alert(call, vm, name, forcibly=forcibly)


@operation("VM.pause", Lock("VM", "pause"))
async def pause(call: Call, vm: str) -> None:
    await _in_place(call, vm, contract.PAUSE, contract.VmId(vm=call.api.uuid_of("VM", vm)), "VM_PAUSED")


@operation("VM.unpause", Lock("VM", "unpause"))
async def unpause(call: Call, vm: str) -> None:
    await _in_place(call, vm, contract.UNPAUSE, contract.VmId(vm=call.api.uuid_of("VM", vm)), "VM_UNPAUSED")


async def _shutdown(call: Call, vm: str, clean: bool, timeout: float) -> None:
    call.on_success.append(Update(cls="VM", ref=vm, fields={"ha_always_run": False}))
    host = host_of(call, vm)
    request = contract.VmShutdown(vm=call.api.uuid_of("VM", vm), clean=clean, timeout=timeout)
    await _in_place(call, vm, contract.SHUTDOWN, request, "VM_SHUTDOWN", forcibly=not clean)
    await epochs.end(call, vm, host)


@operation("VM.clean_shutdown", Lock("VM", "clean_shutdown"))
async def clean_shutdown(call: Call, vm: str) -> None:
    await _shutdown(call, vm, clean=True, timeout=CLEAN_TIMEOUT)


@operation(
    "VM.hard_shutdown",
    Lock(
        "VM",
        "hard_shutdown",
        interrupts=frozenset(
            {"clean_shutdown", "clean_reboot", "hard_reboot", "pool_migrate", "call_plugin", "shutdown", "suspend"}
        ),
    ),
)
async def hard_shutdown(call: Call, vm: str) -> None:
    await _shutdown(call, vm, clean=False, timeout=CLEAN_TIMEOUT)


@operation("VM.shutdown", Lock("VM", "shutdown"))
async def shutdown(call: Call, vm: str) -> None:
    """Asks the guest; pulls the plug when it does not follow in time or cannot be asked."""
    delay = float(call.store.get("VM", vm, "shutdown_delay"))
    if call.store.get("VM", vm, "power_state") == "Running":
        try:
            await _shutdown(call, vm, clean=True, timeout=delay or CLEAN_TIMEOUT)
            return
        except ApiError as error:
            if error.code == "TASK_CANCELLED":
                raise
            call.on_success.clear()
            call.alerts.clear()
    await _shutdown(call, vm, clean=False, timeout=CLEAN_TIMEOUT)


async def _reboot(call: Call, vm: str, clean: bool) -> None:
    refusal = passed_devices.not_built(existing(call.store, "VM", vm), call.message.wire_name)
    if refusal is not None:
        raise refusal
    if epochs.forgetful(call.store, vm):
        await _start_anew(call, vm, clean)
        return
    request = contract.VmReboot(vm=vm_spec(call.store, vm, attached=True), clean=clean, timeout=CLEAN_TIMEOUT)
    await _in_place(call, vm, contract.REBOOT, request, "VM_REBOOTED", forcibly=not clean)


async def _start_anew(call: Call, vm: str, clean: bool) -> None:
    """A reboot that closes the disks in between, as some are taken back to what they were."""
    host = host_of(call, vm)
    stop = contract.VmShutdown(vm=call.api.uuid_of("VM", vm), clean=clean, timeout=CLEAN_TIMEOUT)
    await call.api.bus.call(contract.SHUTDOWN, stop, host=call.api.uuid_of("host", host))
    call.on_failure += vm_state.halted(call.store, vm)
    await epochs.end(call, vm, host)
    await epochs.begin(call, vm, host)
    await _in_place(call, vm, contract.START, contract.VmStart(vm=vm_spec(call.store, vm)), "VM_REBOOTED")


@operation("VM.clean_reboot", Lock("VM", "clean_reboot"))
async def clean_reboot(call: Call, vm: str) -> None:
    await _reboot(call, vm, clean=True)


@operation(
    "VM.hard_reboot",
    Lock(
        "VM",
        "hard_reboot",
        interrupts=frozenset({"clean_shutdown", "clean_reboot", "pool_migrate", "call_plugin", "suspend"}),
    ),
)
async def hard_reboot(call: Call, vm: str) -> None:
    await _reboot(call, vm, clean=False)


@operation("VM.power_state_reset")
async def power_state_reset(call: Call, vm: str) -> None:
    """Declares the VM halted, for when its host is gone. Refused while the host, or the VM itself, is alive."""
    row = existing(call.store, "VM", vm)
    if row["is_control_domain"]:
        raise ApiError("CANNOT_RESET_CONTROL_DOMAIN", vm)
    host = str(row["resident_on"])
    if not is_null(host) and call.store.row("host", host) is not None:
        metrics = call.store.row("host_metrics", call.store.get("host", host, "metrics"))
        if metrics is not None and metrics["live"]:
            request = contract.VmId(vm=row["uuid"])
            state = await call.api.bus.call(contract.QUERY, request, host=call.api.uuid_of("host", host))
            if state.power_state is not contract.PowerState.HALTED:
                raise ApiError("DOMAIN_EXISTS", vm)
    call.on_success += vm_state.halted(call.store, vm)


# ---- questions about placement


@operation("VM.get_possible_hosts")
def get_possible_hosts(call: Call, vm: str) -> list[str]:
    return placing.possible_hosts(call.store, vm, call.api.placement.memory)


@operation("VM.assert_can_boot_here")
def assert_can_boot_here(call: Call, vm: str, host: str) -> None:
    refusal = placing.assert_can_boot_here(call.store, vm, host, call.api.placement.memory)
    if refusal is not None:
        raise refusal


def _alert(call: Call, vm: str, name: str, *, host: Any = None, forcibly: bool = False) -> None:
    """The XenAPI message that tells people; published once the outcome is written."""
    row = existing(call.store, "VM", vm)
    body = vm_messages.body(name, row, host=host, forcibly=forcibly)
    call.alerts.append(alerts.new(name, vm_messages.PRIORITY, "VM", row["uuid"], body))
