"""What can be changed of VMs beyond their fields."""

from __future__ import annotations

from typing import Final

from services.cli.commands.hosts import plugin_arguments
from services.cli.commands.storage import loaded
from services.cli.commands.vm_lifecycle import WITH_CONTROL_DOMAINS
from services.cli.server.command import VM, Call, Selector, command
from services.cli.server.failures import CommandError
from services.cli.server.objects import Row
from services.cli.server.selectors import on_each, selected
from services.cli.server.simple import message
from services.cli.server.values import MISSING, size

_EVERY = Selector("vm", control_domains=True, templates=True)


async def _call_plugin(call: Call) -> None:
    vm = await call.ref("vm-uuid", "VM")
    arguments = await plugin_arguments(call)
    await call.printer.items(
        [str(await call.api.call("VM.call_plugin", vm, call.params["plugin"], call.params["fn"], arguments))]
    )


async def _set_target(call: Call) -> None:
    target = size("target", call.params["target"])

    async def set_target(vm: Row) -> None:
        await call.api.call("VM.set_memory_dynamic_range", vm.ref, target, target)

    await on_each(call, set_target)


async def _is_bios_customized(call: Call) -> None:
    async def tell(vm: Row) -> None:
        kind = "customized" if any(vm.record["bios_strings"].values()) else "generic"
        await call.printer.message(f"The VM has {kind} BIOS strings.")

    await on_each(call, tell)


async def _query_services(call: Call) -> None:
    async def tell(vm: Row) -> None:
        services = await call.api.call("VM.query_services", vm.ref)
        await call.printer.table([[("Type", "Name"), *services.items()]])

    await on_each(call, tell)


async def _crashdumps(call: Call) -> None:
    async def tell(vm: Row) -> None:
        for ref in vm.record["crash_dumps"]:
            record = await call.objects.record("crashdump", ref)
            if record is not None:
                disk = await call.objects.uuid("VDI", record["VDI"]) or MISSING
                lines = (("uuid", record["uuid"]), ("vm-uuid", vm.uuid), ("vdi-uuid", disk))
                await call.printer.table([[(f"{name} ( RO)", value) for name, value in lines]])

    await on_each(call, tell)


async def _wlb_recommendations(call: Call) -> None:
    found = await selected(call, VM)
    if not found:
        raise CommandError("No matching VMs found")
    if len(found) > 1:
        raise CommandError("Multiple VMs found. Operation can only be performed on one VM at a time")
    lines = [("Host(Uuid)", "Stars, RecID, ZeroScoreReason")]
    advice = await call.api.call("VM.retrieve_wlb_recommendations", found[0].ref)
    for ref, words in advice.items():
        host = await call.objects.record("host", ref)
        lines.append((ref if host is None else f"{host['name_label']}({host['uuid']})", " ".join(words)))
    await call.printer.table([lines])


SYSPREP: Final = 180.0
"""Seconds that a guest may take to begin, unless the command says otherwise."""


async def _sysprep(call: Call) -> None:
    try:
        timeout = max(float(call.params.get("timeout", str(SYSPREP))), 0.0)
    except ValueError:
        timeout = SYSPREP
    answers = await loaded(call, call.params["filename"])

    async def begin(vm: Row) -> None:
        await call.api.call("VM.sysprep", vm.ref, answers, timeout)

    await on_each(call, begin)


COMMANDS = (
    message("vm-get-secureboot-readiness", "VM.get_secureboot_readiness", "uuid"),
    message("vm-set-uefi-mode", "VM.set_uefi_mode", "uuid", "mode"),
    message(
        "vm-update-secureboot-certificates-on-boot",
        "VM.update_secureboot_certificates_on_boot",
        "mark",
        selector=VM,
    ),
    message("vm-restart-device-models", "VM.restart_device_models", flags="Standard", selector=VM),
    command("vm-query-services", _query_services, "What VMs do for others.", flags="Standard Hidden", selector=VM),
    command("vm-crashdump-list", _crashdumps, "What is left of crashes of VMs.", selector=VM),
    command("vm-retrieve-wlb-recommendations", _wlb_recommendations, "Where a VM should run.", selector=VM),
    command(
        "vm-sysprep",
        _sysprep,
        "Has the guests made anonymous, with the answers of a file.",
        required="filename",
        optional="timeout",
        flags="With_fd",
        selector=VM,
    ),
    message("vm-memory-set", "VM.set_memory", "size memory", selector=_EVERY),
    message("vm-memory-dynamic-range-set", "VM.set_memory_dynamic_range", "size min", "size max", selector=_EVERY),
    message("vm-memory-static-range-set", "VM.set_memory_static_range", "size min", "size max", selector=_EVERY),
    message(
        "vm-memory-limits-set",
        "VM.set_memory_limits",
        "size static-min",
        "size static-max",
        "size dynamic-min",
        "size dynamic-max",
        selector=_EVERY,
    ),
    command(
        "vm-memory-target-set",
        _set_target,
        "Sets how much memory VMs have, between their limits.",
        required="target",
        selector=WITH_CONTROL_DOMAINS,
    ),
    command(
        "vm-memory-balloon",
        _set_target,
        "Sets how much memory VMs have.",
        required="target",
        flags="Hidden",
        selector=VM,
        deprecated="vm-memory-dynamic-range-set",
    ),
    message("vm-memory-target-wait", "VM.wait_memory_target_live", flags="Hidden", selector=WITH_CONTROL_DOMAINS),
    message("vm-memory-shadow-multiplier-set", "VM.set_shadow_multiplier_live", "multiplier", selector=VM),
    message("vm-vcpu-hotplug", "VM.set_VCPUs_number_live", "new-vcpus", selector=VM),
    message("vm-compute-memory-overhead", "VM.compute_memory_overhead", selector=WITH_CONTROL_DOMAINS),
    command("vm-is-bios-customized", _is_bios_customized, "Do VMs have BIOS strings of their own?", selector=VM),
    message("vm-copy-bios-strings", "VM.copy_bios_strings", "host-uuid", selector=VM),
    message("vm-data-source-record", "VM.record_data_source", "data-source", selector=WITH_CONTROL_DOMAINS),
    message("vm-data-source-query", "VM.query_data_source", "data-source", selector=WITH_CONTROL_DOMAINS),
    message("vm-data-source-forget", "VM.forget_data_source_archives", "data-source", selector=WITH_CONTROL_DOMAINS),
    command(
        "vm-call-plugin",
        _call_plugin,
        "Calls a plugin for a VM; args:<key>:file=<path> sends a file.",
        required="vm-uuid plugin fn",
        optional="args:",
        flags="With_fd",
    ),
)
