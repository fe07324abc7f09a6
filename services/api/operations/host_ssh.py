"""Messages about the shells of hosts. The rows say what is so: nothing is written that the machine does not do.

A host's SSH server belongs to the toolstack only where the owner has said so (option `manage_host`).
"""

from __future__ import annotations

import time
from typing import Any, Final

from services.api import clock
from services.api.call import Call
from services.api.decisions.rows import existing
from services.api.on_hosts import on_host
from services.api.operation import operation
from services.api.subcalls import perform
from shared.bus.contract import Empty
from shared.contracts.db import Update
from shared.contracts.host import MANAGED, SHELL_TIMEOUT, SSH, Flag, Seconds
from shared.errors import ApiError

LONGEST: Final = 172_800
"""Seconds for which SSH can be opened."""


async def _switch(call: Call, host: str, on: bool, refused: str) -> None:
    """Raises `refused` [host] when the machine does not follow."""
    try:
        await on_host(call, host, SSH, Flag(value=on))
    except ApiError as error:
        if error.code not in ("OPERATION_NOT_ALLOWED", "INTERNAL_ERROR"):
            raise
        raise ApiError(refused, host) from error


def _expiry(timeout: int) -> str:
    return clock.stamp(time.time() + timeout) if timeout else clock.EPOCH


@operation("host.enable_ssh", forwarded=True)
async def enable_ssh(call: Call, self: str) -> None:
    """For as long as its timeout says. Ends the automatic mode."""
    timeout = existing(call.store, "host", self)["ssh_enabled_timeout"]
    await _switch(call, self, True, "ENABLE_SSH_FAILED")
    fields = {"ssh_enabled": True, "ssh_auto_mode": False, "ssh_expiry": _expiry(timeout)}
    call.on_success.append(Update(cls="host", ref=self, fields=fields))


@operation("host.disable_ssh", forwarded=True)
async def disable_ssh(call: Call, self: str) -> None:
    existing(call.store, "host", self)
    await _switch(call, self, False, "DISABLE_SSH_FAILED")
    fields = {"ssh_enabled": False, "ssh_expiry": clock.EPOCH}
    call.on_success.append(Update(cls="host", ref=self, fields=fields))


@operation("host.set_ssh_enabled_timeout", forwarded=True)
async def set_ssh_enabled_timeout(call: Call, self: str, value: int) -> None:
    """Counts from now when SSH is open. 0: it is closed by whoever calls `disable_ssh`."""
    row = existing(call.store, "host", self)
    if not 0 <= value <= LONGEST:
        raise ApiError("INVALID_VALUE", "ssh_enabled_timeout", value)
    if value:
        await on_host(call, self, MANAGED, Empty())
    expiry = _expiry(value) if row["ssh_enabled"] else clock.EPOCH
    fields = {"ssh_enabled_timeout": value, "ssh_expiry": expiry}
    call.on_success.append(Update(cls="host", ref=self, fields=fields))


@operation("host.set_console_idle_timeout", forwarded=True)
async def set_console_idle_timeout(call: Call, self: str, value: int) -> None:
    if value < 0:
        raise ApiError("INVALID_VALUE", "console_timeout", value)
    if existing(call.store, "host", self)["console_idle_timeout"] == value:
        return
    await on_host(call, self, SHELL_TIMEOUT, Seconds(seconds=value))
    call.on_success.append(Update(cls="host", ref=self, fields={"console_idle_timeout": value}))


@operation("host.set_ssh_auto_mode", forwarded=True)
def set_ssh_auto_mode(call: Call, self: str, value: bool) -> None:
    """Opening SSH when the toolstack is down takes something beside the toolstack, which does not exist."""
    if existing(call.store, "host", self)["ssh_auto_mode"] != value:
        raise ApiError("NOT_IMPLEMENTED", call.message.wire_name)


# ---- on every host of the pool


def _everywhere(name: str, partially_failed: str) -> None:
    @operation(f"pool.{name}")
    async def everywhere(call: Call, self: str, *value: Any) -> None:
        """Tried on each host. Raises <partially_failed> [hosts], or what they all say about the value."""
        existing(call.store, "pool", self)
        failed: list[str] = []
        for host in call.store.rows("host"):
            try:
                await perform(call, f"host.{name}", host, *value)
            except ApiError as error:
                if error.code in ("INVALID_VALUE", "NOT_IMPLEMENTED"):
                    raise
                failed.append(host)
        if failed:
            raise ApiError(partially_failed, ",".join(failed))


for _name, _code in (
    ("enable_ssh", "ENABLE_SSH_PARTIALLY_FAILED"),
    ("disable_ssh", "DISABLE_SSH_PARTIALLY_FAILED"),
    ("set_ssh_enabled_timeout", "SET_SSH_TIMEOUT_PARTIALLY_FAILED"),
    ("set_console_idle_timeout", "SET_CONSOLE_TIMEOUT_PARTIALLY_FAILED"),
    ("set_ssh_auto_mode", "SET_SSH_AUTO_MODE_PARTIALLY_FAILED"),
):
    _everywhere(_name, _code)
