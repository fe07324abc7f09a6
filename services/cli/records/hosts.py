"""Hosts and their parts: processors, drivers, crash dumps, patches, features."""

from __future__ import annotations

from services.cli.server.objects import Record, Row
from services.cli.server.readers import UNKNOWN, called, data_source, statefiles, uuids_behind
from services.cli.server.record import Reader, attr, computed, follow, records, values
from services.cli.server.values import Value


async def _patches(row: Row) -> Value:
    return await uuids_behind(row, "patches", "host_patch", "pool_patch")


async def _patched_hosts(row: Row) -> Value:
    return await uuids_behind(row, "host_patches", "host_patch", "host")


async def _cpu_utilisation(row: Row) -> Value:
    share = await data_source(row, "host.query_data_source", row.record["host"], f"cpu{row.record['number']}")
    return UNKNOWN if share is None else f"{share:.3f}"


async def _variants(row: Row) -> list[Record]:
    found = [await row.objects.record("Driver_variant", ref) for ref in row.record["variants"]]
    return [record for record in found if record is not None]


def variant_name(attribute: str) -> Reader:
    async def read(row: Row) -> Value:
        record = await row.behind(attribute, "Driver_variant")
        return "<none>" if record is None else str(record["name"])

    return read


def each_variant(pattern: str) -> Reader:
    async def read(row: Row) -> Value:
        return [pattern.format_map(record) for record in await _variants(row)]

    return read


async def _variants_present(row: Row) -> Value:
    return [record["name"] for record in await _variants(row) if record["hardware_present"]]


async def _priority(row: Row) -> Value:
    return f"{row.record['priority']:5.1f}"


def is_variant(attribute: str) -> Reader:
    async def read(row: Row) -> Value:
        driver = await row.behind("driver", "Host_driver")
        return "true" if driver is not None and driver[attribute] == row.ref else "false"

    return read


HOST = records(
    "host",
    "host",
    default="uuid name-label name-description",
    fields=(
        attr("uuid"),
        attr("name-label", write="set"),
        attr("name-description", write="set"),
        attr("allowed-operations"),
        values("current-operations"),
        attr("enabled"),
        attr("display"),
        attr("API-version-major"),
        attr("API-version-minor"),
        attr("API-version-vendor"),
        attr("API-version-vendor-implementation"),
        attr("logging", write="add remove"),
        attr("suspend-image-sr-uuid", "suspend_image_sr", write="set"),
        attr("crash-dump-sr-uuid", "crash_dump_sr", write="set"),
        attr("software-version"),
        attr("capabilities"),
        attr("other-config", write="add remove"),
        attr("cpu_info"),
        attr("chipset-info"),
        attr("hostname"),
        attr("address"),
        attr("https-only", write="set"),
        attr("supported-bootloaders"),
        attr("blobs", view=""),
        attr("memory-overhead"),
        follow("memory-total", "metrics"),
        follow("memory-free", "metrics"),
        computed("memory-free-computed", called("host.compute_free_memory"), expensive=True),
        follow("host-metrics-live", "metrics", "live"),
        computed("patches", _patches, joiner=", ", needs=["host_patch", "pool_patch"], view="S", deprecated=True),
        attr("updates", joiner=", "),
        computed("ha-statefiles", statefiles),
        attr("ha-network-peers", view=""),
        attr("external-auth-type"),
        attr("external-auth-service-name"),
        attr("external-auth-configuration"),
        attr("edition"),
        attr("license-server"),
        attr("power-on-mode"),
        attr("power-on-config"),
        attr("local-cache-sr"),
        attr("tags", joiner=", ", write="add remove"),
        attr("ssl-legacy", write="set"),
        attr("guest_VCPUs_params", write="add remove"),
        attr("virtual-hardware-platform-versions"),
        attr("control-domain-uuid", "control_domain"),
        attr("resident-vms", "resident_VMs"),
        attr("updates-requiring-reboot"),
        attr("features"),
        attr("iscsi_iqn", write="set"),
        attr("multipathing", write="set"),
        attr("uefi-certificates", write="set", hidden=True),
        attr("numa-affinity-policy", write="set"),
        attr("pending-guidances", view=""),
        attr("tls-verification-enabled"),
        attr("last-software-update"),
        attr("latest-synced-updates-applied"),
        attr("pending-guidances-recommended", view=""),
        attr("pending-guidances-full", view=""),
        attr("last-update-hash"),
        attr("ssh-enabled"),
        attr("ssh-enabled-timeout", write="set"),
        attr("ssh-expiry"),
        attr("console-idle-timeout", write="set"),
        attr("ssh-auto-mode", write="set"),
        attr("max-cstate", write="set"),
        attr("secure-boot"),
        attr("ntp-mode", write="set"),
        attr("ntp-custom-servers", joiner=", ", write="set"),
        attr("timezone", write="set"),
    ),
)

