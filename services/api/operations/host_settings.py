"""Messages of class host that change settings. What the host itself would have to follow is refused as long as it
cannot.
"""

from __future__ import annotations

import re
from typing import Any, Final

from services.api.call import Call
from services.api.decisions.liveness import require_live
from services.api.decisions.rows import existing
from services.api.operation import operation
from shared.contracts.db import Update
from shared.errors import ApiError

_HOST_NAME: Final = re.compile(r"(?!-)[A-Za-z0-9.-]+(?<!-)")
LONGEST_NAME: Final = 255


async def _set(call: Call, host: str, key: str, text: str, **fields: Any) -> None:
    """The field, and the key of `other_config` that storage plug-ins look at."""
    row = existing(call.store, "host", host)
    fields["other_config"] = {**row["other_config"], key: text}
    await call.transact([Update(cls="host", ref=host, fields=fields)])


@operation("host.set_iscsi_iqn")
async def set_iscsi_iqn(call: Call, host: str, value: str) -> None:
    if not value:
        raise ApiError("INVALID_VALUE", "value", value)
    await _set(call, host, "iscsi_iqn", value, iscsi_iqn=value)


@operation("host.set_multipathing")
async def set_multipathing(call: Call, host: str, value: bool) -> None:
    await _set(call, host, "multipathing", str(value).lower(), multipathing=value)


@operation("host.get_sched_gran")
def get_sched_gran(call: Call, self: str) -> str:
    """The host's own scheduler works CPU by CPU."""
    existing(call.store, "host", self)
    return "cpu"


@operation("host.set_sched_gran")
def set_sched_gran(call: Call, self: str, value: str) -> None:
    existing(call.store, "host", self)
    raise ApiError("OPERATION_NOT_ALLOWED", "The scheduler's granularity cannot be changed on this host.")


@operation("host.set_https_only")
def set_https_only(call: Call, self: str, value: bool) -> None:
    """Plain HTTP is always served."""
    existing(call.store, "host", self)
    if value:
        raise ApiError("NOT_IMPLEMENTED", call.message.wire_name)


@operation("host.set_ssl_legacy")
def set_ssl_legacy(call: Call, self: str, value: bool) -> None:
    existing(call.store, "host", self)
    if value:
        raise ApiError("VALUE_NOT_SUPPORTED", "value", "true", "Legacy SSL support has been removed")


@operation("host.set_hostname_live", built=False)
def set_hostname_live(call: Call, host: str, hostname: str) -> None:
    existing(call.store, "host", host)
    if not hostname:
        raise ApiError("HOST_NAME_INVALID", "hostname empty")
    if len(hostname) > LONGEST_NAME:
        raise ApiError("HOST_NAME_INVALID", "hostname is too long")
    if not _HOST_NAME.fullmatch(hostname):
        raise ApiError("HOST_NAME_INVALID", "hostname contains invalid characters")
    raise ApiError("NOT_IMPLEMENTED", call.message.wire_name)


# ---- plug-ins and extensions: programs on the host, of which there are none


@operation("host.call_plugin", built=False)
def call_plugin(call: Call, host: str, plugin: str, fn: str, args: dict[str, str]) -> str:
    require_live(call.store, host)
    raise ApiError("XENAPI_MISSING_PLUGIN", plugin)


@operation("host.has_extension")
def has_extension(call: Call, host: str, name: str) -> bool:
    require_live(call.store, host)
    return False


@operation("host.call_extension", built=False)
def call_extension(call: Call, host: str, request: str) -> str:
    require_live(call.store, host)
    raise ApiError("NOT_IMPLEMENTED", call.message.wire_name)


@operation("host.get_tracked_user_agents")
def get_tracked_user_agents(call: Call, self: str) -> dict[str, str]:
    """Programs that have logged in lately, with their versions: to the coordinator, nobody logs in elsewhere."""
    require_live(call.store, self)
    return call.api.clients.versions() if self == call.api.host_ref else {}
