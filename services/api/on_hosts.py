"""Asking the API process of a host to do something there, on behalf of a call."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from services.api.call import Call
from services.api.decisions.liveness import is_live, require_live
from shared.bus.contract import Method, Reply, Request
from shared.datamodel.types import RefType


async def on_host(call: Call, host: str, method: Method[Request, Reply], request: Request) -> Reply:
    """`host`: reference. Raises HOST_OFFLINE, for an unknown host too, and what the method raises."""
    require_live(call.store, host)
    return await call.api.bus.call(method, request, host=call.api.uuid_of("host", host))


def named_host(call: Call, arguments: Sequence[Any]) -> str:
    """The host among the arguments of a message that is declared with one."""
    params = zip(call.message.params, arguments, strict=True)
    return next(str(value) for param, value in params if param.type == RefType("host"))


def live_hosts(call: Call) -> list[str]:
    """The coordinator last: what is the same on all hosts is true when the coordinator has it."""
    hosts: Iterable[str] = call.store.rows("host")
    return sorted((host for host in hosts if is_live(call.store, host)), key=lambda host: host == call.api.host_ref)


def called_host(call: Call) -> str:
    """The host whose address or socket the caller used: the one that emergency messages are about."""
    return call.store.ref_of_uuid("host", call.caller.host) or call.api.host_ref
