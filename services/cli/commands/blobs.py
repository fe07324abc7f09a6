"""Binary data that belongs to objects."""

from __future__ import annotations

from typing import Final

from services.cli.protocol import HttpPut, Print
from services.cli.server.command import Call, command
from services.cli.server.downloads import download
from services.cli.server.failures import CommandError
from services.cli.server.transfers import transfer

OWNERS: Final = {
    "vm-uuid": "VM",
    "pool-uuid": "pool",
    "sr-uuid": "SR",
    "host-uuid": "host",
    "network-uuid": "network",
}
"""Parameter to the class of the object that gets the blob; the first that is given counts."""


async def _create(call: Call) -> None:
    params = call.params
    values = params["name"], params.get("mime-type"), params.flag("public")
    for parameter, cls in OWNERS.items():
        if parameter in params:
            blob = await call.api.call(f"{cls}.create_new_blob", await call.ref(parameter, cls), *values)
            await call.print_uuid("blob", blob)
            return
    raise CommandError(f"Need one of: {', '.join(OWNERS)}")


async def _get(call: Call) -> None:
    blob = await call.ref("uuid", "blob")
    await download(call, "Blob get", "/blob", {"ref": blob}, call.params["filename"])


async def _put(call: Call) -> None:
    blob = await call.ref("uuid", "blob")
    await transfer(call, HttpPut, "Blob put", "/blob", {"ref": blob}, call.params["filename"])
    await call.terminal.send(Print("Blob put succeeded"))


COMMANDS = (
    command(
        "blob-create",
        _create,
        "Makes a blob for an object; its content is sent by blob-put.",
        required="name",
        optional="mime-type vm-uuid host-uuid sr-uuid network-uuid pool-uuid public",
        flags="Hidden",
    ),
    command("blob-get", _get, "Writes a blob to a file.", required="uuid filename", flags="With_fd Hidden"),
    command("blob-put", _put, "Fills a blob from a file.", required="uuid filename", flags="With_fd Hidden"),
)
