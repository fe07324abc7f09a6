"""Hosts: their certificates, licences, screens, agents, and looking into them."""

from __future__ import annotations

from services.cli.commands.hosts import plugin_arguments
from services.cli.commands.prompts import FORCE_NEEDED
from services.cli.commands.storage import coordinator, loaded
from services.cli.protocol import Print, PrintStderr
from services.cli.server.command import HOST, Call, command
from services.cli.server.failures import CommandError, Leave
from services.cli.server.objects import Row
from services.cli.server.selectors import on_each, one
from services.cli.server.simple import message
from shared.errors import ApiError

EMERGENCY = "local_session Neverforward"


async def _host_or_coordinator(call: Call, name: str = "host-uuid") -> str:
    return await call.optional_ref(name, "host") or await coordinator(call)


# ---- certificates


async def _certificate_install(call: Call) -> None:
    params = call.params
    certificate = await loaded(call, params["certificate"])
    key = await loaded(call, params["private-key"])
    chain = await loaded(call, params["certificate-chain"]) if "certificate-chain" in params else ""

    async def install(host: Row) -> None:
        await call.api.call("host.install_server_certificate", host.ref, certificate, key, chain)

    await on_each(call, install)


# ---- licences and editions


async def server_settings(call: Call, cls: str, ref: str) -> None:
    """The licence server, if one is given, before the edition is applied."""
    for parameter, key in (("license-server-address", "address"), ("license-server-port", "port")):
        if parameter in call.params:
            await call.api.call(f"{cls}.remove_from_license_server", ref, key)
            await call.api.call(f"{cls}.add_to_license_server", ref, key, call.params[parameter])


async def _all_editions(call: Call) -> None:
    record = await call.objects.record("host", await coordinator(call))
    await call.printer.items(list(record["editions"]) if record is not None else [])


async def _apply_edition(call: Call) -> None:
    host = await _host_or_coordinator(call)
    await server_settings(call, "host", host)
    await call.api.call("host.apply_edition", host, call.params["edition"], False)


async def _license_add(call: Call) -> None:
    host = await _host_or_coordinator(call)
    await call.api.call("host.license_add", host, await loaded(call, call.params["license-file"]))


async def _license_remove(call: Call) -> None:
    await call.api.call("host.license_remove", await _host_or_coordinator(call))


async def _license_view(call: Call) -> None:
    found = await call.api.call("host.get_license_params", await _host_or_coordinator(call))
    await call.printer.table([[(key, str(value)) for key, value in found.items() if key != "sku_type"]])


# ---- looking in


async def _cpu_info(call: Call) -> None:
    found = await call.api.call("host.get_cpu_info", await _host_or_coordinator(call, "uuid"))
    await call.printer.table([[(key, str(value)) for key, value in found.items()]])


async def _cpu_features(call: Call) -> None:
    found = await call.api.call("host.get_cpu_info", await _host_or_coordinator(call, "uuid"))
    await call.printer.items([str(found.get("features", ""))])


async def _timing_stats(call: Call) -> None:
    """A record for each host, by message; what went wrong under `Error`."""
    records = []
    for ref, host in (await call.objects.all("host")).items():
        lines = [("host-uuid", str(host["uuid"])), ("host-name-label", str(host["name_label"]))]
        try:
            lines += sorted((await call.api.call("host.get_diagnostic_timing_stats", ref, True)).items())
        except ApiError as error:
            lines.append(("Error", str(error)))
        records.append(lines)
    await call.printer.table(records)


async def _call_host_plugin(call: Call) -> None:
    vm, params = await call.ref("vm-uuid", "VM"), call.params
    arguments = await plugin_arguments(call)
    answer = await call.api.call("VM.call_host_plugin", vm, params["plugin"], params["fn"], arguments)
    await call.printer.items([str(answer)])


async def _bugreport_upload(call: Call) -> None:
    options = {name: call.params[name] for name in ("http_proxy",) if name in call.params}

    async def upload(host: Row) -> None:
        await call.api.call("host.bugreport_upload", host.ref, call.params.get("url"), options)

    await on_each(call, upload)


async def _crashdump_upload(call: Call) -> None:
    options = {name: call.params[name] for name in ("http_proxy",) if name in call.params}
    crash = await call.ref("uuid", "host_crashdump")
    await call.api.call("host_crashdump.upload", crash, call.params.get("url"), options)


async def _apply_updates(call: Call) -> None:
    host = await one(call, HOST)
    for warning in await call.api.call("host.apply_updates", host.ref, call.params["hash"]):
        await call.printer.message("; ".join(warning))


async def _healthcheck(call: Call) -> None:
    """Exits with 2 when the answer is no, with 3 without an answer."""
    try:
        healthy = await call.api.call("host.ha_xapi_healthcheck")
    except ApiError as error:
        await call.terminal.send(PrintStderr(f"The health check failed: {error}\n"))
        raise Leave(3) from error
    if not healthy:
        await call.terminal.send(PrintStderr("The toolstack of this host does not work\n"))
        raise Leave(2)
    await call.terminal.send(Print("xapi is healthy."))


# ---- waking and naming


async def _power_on_mode(call: Call) -> None:
    """`power-on-config:<key>=<value>` are the settings."""

    async def choose(host: Row) -> None:
        config = call.params.mapping("power-on-config")
        await call.api.call("host.set_power_on_mode", host.ref, call.params["power-on-mode"], config)

    await on_each(call, choose)


async def _prepare(call: Call) -> None:
    """Of the host that the session is on."""
    host = await call.api.call("session.get_this_host", call.api.session)
    await call.api.call("host.prepare_for_poweroff", host)


