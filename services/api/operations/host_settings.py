"""Messages of class host that change settings of it."""

from __future__ import annotations

import re
from typing import Any, Final

from services.api.call import Call
from services.api.decisions.liveness import require_live
from services.api.decisions.rows import existing
from services.api.on_hosts import on_host
from services.api.operation import operation
from services.api.subcalls import perform
from shared.bus.interface import HostOffline
from shared.contracts.db import Update
from shared.contracts.host import HTTPS_ONLY, MAX_CSTATE, SET_HOST_NAME, Flag, Name, Text
from shared.errors import ApiError

_HOST_NAME: Final = re.compile(r"(?!-)[A-Za-z0-9.-]+(?<!-)")
LONGEST_NAME: Final = 255


async def _set(call: Call, host: str, key: str, text: str, **fields: Any) -> None:
    """The field, and the key of `other_config` that storage plug-ins look at."""
    row = existing(call.store, "host", host)
    fields["other_config"] = {**row["other_config"], key: text}
    await call.transact([Update(cls="host", ref=host, fields=fields)])


@operation("host.set_iscsi_iqn", forwarded=True)
async def set_iscsi_iqn(call: Call, host: str, value: str) -> None:
    if not value:
        raise ApiError("INVALID_VALUE", "value", value)
    await _set(call, host, "iscsi_iqn", value, iscsi_iqn=value)


@operation("host.set_multipathing", forwarded=True)
async def set_multipathing(call: Call, host: str, value: bool) -> None:
    await _set(call, host, "multipathing", str(value).lower(), multipathing=value)


@operation("host.get_sched_gran", forwarded=True)
def get_sched_gran(call: Call, self: str) -> str:
    """The host's own scheduler works CPU by CPU."""
    existing(call.store, "host", self)
    return "cpu"


@operation("host.set_sched_gran", forwarded=True)
def set_sched_gran(call: Call, self: str, value: str) -> None:
    existing(call.store, "host", self)
    raise ApiError("OPERATION_NOT_ALLOWED", "The scheduler's granularity cannot be changed on this host.")


# ---- how clients reach it


@operation("host.set_https_only", forwarded=True)
async def set_https_only(call: Call, self: str, value: bool) -> None:
    """Its port for plain HTTP is closed or opened before the row says so."""
    before = existing(call.store, "host", self)["https_only"]

    async def undo() -> None:
        await on_host(call, self, HTTPS_ONLY, Flag(value=before))

    call.undo.append(undo)
    try:
        await on_host(call, self, HTTPS_ONLY, Flag(value=value))
    except HostOffline:
        call.undo.remove(undo)  # it was not asked, and a host that starts looks at its row
        raise
    call.on_success.append(Update(cls="host", ref=self, fields={"https_only": value}))


@operation("pool.set_https_only")
async def set_pool_https_only(call: Call, self: str, value: bool) -> None:
    """On every host; none is changed when one is away."""
    existing(call.store, "pool", self)
    hosts = list(call.store.rows("host"))
    for host in hosts:
        require_live(call.store, host)
    for host in hosts:
        await perform(call, "host.set_https_only", host, value)


@operation("host.set_ssl_legacy")
async def set_ssl_legacy(call: Call, self: str, value: bool) -> None:
    """Nothing older than TLS 1.2 is spoken, whatever the row said."""
    if value:
        raise ApiError("VALUE_NOT_SUPPORTED", "value", "true", "Legacy SSL support has been removed")
    existing(call.store, "host", self)
    await call.transact([Update(cls="host", ref=self, fields={"ssl_legacy": False})])


@operation("pool.disable_ssl_legacy")
async def disable_ssl_legacy(call: Call, self: str) -> None:
    existing(call.store, "pool", self)
    off = {"ssl_legacy": False}
    await call.transact([Update(cls="host", ref=host, fields=off) for host in call.store.rows("host")])


@operation("host.set_hostname_live", forwarded=True)
async def set_hostname_live(call: Call, host: str, hostname: str) -> None:
    existing(call.store, "host", host)
    if not hostname:
        raise ApiError("HOST_NAME_INVALID", "hostname empty")
    if len(hostname) > LONGEST_NAME:
        raise ApiError("HOST_NAME_INVALID", "hostname is too long")
    if not _HOST_NAME.fullmatch(hostname):
        raise ApiError("HOST_NAME_INVALID", "hostname contains invalid characters")
    await on_host(call, host, SET_HOST_NAME, Name(name=hostname))
    call.on_success.append(Update(cls="host", ref=host, fields={"hostname": hostname}))


@operation("host.get_tracked_user_agents", forwarded=True)
def get_tracked_user_agents(call: Call, self: str) -> dict[str, str]:
    """Programs that have logged in lately, with their versions: to the coordinator, nobody logs in elsewhere."""
    return call.api.clients.versions() if self == call.api.host_ref else {}


# ---- its hardware


_CSTATE: Final = re.compile(r"\d+(,\d+)?")
DEEPEST: Final = 1


@operation("host.set_max_cstate", forwarded=True)
async def set_max_cstate(call: Call, self: str, value: str) -> None:
    """`value`: `0` or `1`, or one of them and a sub-state (`1,2`); empty for no limit."""
    if value and not _CSTATE.fullmatch(value):
        raise ApiError("INVALID_VALUE", "max_cstate", value)
    if value and int(value.partition(",")[0]) > DEEPEST:
        raise ApiError("VALUE_NOT_SUPPORTED", "max_cstate", value, "CPUs cannot be kept in deeper states than C1.")
    await on_host(call, self, MAX_CSTATE, Text(text=value))
    call.on_success.append(Update(cls="host", ref=self, fields={"max_cstate": value}))


@operation("host.set_numa_affinity_policy", forwarded=True)
async def set_numa_affinity_policy(call: Call, self: str, value: str) -> None:
    """The kernel places memory where it likes (`any`, which is the default); to keep VMs on few nodes is not built."""
    existing(call.store, "host", self)
    if value == "best_effort":
        raise ApiError("NOT_IMPLEMENTED", f"{call.message.wire_name} best_effort")
    await call.transact([Update(cls="host", ref=self, fields={"numa_affinity_policy": value})])


@operation("host.enable_display", forwarded=True)
def enable_display(call: Call, host: str) -> str:
    """What the screen shows follows at the next boot of the machine, whose boot loader is not managed."""
    return _display(call, host, "enabled")


@operation("host.disable_display", forwarded=True, built=False)
def disable_display(call: Call, host: str) -> str:
    return _display(call, host, "disabled")


def _display(call: Call, host: str, wanted: str) -> str:
    if existing(call.store, "host", host)["display"] != wanted:
        raise ApiError("NOT_IMPLEMENTED", call.message.wire_name)
    return wanted


@operation("host.set_uefi_certificates", built=False)
def set_uefi_certificates(call: Call, host: str, value: str) -> None:
    raise ApiError("OPERATION_NOT_ALLOWED", "Secure boot certificates are the pool's, not a host's.")


@operation("host.emergency_clear_mandatory_guidance")
async def emergency_clear_mandatory_guidance(call: Call) -> None:
    """Of the host that is asked. It can be enabled without what its updates ask for."""
    ref = call.store.ref_of_uuid("host", call.caller.host) or ""
    existing(call.store, "host", ref)
    await call.transact([Update(cls="host", ref=ref, fields={"pending_guidances": []})])