HOST_CRASHDUMP = records(
    "host-crashdump",
    "host_crashdump",
    default="uuid timestamp size",
    fields=(
        attr("uuid"),
        attr("host-uuid", "host"),
        attr("timestamp"),
        attr("size"),
    ),
)

HOST_CPU = records(
    "host-cpu",
    "host_cpu",
    default="uuid number vendor speed utilisation",
    fields=(
        attr("uuid"),
        attr("host-uuid", "host"),
        attr("number"),
        attr("vendor"),
        attr("speed"),
        attr("model"),
        attr("family"),
        attr("modelname"),
        attr("stepping"),
        attr("flags"),
        computed("utilisation", _cpu_utilisation, expensive=True),
    ),
)

HOSTDRIVER = records(
    "hostdriver",
    "Host_driver",
    default="uuid name host-uuid active-variant selected-variant variants variants-uuid",
    fields=(
        attr("uuid"),
        attr("name"),
        attr("type"),
        attr("description"),
        attr("info"),
        attr("host-uuid", "host"),
        computed("active-variant", variant_name("active_variant"), needs=["Driver_variant"]),
        computed("selected-variant", variant_name("selected_variant"), needs=["Driver_variant"]),
        computed("variants", each_variant("{name}/{version}"), needs=["Driver_variant"]),
        computed("variants-dev-status", each_variant("{name}={status}"), needs=["Driver_variant"]),
        computed("variants-uuid", each_variant("{name}/{uuid}"), needs=["Driver_variant"]),
        computed("variants-hw-present", _variants_present, needs=["Driver_variant"]),
    ),
)

HOSTDRIVER_VARIANT = records(
    "hostdriver-variant",
    "Driver_variant",
    default="uuid name version status priority active selected driver-uuid driver-name host-uuid hw-present",
    fields=(
        attr("uuid"),
        attr("name"),
        attr("version"),
        attr("status"),
        computed("priority", _priority),
        computed("active", is_variant("active_variant"), needs=["Host_driver"]),
        computed("selected", is_variant("selected_variant"), needs=["Host_driver"]),
        attr("driver-uuid", "driver"),
        follow("driver-name", "driver", "name"),
        follow("host-uuid", "driver", "host"),
        attr("hw-present", "hardware_present"),
    ),
)

PATCH = records(
    "patch",
    "pool_patch",
    default="uuid name-label name-description size hosts after-apply-guidance",
    fields=(
        attr("uuid"),
        attr("name-label"),
        attr("name-description"),
        attr("size"),
        computed("hosts", _patched_hosts, joiner=", ", needs=["host_patch", "host"], view="S"),
        attr("after-apply-guidance", joiner=", "),
        attr("update", "pool_update"),
    ),
)

UPDATE = records(
    "update",
    "pool_update",
    default="uuid name-label name-description version installation-size hosts after-apply-guidance",
    fields=(
        attr("uuid"),
        attr("name-label"),
        attr("name-description"),
        attr("version"),
        attr("installation-size"),
        attr("hosts", joiner=", "),
        attr("after-apply-guidance", joiner=", "),
        attr("enforce-homogeneity"),
    ),
)

FEATURE = records(
    "feature",
    "Feature",
    default="uuid name-label name-description enabled experimental version host-uuid",
    fields=(
        attr("uuid"),
        attr("name-label"),
        attr("name-description"),
        attr("enabled"),
        attr("experimental"),
        attr("version"),
        attr("host-uuid", "host"),
    ),
)
