"""Hosts."""

from __future__ import annotations

from services.cli.commands.prompts import confirmed
from services.cli.commands.storage import loaded
from services.cli.protocol import Print
from services.cli.server.command import HOST, Call, command
from services.cli.server.objects import Row
from services.cli.server.selectors import on_each
from services.cli.server.simple import message

_FILE = ":file"


async def _enable(call: Call) -> None:
    async def enable(host: Row) -> None:
        if "MAINTENANCE_MODE" in host.record["other_config"]:
            await call.api.call("host.remove_from_other_config", host.ref, "MAINTENANCE_MODE")
        await call.api.call("host.enable", host.ref)

    await on_each(call, enable)


async def _forget(call: Call) -> None:
    host = await call.ref("uuid", "host")
    await call.terminal.send(Print("WARNING: A host should only be forgotten if it is lost for good."))
    if call.params.flag("force") or await confirmed(call):
        await call.api.call("host.destroy", host)


async def _declare_dead(call: Call) -> None:
    host = await call.ref("uuid", "host")
    await call.terminal.send(
        Print("WARNING: If this host still runs, its VMs may be started a second time and their disks destroyed.")
    )
    if call.params.flag("force") or await confirmed(call):
        await call.api.call("host.declare_dead", host)


async def plugin_arguments(call: Call) -> dict[str, str]:
    """`args:`; the value of `args:<key>:file=` is the content of that file."""
    arguments: dict[str, str] = {}
    for key, value in call.params.mapping("args").items():
        if key.endswith(_FILE):
            arguments[key.removesuffix(_FILE)] = await loaded(call, value)
        else:
            arguments[key] = value
    return arguments


async def _call_plugin(call: Call) -> None:
    host = await call.ref("host-uuid", "host")
    arguments = await plugin_arguments(call)
    answer = await call.api.call("host.call_plugin", host, call.params["plugin"], call.params["fn"], arguments)
    await call.printer.items([str(answer)])


async def _vms_which_prevent_evacuation(call: Call) -> None:
    host = await call.ref("uuid", "host")
    found = await call.api.call("host.get_vms_which_prevent_evacuation", host)
    rows = []
    for vm, reason in found.items():
        rows.append((await call.objects.uuid("VM", vm) or vm, ",".join(reason)))
    await call.printer.table([rows] if rows else [])


COMMANDS = (
    command("host-enable", _enable, "Lets VMs start on hosts again.", selector=HOST),
    message("host-disable", "host.disable", ("auto-enable", True), selector=HOST),
    message("host-reboot", "host.reboot", selector=HOST),
    message("host-shutdown", "host.shutdown", selector=HOST),
    message("host-power-on", "host.power_on", selector=HOST),
    message("host-evacuate", "host.evacuate", ("network-uuid", "OpaqueRef:NULL"), ("batch-size", 0), selector=HOST),
    message("host-dmesg", "host.dmesg", selector=HOST),
    message("host-compute-free-memory", "host.compute_free_memory", selector=HOST),
    message("host-compute-memory-overhead", "host.compute_memory_overhead", selector=HOST),
    message("host-data-source-record", "host.record_data_source", "data-source", selector=HOST),
    message("host-data-source-query", "host.query_data_source", "data-source", selector=HOST),
    message("host-data-source-forget", "host.forget_data_source_archives", "data-source", selector=HOST),
    message("host-sync-data", "host.sync_data", selector=HOST),
    message("host-enable-ssh", "host.enable_ssh", selector=HOST),
    message("host-disable-ssh", "host.disable_ssh", selector=HOST),
    message("host-get-server-certificate", "host.get_server_certificate", selector=HOST),
    message("host-syslog-reconfigure", "host.syslog_reconfigure", "host-uuid"),
    message("host-management-reconfigure", "host.management_reconfigure", "pif-uuid"),
    message("host-is-in-emergency-mode", "host.is_in_emergency_mode", flags="local_session Neverforward"),
    message("host-shutdown-agent", "host.shutdown_agent", flags="local_session Neverforward"),
    command("host-forget", _forget, "Removes a dead host from the pool.", required="uuid", flags="With_fd"),
    command(
        "host-declare-dead",
        _declare_dead,
        "Says that a host is dead, so that its VMs may start elsewhere.",
        required="uuid",
        flags="With_fd",
    ),
    command(
        "host-call-plugin",
        _call_plugin,
        "Calls a plugin on a host; args:<key>:file=<path> sends a file.",
        required="host-uuid plugin fn",
        optional="args:",
        flags="With_fd",
    ),
    command(
        "host-get-vms-which-prevent-evacuation",
        _vms_which_prevent_evacuation,
        "Which VMs cannot leave a host, and why.",
        required="uuid",
    ),
)
