"""VMs and appliances from another pool's database, and the SRs that hold it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from services.cli.server.command import Call, Command, command
from services.cli.server.failures import CommandError
from services.cli.server.simple import message
from services.cli.server.xenapi import XenApi


@asynccontextmanager
async def _database(call: Call) -> AsyncIterator[XenApi]:
    """A session in the database that a disk holds."""
    uuid = call.params.mapping("database").get("vdi-uuid")
    if uuid is None:
        text = "A parameter of the form 'database:vdi-uuid=<uuid>' must be specified to run this command."
        raise CommandError(text)
    vdi = await call.objects.by_uuid("VDI", uuid)
    inside = call.api.within(await call.api.call("VDI.open_database", vdi))
    try:
        yield inside
    finally:
        await inside.logout()


def _assert_can_be_recovered(name: str, cls: str) -> Command:
    async def run(call: Call) -> None:
        async with _database(call) as inside:
            ref = await inside.call(f"{cls}.get_by_uuid", call.params["uuid"])
            await inside.call(f"{cls}.assert_can_be_recovered", ref, call.api.session)

    return command(name, run, "Fails unless the SRs that are needed are here.", required="uuid", optional="database:")


def _recover(name: str, cls: str) -> Command:
    async def run(call: Call) -> None:
        async with _database(call) as inside:
            ref = await inside.call(f"{cls}.get_by_uuid", call.params["uuid"])
            await inside.call(f"{cls}.recover", ref, call.api.session, call.params.flag("force"))

    return command(name, run, "Brings it into this pool.", required="uuid", optional="database: force")


async def _drtask_create(call: Call) -> None:
    params = call.params
    whitelist = [uuid for uuid in params.get("sr-whitelist").split(",") if uuid]
    made = await call.api.call("DR_task.create", params["type"], params.mapping("device-config"), whitelist)
    await call.print_uuid("DR_task", made)


COMMANDS = (
    _assert_can_be_recovered("vm-assert-can-be-recovered", "VM"),
    _assert_can_be_recovered("appliance-assert-can-be-recovered", "VM_appliance"),
    _recover("vm-recover", "VM"),
    _recover("appliance-recover", "VM_appliance"),
    command(
        "drtask-create",
        _drtask_create,
        "Introduces the SRs on a device that hold other pools' databases.",
        required="type",
        optional="device-config: sr-whitelist",
    ),
    message("drtask-destroy", "DR_task.destroy", "uuid"),
)
