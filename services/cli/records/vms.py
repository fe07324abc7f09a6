"""Virtual machines and what belongs to them: templates and snapshots, appliances, groups, schedules, consoles, TPMs."""

from __future__ import annotations

import hashlib

from services.cli.server.objects import Row
from services.cli.server.readers import UNKNOWN, called, data_source
from services.cli.server.record import attr, computed, follow, name_of, records, values
from services.cli.server.values import Value
from shared.errors import ApiError


async def _memory_target(row: Row) -> Value:
    try:
        return str(int(await row.api.call("VM.query_data_source", row.ref, "memory_target")))
    except ApiError as error:
        return "0" if error.code == "VM_BAD_POWER_STATE" else UNKNOWN


async def _vcpus_utilisation(row: Row) -> Value:
    metrics = await row.behind("metrics", "VM_metrics")
    shares: dict[str, str] = {}
    for number in range(metrics["VCPUs_number"] if metrics else 0):
        share = await data_source(row, "VM.query_data_source", row.ref, f"cpu{number}")
        if share is None:
            return {}
        shares[str(number)] = f"{share:.3f}"
    return shares


async def _last_boot_record(row: Row) -> Value:
    return f"'{row.record['last_booted_record']}'"


async def _contents_digest(row: Row) -> Value:
    contents = str(await row.api.call("VTPM.get_contents", row.ref)).encode()
    return f"MD5={hashlib.md5(contents, usedforsecurity=False).hexdigest()} size={len(contents)} bytes"


_FIELDS = (
    attr("uuid"),
    attr("name-label", write="set"),
    attr("name-description", write="set"),
    attr("user-version", write="set"),
    attr("is-a-template", write="set"),
    attr("is-default-template", write="set"),
    attr("is-a-snapshot"),
    attr("snapshot-of"),
    attr("snapshots", view=""),
    attr("snapshot-time"),
    attr("transportable-snapshot-id", hidden=True),
    attr("snapshot-info", view=""),
    attr("parent"),
    attr("children", view=""),
    attr("is-control-domain"),
    attr("power-state"),
    follow("memory-actual", "metrics"),
    computed("memory-target", _memory_target, expensive=True),
    attr("memory-overhead"),
    attr("memory-static-max", size=True, write="set"),
    attr("memory-dynamic-max", size=True, write="set"),
    attr("memory-dynamic-min", size=True, write="set"),
    attr("memory-static-min", size=True, write="set"),
    attr("suspend-VDI-uuid", "suspend_VDI", write="set"),
    attr("suspend-SR-uuid", "suspend_SR", write="set"),
    attr("VCPUs-params", write="add remove"),
    attr("VCPUs-max", write="set"),
    attr("VCPUs-at-startup", write="set"),
    attr("actions-after-shutdown", write="set"),
    attr("actions-after-softreboot", write="set"),
    attr("actions-after-reboot", write="set"),
    attr("actions-after-crash", write="set"),
    attr("console-uuids", "consoles"),
    follow("hvm", "metrics", missing="false"),
    follow("nomigrate", "metrics", missing="false", hidden=True),
    follow("nested-virt", "metrics", missing="false", hidden=True),
    attr("platform", write="add remove"),
    follow("numa-optimised", "metrics", missing="false"),
    follow("numa-nodes", "metrics", missing="0"),
    follow("numa-node-memory", "metrics", missing=""),
    attr("allowed-operations"),
    values("current-operations"),
    attr("blocked-operations", write="add remove"),
    computed("allowed-VBD-devices", called("VM.get_allowed_VBD_devices", failing=()), view="S", expensive=True),
    computed("allowed-VIF-devices", called("VM.get_allowed_VIF_devices", failing=()), view="S", expensive=True),
    computed("possible-hosts", called("VM.get_possible_hosts"), expensive=True),
    attr("domain-type", write="set"),
    follow("current-domain-type", "metrics"),
    attr("HVM-boot-policy", write="set"),
    attr("HVM-boot-params", write="add remove"),
    attr("HVM-shadow-multiplier", write="set"),
    attr("NVRAM", write="add remove", hidden=True),
    attr("PV-kernel", write="set"),
    attr("PV-ramdisk", write="set"),
    attr("PV-args", write="set"),
    attr("PV-legacy-args", write="set"),
    attr("PV-bootloader", write="set"),
    attr("PV-bootloader-args", write="set"),
    attr("last-boot-CPU-flags", view=""),
    computed("last-boot-record", _last_boot_record, expensive=True),
    attr("resident-on"),
    attr("affinity", write="set"),
    attr("other-config", write="add remove"),
    attr("dom-id", "domid"),
    attr("recommendations"),
    attr("xenstore-data", write="add remove clear"),
    attr("ha-always-run", write="set", deprecated=True),
    attr("ha-restart-priority", write="set"),
    attr("blobs", view=""),
    follow("start-time", "metrics", missing="<unknown time>"),
    follow("install-time", "metrics", missing="<unknown time>"),
    follow("VCPUs-number", "metrics"),
    computed("VCPUs-utilisation", _vcpus_utilisation, view="M", expensive=True),
    follow("os-version", "guest_metrics"),
    follow("netbios-name", "guest_metrics"),
    follow("PV-drivers-version", "guest_metrics"),
    follow("PV-drivers-up-to-date", "guest_metrics", deprecated=True),
    follow("memory", "guest_metrics"),
    follow("disks", "guest_metrics"),
    attr("VBDs"),
    follow("networks", "guest_metrics"),
    follow("services", "guest_metrics"),
    follow("PV-drivers-detected", "guest_metrics"),
    follow("other", "guest_metrics"),
    follow("live", "guest_metrics"),
    follow("guest-metrics-last-updated", "guest_metrics", "last_updated"),
    follow("can-use-hotplug-vbd", "guest_metrics"),
    follow("can-use-hotplug-vif", "guest_metrics"),
    computed("cooperative", called("VM.get_cooperative", failing="true"), deprecated=True, expensive=True),
    attr("tags", joiner=", ", write="add remove"),
    attr("appliance", write="set"),
    attr("groups", view="", write="set"),
    attr("secureboot-certificates-state"),
    attr("snapshot-schedule", write="set"),
    attr("is-vmss-snapshot"),
    attr("start-delay", write="set"),
    attr("shutdown-delay", write="set"),
    attr("order", write="set"),
    attr("version"),
    attr("generation-id"),
    attr("hardware-platform-version"),
    attr("has-vendor-device", write="set"),
    attr("requires-reboot"),
    attr("reference-label"),
    attr("bios-strings", write="set-map"),
    attr("pending-guidances", view=""),
    attr("vtpms", "VTPMs", view=""),
    attr("pending-guidances-recommended", view=""),
    attr("pending-guidances-full", view=""),
)

