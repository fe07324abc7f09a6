"""The pool as a whole; tasks, messages, events, consoles, users."""

from __future__ import annotations

from services.cli.commands.vm_lifecycle import WITH_CONTROL_DOMAINS
from services.cli.protocol import HttpConnect, Print
from services.cli.records import RECORDS
from services.cli.server.command import Call, Selector, command
from services.cli.server.downloads import download
from services.cli.server.failures import CommandError, Leave
from services.cli.server.help import show_help
from services.cli.server.objects import Objects, Row
from services.cli.server.query import rows, text
from services.cli.server.record import RecordClass
from services.cli.server.selectors import one
from services.cli.server.simple import create, message
from shared.datamodel.types import NULL_REF

# ---- messages

_SUBJECTS = (("vm-uuid", "VM"), ("pool-uuid", "Pool"), ("sr-uuid", "SR"), ("host-uuid", "Host"))
"""Whom a new message can be about, by priority."""


async def _message_create(call: Call) -> None:
    params = call.params
    try:
        priority = int(params["priority"])
    except ValueError as error:
        raise CommandError("Priority field should be an integer") from error
    for name, cls in _SUBJECTS:
        if name in params:
            await call.api.call("message.create", params["name"], priority, cls, params[name], params["body"])
            return
    raise CommandError("Need one of: vm-uuid, host-uuid, sr-uuid or pool-uuid")


async def _message_destroy(call: Call) -> None:
    params = call.params
    if ("uuid" in params) == ("uuids" in params):
        raise CommandError("Give either uuid or uuids")
    uuids = [params["uuid"]] if "uuid" in params else [uuid for uuid in params["uuids"].split(",") if uuid]
    await call.api.call("message.destroy_many", [await call.objects.by_uuid("message", uuid) for uuid in uuids])


async def _message_destroy_all(call: Call) -> None:
    filters = {name: call.params[name] for name in ("before", "after", "priority") if name in call.params}
    await call.api.call("message.destroy_all", filters)


# ---- events

_WAITABLE = ("vm", "vdi", "sr", "host", "network", "vif", "pif", "vbd", "pbd", "pool", "task", "vmss", "secret")
_LISTED = (*_WAITABLE, "subject", "role")
"""Classes that `event-wait` knows; the last two have no events, so only their present state counts."""
_NOT = "/="
_WAIT = 30.0


async def _event_wait(call: Call) -> None:
    """Waits until some object has all the given values; `field=/=value` wants another value."""
    name = call.params["class"]
    if name not in _LISTED:
        raise CommandError(f"Cli listening for class '{name}' not currently implemented")
    records = RECORDS[name]
    wanted = call.params.besides(("class",))
    for row in await rows(call.objects, records, []):
        if await _matches(records, row, wanted):
            return
    if name not in _WAITABLE:
        raise CommandError(f"No {name} is like that, and there are no events to wait for")
    token = ""
    while True:
        answer = await call.api.call("event.from", [records.cls.lower()], token, _WAIT)
        token = answer["token"]
        objects = Objects(call.api)
        for event in answer["events"]:
            if event["operation"] == "del":
                continue
            if await _matches(records, Row(objects, records.cls, event["ref"], event["snapshot"]), wanted):
                return


async def _matches(records: RecordClass, row: Row, wanted: list[tuple[str, str]]) -> bool:
    for key, value in wanted:
        field = records.fields.get(key)
        if field is None:
            raise CommandError(f"key missing: {key}")
        shown = await text(field, row)
        if shown == value[len(_NOT) :] if value.startswith(_NOT) else shown != value:
            return False
    return True


# ---- consoles


async def _console(call: Call) -> None:
    vm = await one(call, Selector("vm", control_domains=True, many=False))
    for ref in vm.record["consoles"]:
        console = await call.objects.record("console", ref)
        if console is not None and console["protocol"] == "vt100":
            break
    else:
        raise CommandError(f"The VM {vm.name} has no text console now")
    location = str(console["location"])
    url = f"{location}{'&' if '?' in location else '?'}session_id={call.api.session}"
    await call.terminal.send(Print(f"Connecting to the console of the VM {vm.name}. Leave with Ctrl-]."))
    if not await call.terminal.transfer(HttpConnect(url)):
        raise Leave(1)


# ---- pool


async def _pool_join(call: Call) -> None:
    params = call.params
    method = "pool.join_force" if params.flag("force") else "pool.join"
    await call.api.call(method, params["master-address"], params["master-username"], params["master-password"])
    await call.printer.items(["Host agent will restart and attempt to join pool in 10.000 seconds..."])


_SOON = "in 10.000 seconds..."
"""What scripts read; it takes less."""


async def _emergency_transition_to_master(call: Call) -> None:
    if not call.params.flag("force") and not await call.api.call("pool.is_slave", NULL_REF):
        already = "Host agent is already master. Use '--force' to execute the operation anyway."
        await call.printer.items([already])
        return
    await call.api.call("pool.emergency_transition_to_master")
    await call.printer.items([f"Host agent will restart and transition to master {_SOON}"])


