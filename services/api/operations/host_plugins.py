"""Messages that programs on hosts carry out: plug-ins and extensions."""

from __future__ import annotations

from typing import Any

from services.api import extensions, history_questions
from services.api.call import Call
from services.api.decisions.rows import existing
from services.api.on_hosts import on_host
from services.api.operation import Lock, Policy, operation
from services.api.wire import jsonrpc
from services.api.wire.raw import Malformed
from shared.contracts.host import CALL_PLUGIN, HAS_EXTENSION, Name, PluginCall
from shared.errors import ApiError, internal_error


async def plugin(call: Call, host: str, name: str, function: str, arguments: dict[str, str]) -> str:
    """Raises HOST_OFFLINE, XENAPI_MISSING_PLUGIN, XENAPI_PLUGIN_FAILURE, and what the plug-in says."""
    request = PluginCall(plugin=name, function=function, arguments=arguments, session=call.session)
    return (await on_host(call, host, CALL_PLUGIN, request)).text


@operation("host.call_plugin")
async def call_plugin(call: Call, host: str, name: str, fn: str, args: dict[str, str]) -> str:
    return await plugin(call, host, name, fn, args)


@operation("VM.call_host_plugin", Lock("VM", "call_plugin", policy=Policy.FAIL_IMMEDIATELY))
async def call_host_plugin(call: Call, vm: str, name: str, fn: str, args: dict[str, str]) -> str:
    """On the host that the VM runs on."""
    row = existing(call.store, "VM", vm)
    if row["power_state"] != "Running":
        raise ApiError("VM_BAD_POWER_STATE", vm, "Running", row["power_state"])
    return await plugin(call, row["resident_on"], name, fn, args)


@operation("host.has_extension")
async def has_extension(call: Call, host: str, name: str) -> bool:
    found = await on_host(call, host, HAS_EXTENSION, Name(name=name))
    return found.value or name == history_questions.EXTENSION


@operation("pool.has_extension")
async def pool_has_extension(call: Call, self: str, name: str) -> bool:
    """Whether every host has it."""
    existing(call.store, "pool", self)
    for host in call.store.rows("host"):
        if not await has_extension(call, host, name):
            return False
    return True


@operation("host.call_extension", forwarded=True)
async def call_extension(call: Call, host: str, request: str) -> Any:
    """`request`: a JSON-RPC call, with its session."""
    try:
        inner = jsonrpc.parse(request.encode())
    except (Malformed, jsonrpc.InvalidText) as error:
        raise internal_error(f"the call cannot be parsed: {error}") from None
    uuid = call.api.uuid_of("host", host)
    return await extensions.run(call.api.bus, uuid, inner.method, inner.params)
