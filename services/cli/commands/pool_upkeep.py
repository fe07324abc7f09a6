"""The pool: what its hosts trust, who may reach them, and its servers outside."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import PurePosixPath
from typing import Any

from services.cli.commands.host_upkeep import server_settings
from services.cli.commands.prompts import confirmed
from services.cli.commands.storage import loaded
from services.cli.protocol import Print
from services.cli.server.command import Call, Command, command
from services.cli.server.failures import CommandError
from services.cli.server.simple import message
from services.cli.server.values import parsed, shown
from shared.datamodel import model


async def _pool(call: Call) -> str:
    """The pool that `uuid` names, or the one that there is."""
    return await call.optional_ref("uuid", "pool") or next(iter(await call.objects.all("pool")))


def of_the_pool(name: str, method: str, *required: str, optional: str = "", deprecated: str = "") -> Command:
    """Calls `method` with the pool and the parameters in order; prints the result."""
    declared = model.messages[method]

    async def run(call: Call) -> None:
        types = [param.type for param in declared.params[1:]]
        values = [
            await parsed(type, parameter, call.params[parameter], call.objects)
            for parameter, type in zip(required, types, strict=False)
        ]
        result = await call.api.call(method, await _pool(call), *values)
        text = await shown(declared.result, result, call.objects)
        if isinstance(text, str) and text:
            await call.printer.items([text])

    help_ = " ".join(declared.doc.split())
    return command(name, run, help_, required=" ".join(required), optional=optional, deprecated=deprecated)


def _from_file(name: str, method: str, help: str, deprecated: str = "") -> Command:
    """A file of the client's is installed under its own name."""

    async def run(call: Call) -> None:
        path = call.params["filename"]
        await call.api.call(method, PurePosixPath(path).name, await loaded(call, path))

    return command(name, run, help, required="filename", flags="With_fd", deprecated=deprecated)


async def _install_trusted(call: Call) -> None:
    text = await loaded(call, call.params["filename"])
    purposes = [name for name in call.params.get("purpose").split(",") if name]
    await call.api.call("pool.install_trusted_certificate", await _pool(call), call.params.flag("ca"), text, purposes)


async def _uninstall_trusted(call: Call) -> None:
    certificate = await call.ref("certificate-uuid", "Certificate")
    await call.api.call("pool.uninstall_trusted_certificate", await _pool(call), certificate)


async def _apply_edition(call: Call) -> None:
    for host in await call.objects.all("host"):
        await server_settings(call, "host", host)
    await call.api.call("pool.apply_edition", await _pool(call), call.params["edition"])


async def _cpu_features(call: Call) -> None:
    record = await call.objects.record("pool", await _pool(call))
    features: dict[str, Any] = record["cpu_info"] if record is not None else {}
    await call.printer.items([str(features.get("features", ""))])


async def _repository_proxy(call: Call) -> None:
    values: Sequence[str] = [call.params.get(f"proxy-{name}") for name in ("url", "username", "password")]
    await call.api.call("pool.configure_repository_proxy", await _pool(call), *values)


async def _sync_updates(call: Call) -> None:
    texts = [call.params.get(name) for name in ("token", "token-id", "username", "password")]
    digest = await call.api.call("pool.sync_updates", await _pool(call), call.params.flag("force"), *texts)
    await call.printer.items([str(digest)])


# ---- planning for failures


async def _hypothetical_failures(call: Call) -> None:
    """`vm-uuid` and `restart-priority` are given as often as there are VMs, in the same order."""
    uuids = [value for name, value in call.params if name == "vm-uuid"]
    priorities = [value for name, value in call.params if name == "restart-priority"]
    if len(uuids) != len(priorities):
        raise CommandError("Call requires an equal number of vm-uuid and restart-priority arguments")
    vms = [await call.objects.by_uuid("VM", uuid) for uuid in uuids]
    method = "pool.ha_compute_hypothetical_max_host_failures_to_tolerate"
    found = await call.api.call(method, dict(zip(vms, priorities, strict=True)))
    await call.printer.items([str(found)])


async def _failover_plan(call: Call) -> None:
    """Of the VMs that run on those hosts now."""
    hosts = [await call.objects.by_uuid("host", uuid) for uuid in call.params["host-uuids"].split(",")]
    vms = []
    for host in hosts:
        for vm in await call.api.call("host.get_resident_VMs", host):
            if not await call.api.call("VM.get_is_control_domain", vm):
                vms.append(vm)
    plan = await call.api.call("pool.ha_compute_vm_failover_plan", hosts, vms)
    lines = [("VM", "Destination Host or Error")]
    for vm, result in plan.items():
        where = await _named(call, "host", result["host"]) if "host" in result else result.get("error_code", "UNKNOWN")
        lines.append((await _named(call, "VM", vm), where))
    await call.printer.table([lines])


async def _named(call: Call, cls: str, ref: str) -> str:
    record = await call.objects.record(cls, ref)
    return ref if record is None else f"{record['uuid']} ({record['name_label']})"


# ---- hosts that leave