async def _emergency_reset_master(call: Call) -> None:
    address = call.params["master-address"]
    await call.api.call("pool.emergency_reset_master", address)
    await call.printer.items([f"Host agent will restart and become slave of {address} {_SOON}"])


async def _user_password_change(call: Call) -> None:
    await call.api.call("session.change_password", call.params.get("old"), call.params["new"])


# ---- appliances


async def _appliance_start(call: Call) -> None:
    paused = call.params.flag("paused")
    await call.api.call("VM_appliance.start", await call.ref("uuid", "VM_appliance"), paused)


async def _appliance_shutdown(call: Call) -> None:
    method = "VM_appliance.hard_shutdown" if call.params.flag("force") else "VM_appliance.clean_shutdown"
    await call.api.call(method, await call.ref("uuid", "VM_appliance"))


async def _audit_log_get(call: Call) -> None:
    query = {"since": call.params["since"]} if "since" in call.params else {}
    await download(call, "Audit-log-get", "/audit_log", query, call.params["filename"])


COMMANDS = (
    command("help", show_help, "Lists commands, or explains those given.", flags="Neverforward"),
    command(
        "message-create",
        _message_create,
        "Makes a message about an object.",
        required="name priority body",
        optional="vm-uuid host-uuid sr-uuid pool-uuid",
    ),
    command("message-destroy", _message_destroy, "Removes messages: uuid=, or uuids=a,b.", optional="uuid uuids"),
    command(
        "message-destroy-all",
        _message_destroy_all,
        "Removes all messages, or those before= or after= a time, or of a priority.",
        optional="before after priority",
    ),
    command(
        "event-wait",
        _event_wait,
        "Waits until an object of a class has the given values; <field>=/=<value> waits for any other.",
        required="class",
    ),
    command(
        "console",
        _console,
        "Opens the text console of a VM in this terminal.",
        flags="With_fd",
        selector=WITH_CONTROL_DOMAINS,
    ),
    message("task-cancel", "task.cancel", "uuid"),
    command("user-password-change", _user_password_change, "Changes the password.", required="new", optional="old"),
    command(
        "pool-join",
        _pool_join,
        "Makes this host a member of another pool.",
        required="master-address master-username master-password",
        optional="force",
    ),
    command(
        "audit-log-get",
        _audit_log_get,
        "Writes the pool's audit log to a file, all of it or from the time since= on.",
        required="filename",
        optional="since",
        flags="With_fd",
    ),
    message("pool-sync-database", "pool.sync_database"),
    message("pool-designate-new-master", "pool.designate_new_master", "host-uuid"),
    message("pool-recover-slaves", "pool.recover_slaves"),
    message("pool-management-reconfigure", "pool.management_reconfigure", "network-uuid"),
    message("pool-enable-redo-log", "pool.enable_redo_log", "sr-uuid"),
    message("pool-disable-redo-log", "pool.disable_redo_log"),
    message("pool-ha-enable", "pool.enable_ha", ("heartbeat-sr-uuids", []), ("ha-config:", {})),
    message("pool-ha-disable", "pool.disable_ha"),
    message("pool-ha-prevent-restarts-for", "pool.ha_prevent_restarts_for", "seconds", flags="Hidden"),
    message("pool-ha-compute-max-host-failures-to-tolerate", "pool.ha_compute_max_host_failures_to_tolerate"),
    command(
        "pool-emergency-reset-master",
        _emergency_reset_master,
        "Tells this member where its coordinator is now.",
        required="master-address",
        flags="local_session Neverforward",
    ),
    command(
        "pool-emergency-transition-to-master",
        _emergency_transition_to_master,
        "Makes this member the coordinator, when the old one is lost.",
        optional="force",
        flags="local_session Neverforward",
    ),
    message(
        "pool-vlan-create",
        "pool.create_VLAN_from_PIF",
        "pif-uuid",
        "network-uuid",
        "vlan",
        required="pif-uuid vlan network-uuid",
    ),
    create("secret-create", "secret", {"value": "value"}, other_config={}),
    message("secret-destroy", "secret.destroy", "uuid"),
    create(
        "appliance-create",
        "VM_appliance",
        {"name_label": "name-label", "name_description": ("name-description", "")},
    ),
    message("appliance-destroy", "VM_appliance.destroy", "uuid"),
    command("appliance-start", _appliance_start, "Starts the VMs of an appliance.", required="uuid", optional="paused"),
    command(
        "appliance-shutdown",
        _appliance_shutdown,
        "Shuts the VMs of an appliance down; --force: hard.",
        required="uuid",
        optional="force",
    ),
    create(
        "vmss-create",
        "VMSS",
        {
            "name_label": "name-label",
            "type": "type",
            "frequency": "frequency",
            "name_description": ("name-description", ""),
            "enabled": ("enabled", True),
            "schedule": ("schedule:", {}),
            "retained_snapshots": ("retained-snapshots", 7),
        },
    ),
    message("vmss-destroy", "VMSS.destroy", "uuid"),
    create(
        "vm-group-create",
        "VM_group",
        {"name_label": "name-label", "placement": "placement", "name_description": ("name-description", "")},
    ),
    message("vm-group-destroy", "VM_group.destroy", "uuid"),
)