async def _emergency_ha_disable(call: Call) -> None:
    """`--force` says that the danger is known; there is nothing more to it."""
    if not call.params.flag("force"):
        raise CommandError(FORCE_NEEDED)
    await call.api.call("host.emergency_ha_disable", call.params.flag("soft"))


COMMANDS = (
    command(
        "host-server-certificate-install",
        _certificate_install,
        "Installs a certificate, its key and its chain, from files.",
        required="certificate private-key",
        optional="certificate-chain",
        flags="With_fd",
        selector=HOST,
    ),
    message("host-reset-server-certificate", "host.reset_server_certificate", selector=HOST),
    message("host-emergency-reset-server-certificate", "host.emergency_reset_server_certificate", flags=EMERGENCY),
    message("host-emergency-disable-tls-verification", "host.emergency_disable_tls_verification", flags=EMERGENCY),
    message("host-emergency-reenable-tls-verification", "host.emergency_reenable_tls_verification", flags=EMERGENCY),
    message("host-emergency-clear-mandatory-guidance", "host.emergency_clear_mandatory_guidance", flags=EMERGENCY),
    command(
        "host-emergency-ha-disable",
        _emergency_ha_disable,
        "Stops HA on this host; it may run VMs twice.",
        optional="force soft",
        flags=EMERGENCY,
    ),
    message("host-refresh-server-certificate", "host.refresh_server_certificate", selector=HOST, required="host"),
    message(
        "host-set-hostname-live",
        "host.set_hostname_live",
        "host-name",
        selector=HOST,
        required="host-uuid host-name",
    ),
    command("host-all-editions", _all_editions, "Lists the editions that there are."),
    command(
        "host-apply-edition",
        _apply_edition,
        "Has a host run an edition, with a licence from that server.",
        required="edition",
        optional="host-uuid license-server-address license-server-port",
    ),
    command(
        "host-license-add",
        _license_add,
        "Gives a host a licence, from a file.",
        required="license-file",
        optional="host-uuid",
        flags="With_fd",
    ),
    command("host-license-remove", _license_remove, "Takes a host's licence away.", optional="host-uuid"),
    command("host-license-view", _license_view, "What a host's licence says.", optional="host-uuid"),
    command("host-cpu-info", _cpu_info, "What a host's CPUs are.", optional="uuid"),
    command("host-get-cpu-features", _cpu_features, "What a host's CPUs can do.", optional="uuid"),
    command("diagnostic-timing-stats", _timing_stats, "How long the calls of each host took."),
    command(
        "host-bugreport-upload",
        _bugreport_upload,
        "Sends a status report of hosts to a URL.",
        optional="url http_proxy",
        selector=HOST,
    ),
    command(
        "host-set-power-on-mode",
        _power_on_mode,
        "Chooses how hosts are powered on remotely.",
        required="power-on-mode",
        optional="power-on-config",
        selector=HOST,
    ),
    command(
        "vm-call-host-plugin",
        _call_host_plugin,
        "Calls a plugin on the host of a VM; args:<key>:file=<path> sends a file.",
        required="vm-uuid plugin fn",
        optional="args:",
        flags="With_fd",
    ),
    message("host-enable-display", "host.enable_display", "uuid"),
    message("host-disable-display", "host.disable_display", "uuid"),
    message("host-disable-local-storage-caching", "host.disable_local_storage_caching", selector=HOST),
    message("host-enable-local-storage-caching", "host.enable_local_storage_caching", "sr-uuid", selector=HOST),
    message("host-get-sm-diagnostics", "host.get_sm_diagnostics", "uuid"),
    message("host-get-thread-diagnostics", "host.get_thread_diagnostics", "uuid"),
    message("host-sm-dp-destroy", "host.sm_dp_destroy", "uuid", "dp", ("allow-leak", False)),
    message(
        "host-get-system-status-capabilities",
        "host.get_system_status_capabilities",
        flags=EMERGENCY,
        selector=HOST,
    ),
    command("host-prepare-for-poweroff", _prepare, "Stops VMs and lets go of storage.", flags="Hidden"),
    message("host-refresh-pack-info", "host.refresh_pack_info", "host-uuid", flags="Hidden"),
    message(
        "host-retrieve-wlb-evacuate-recommendations",
        "host.retrieve_wlb_evacuate_recommendations",
        "uuid",
        flags="Hidden",
    ),
    message("host-send-debug-keys", "host.send_debug_keys", "host-uuid", "keys", flags="local_session"),
    command("host-apply-updates", _apply_updates, "Has a host run the updates.", required="hash", selector=HOST),
    command(
        "host-crashdump-upload",
        _crashdump_upload,
        "Sends what is left of a host's crash to a URL.",
        required="uuid",
        optional="url http_proxy",
    ),
    message("host-emergency-management-reconfigure", "host.local_management_reconfigure", "interface", flags=EMERGENCY),
    message("host-management-disable", "host.management_disable", flags=EMERGENCY),
    message("host-notify", "host.notify", "type", ("params", ""), flags=f"{EMERGENCY} Hidden"),
    message("host-signal-networking-change", "host.signal_networking_change", flags=f"{EMERGENCY} Hidden"),
    message("host-update-firewalld-service-status", "host.update_firewalld_service_status", flags=EMERGENCY),
    command(
        "host-ha-xapi-healthcheck",
        _healthcheck,
        "Whether the toolstack of this host works.",
        flags=f"With_fd {EMERGENCY} Hidden",
    ),
)