async def _eject(call: Call) -> None:
    host = await call.ref("host-uuid", "host")
    if not call.params.flag("force"):
        await call.terminal.send(Print("The host is set up anew: disks on its own storage are lost."))
        if not await confirmed(call):
            return
    await call.api.call("pool.eject", host)
    await call.printer.items(["The host starts again as a pool of its own"])


COMMANDS = (
    message("pool-enable-binary-storage", "pool.enable_binary_storage", flags="Hidden"),
    message("pool-disable-binary-storage", "pool.disable_binary_storage", flags="Hidden"),
    command(
        "pool-sync-updates",
        _sync_updates,
        "Fetches what there is of updates.",
        optional="force token token-id username password",
    ),
    command(
        "pool-ha-compute-hypothetical-max-host-failures-to-tolerate",
        _hypothetical_failures,
        "How many hosts may fail if those VMs were protected so.",
        optional="vm-uuid restart-priority",
    ),
    command(
        "pool-ha-compute-vm-failover-plan",
        _failover_plan,
        "Where VMs would start if those hosts failed.",
        required="host-uuids",
        flags="Hidden",
    ),
    command("pool-eject", _eject, "Has a host leave the pool.", required="host-uuid", flags="With_fd"),
    _from_file("pool-install-ca-certificate", "pool.install_ca_certificate", "Has hosts trust an authority."),
    _from_file(
        "pool-certificate-install",
        "pool.install_ca_certificate",
        "Has hosts trust an authority.",
        "Use pool-install-ca-certificate",
    ),
    _from_file("pool-crl-install", "pool.crl_install", "Gives hosts a list of revoked certificates."),
    message("pool-uninstall-ca-certificate", "pool.uninstall_ca_certificate", "name", ("force", False)),
    message(
        "pool-certificate-uninstall",
        "pool.uninstall_ca_certificate",
        "name",
        deprecated="Use pool-uninstall-ca-certificate",
    ),
    message("pool-certificate-list", "pool.certificate_list", deprecated="Use certificate-list type=ca"),
    message("pool-certificate-sync", "pool.certificate_sync"),
    message("pool-crl-uninstall", "pool.crl_uninstall", "name"),
    message("pool-crl-list", "pool.crl_list"),
    command(
        "pool-install-trusted-certificate",
        _install_trusted,
        "Has hosts trust an authority (ca=true) or one server's certificate.",
        required="filename ca",
        optional="uuid purpose",
        flags="With_fd",
    ),
    command(
        "pool-uninstall-trusted-certificate",
        _uninstall_trusted,
        "Ends the trust in a certificate.",
        required="certificate-uuid",
        optional="uuid",
    ),
    message("pool-enable-tls-verification", "pool.enable_tls_verification"),
    message("pool-secret-rotate", "pool.rotate_secret"),
    of_the_pool("pool-enable-ssh", "pool.enable_ssh"),
    of_the_pool("pool-disable-ssh", "pool.disable_ssh"),
    of_the_pool(
        "pool-disable-ssl-legacy",
        "pool.disable_ssl_legacy",
        optional="uuid",
        deprecated="Legacy SSL no longer supported",
    ),
    of_the_pool("pool-enable-client-certificate-auth", "pool.enable_client_certificate_auth", "name"),
    of_the_pool("pool-disable-client-certificate-auth", "pool.disable_client_certificate_auth"),
    command(
        "pool-apply-edition",
        _apply_edition,
        "Has all hosts run an edition, with licences from that server.",
        required="edition",
        optional="uuid license-server-address license-server-port",
    ),
    message("pool-enable-local-storage-caching", "pool.enable_local_storage_caching", "uuid"),
    message("pool-disable-local-storage-caching", "pool.disable_local_storage_caching", "uuid"),
    command("pool-get-cpu-features", _cpu_features, "What the CPUs of all hosts have in common."),
    of_the_pool("pool-get-guest-secureboot-readiness", "pool.get_guest_secureboot_readiness"),
    of_the_pool("pool-reset-telemetry-uuid", "pool.reset_telemetry_uuid"),
    of_the_pool("pool-set-update-sync-enabled", "pool.set_update_sync_enabled", "value"),
    of_the_pool("pool-configure-update-sync", "pool.configure_update_sync", "update-sync-frequency", "update-sync-day"),
    command(
        "pool-configure-repository-proxy",
        _repository_proxy,
        "Has repositories be reached through a proxy.",
        required="proxy-url",
        optional="proxy-username proxy-password",
    ),
    of_the_pool("pool-disable-repository-proxy", "pool.disable_repository_proxy"),
    message("pool-send-test-post", "pool.send_test_post", "dest-host", "dest-port", "body"),
    message(
        "pool-initialize-wlb",
        "pool.initialize_wlb",
        "wlb_url",
        "wlb_username",
        "wlb_password",
        "xenserver_username",
        "xenserver_password",
    ),
    message("pool-deconfigure-wlb", "pool.deconfigure_wlb"),
    message("pool-send-wlb-configuration", "pool.send_wlb_configuration", ("config:", {})),
    message("pool-retrieve-wlb-configuration", "pool.retrieve_wlb_configuration"),
    message("pool-retrieve-wlb-recommendations", "pool.retrieve_wlb_recommendations"),
)