VM = records(
    "vm",
    "VM",
    standard=True,
    default="uuid name-label power-state",
    fields=_FIELDS,
    builtin=(("is-a-template", "false"),),
)

TEMPLATE = records(
    "template",
    "VM",
    default="uuid name-label name-description",
    fields=_FIELDS,
    builtin=(("is-a-template", "true"), ("is-a-snapshot", "false")),
)

SNAPSHOT = records(
    "snapshot",
    "VM",
    default="uuid name-label name-description is-vmss-snapshot",
    fields=_FIELDS,
    builtin=(("is-a-snapshot", "true"),),
)

VMSS = records(
    "vmss",
    "VMSS",
    default="uuid name-label name-description enabled type retained-snapshots frequency schedule last-run-time VMs",
    fields=(
        attr("uuid"),
        attr("name-label", write="set"),
        attr("name-description", write="set"),
        attr("enabled", write="set"),
        attr("type", write="set"),
        attr("retained-snapshots", write="set"),
        attr("frequency", write="set"),
        attr("schedule", write="add remove"),
        attr("last-run-time"),
        attr("VMs"),
    ),
)

APPLIANCE = records(
    "appliance",
    "VM_appliance",
    default="uuid name-label name-description VMs allowed-operations current-operations",
    fields=(
        attr("uuid"),
        attr("name-label", write="set"),
        attr("name-description", write="set"),
        attr("VMs"),
        attr("allowed-operations"),
        values("current-operations"),
    ),
)

VM_GROUP = records(
    "vm-group",
    "VM_group",
    default="uuid name-label name-description placement vm-uuids",
    fields=(
        attr("uuid"),
        attr("name-label", write="set"),
        attr("name-description", write="set"),
        attr("placement"),
        attr("vm-uuids", "VMs"),
    ),
)

CONSOLE = records(
    "console",
    "console",
    default="uuid vm-uuid vm-name-label protocol location",
    fields=(
        attr("uuid"),
        attr("vm-uuid", "VM"),
        name_of("vm-name-label", "VM"),
        attr("protocol"),
        attr("location"),
        attr("other-config", write="add remove"),
    ),
)

VTPM = records(
    "vtpm",
    "VTPM",
    default="uuid vm-uuid",
    fields=(
        attr("uuid"),
        attr("vm-uuid", "VM"),
        name_of("vm-name-label", "VM"),
        computed("secret", _contents_digest),
        attr("is_unique"),
        attr("is_protected"),
        attr("allowed-operations"),
    ),
)
