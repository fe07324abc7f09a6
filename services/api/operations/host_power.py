"""Messages of class host about power: of the machine, and of the API process."""

from __future__ import annotations

from typing import Any

from services.api.call import Call
from services.api.decisions.idle_host import require_idle
from services.api.decisions.rows import existing
from services.api.decisions.sr_everywhere import redo_log_sr
from services.api.on_hosts import on_host
from services.api.operation import Lock, operation
from services.api.operations.host_plugins import plugin
from services.api.subcalls import perform
from shared.bus.contract import Empty
from shared.contracts.db import Update
from shared.contracts.host import POWER_OFF, RESTART, RESTART_DELAY, SHUT_DOWN, PowerOff, Seconds
from shared.errors import ApiError
from shared.store import Store


def _in_use(store: Store, arguments: tuple[Any, ...]) -> ApiError | None:
    try:
        require_idle(store, arguments[0])
    except ApiError as error:
        return error
    return None


def _end(message: str, reboot: bool) -> None:
    @operation(f"host.{message}", Lock("host", message, refuse=_in_use))
    async def end(call: Call, host: str) -> None:
        """Ten seconds after the answer. Only where the toolstack may change the machine."""
        await on_host(call, host, POWER_OFF, PowerOff(reboot=reboot))


_end("shutdown", reboot=False)
_end("reboot", reboot=True)


@operation("host.prepare_for_poweroff", forwarded=True)
async def prepare_for_poweroff(call: Call, host: str) -> None:
    """What a machine that goes down asks for: its VMs end, its storage is let go, but for the SR of the redo log, which
    the database writes to until it ends.
    """
    row = existing(call.store, "host", host)
    await call.transact([Update(cls="host", ref=host, fields={"enabled": False})])
    for vm in row["resident_VMs"]:
        if not existing(call.store, "VM", vm)["is_control_domain"]:
            await perform(call, "VM.shutdown", vm)
    for pbd in existing(call.store, "host", host)["PBDs"]:
        row = existing(call.store, "PBD", pbd)
        if row["currently_attached"] and row["SR"] != redo_log_sr(call.store):
            await perform(call, "PBD.unplug", pbd)


@operation("host.power_on", Lock("host", "power_on"))
async def power_on(call: Call, host: str) -> None:
    """By the plug-in power-on-host, on the coordinator."""
    arguments = {"remote_host_uuid": existing(call.store, "host", host)["uuid"]}
    answer = await plugin(call, call.api.host_ref, "power-on-host", "main", arguments)
    if answer != "True":
        raise ApiError("XENAPI_PLUGIN_FAILURE", "power-on-host", answer, "it did not say True")


@operation("host.set_power_on_mode")
async def set_power_on_mode(call: Call, self: str, power_on_mode: str, power_on_config: dict[str, str]) -> None:
    existing(call.store, "host", self)
    fields = {"power_on_mode": power_on_mode, "power_on_config": power_on_config}
    await call.transact([Update(cls="host", ref=self, fields=fields)])


@operation("host.restart_agent")
async def restart_agent(call: Call, host: str) -> None:
    """The process ends a second after the answer; its supervisor starts it again."""
    await on_host(call, host, RESTART, Seconds(seconds=RESTART_DELAY))


@operation("host.shutdown_agent")
async def shutdown_agent(call: Call) -> None:
    """Of the host that is asked. The process ends, and stays away until the pool or the host is started anew."""
    await call.api.bus.call(SHUT_DOWN, Empty(), host=call.caller.host)
