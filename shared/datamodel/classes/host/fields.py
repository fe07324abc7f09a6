"""Fields of class `host`."""

from __future__ import annotations

from shared.datamodel import refs
from shared.datamodel.classes.enums import UPDATE_GUIDANCES
from shared.datamodel.classes.host.enums import (
    HOST_ALLOWED_OPERATIONS,
    HOST_DISPLAY,
    HOST_NTP_MODE,
    HOST_NUMA_AFFINITY_POLICY,
    LATEST_SYNCED_UPDATES_APPLIED_STATE,
)
from shared.datamodel.declare import EMPTY, FieldDecls, maintained, namespace, runtime, rw, static
from shared.datamodel.groups import BLOBS, CLIENT_KEYS, TAGS, UUID, names, operations, other_config
from shared.datamodel.schema import MISSING
from shared.datamodel.types import BOOL, DATETIME, INT, STRING, STRING_MAP, STRING_SET, SetType

FIELDS: FieldDecls = [
    UUID,
    names("host"),
    namespace("memory", runtime("overhead", INT, "Bytes that the hypervisor itself takes.", EMPTY)),
    operations(HOST_ALLOWED_OPERATIONS),
    namespace(
        "API_version",
        runtime("major", INT, "Major version of the API it speaks."),
        runtime("minor", INT, "Minor version of the API it speaks."),
        runtime("vendor", STRING, "Who made its API."),
        runtime("vendor_implementation", STRING_MAP, "What the maker says about this implementation."),
    ),
    runtime("enabled", BOOL, "Whether new VMs may start on it."),
    static("software_version", STRING_MAP, "Versions of what it runs."),
    other_config(default=MISSING, keys=CLIENT_KEYS),
    static("capabilities", STRING_SET, "Kinds of VM that its hypervisor can run."),
    runtime("cpu_configuration", STRING_MAP, "Settings of its CPUs."),
    runtime("sched_policy", STRING, "How its hypervisor schedules CPUs."),
    runtime("supported_bootloaders", STRING_SET, "Boot loaders that it has."),
    maintained("resident_VMs", "VM.resident_on", "VMs that run on it."),
    rw("logging", STRING_MAP, "Where its log goes."),
    maintained("PIFs", "PIF.host", "Its network interfaces."),
    rw("suspend_image_sr", refs.SR, "Where memory images of its VMs go when nobody says otherwise."),
    rw("crash_dump_sr", refs.SR, "Where crash dumps go when nobody says otherwise."),
    maintained("crashdumps", "host_crashdump.host", "Its own crash dumps."),
    maintained("patches", "host_patch.host", "Patches that it has.", since="rio, deprecated ely"),
    runtime("updates", SetType(refs.pool_update), "Updates that it has.", since="ely"),
    maintained("PBDs", "PBD.host", "Its connections to SRs."),
    maintained("host_CPUs", "host_cpu.host", "Its CPUs, one by one."),
    runtime("cpu_info", STRING_MAP, "What its CPUs are and can do.", EMPTY, since="midnight-ride"),
    rw("hostname", STRING, "Its name in the network."),
    rw("address", STRING, "The address that the other hosts reach it at."),
    runtime("metrics", refs.host_metrics, "Its memory, and whether it is alive."),
    runtime("license_params", STRING_MAP, "What its licence says."),
    runtime("boot_free_mem", INT, "Bytes that were free when it had booted.", internal=True),
    runtime("ha_statefiles", STRING_SET, "Disks that HA keeps its state on.", EMPTY, since="orlando"),
    runtime("ha_network_peers", STRING_SET, "Hosts that HA can reach from it by the network.", EMPTY, since="orlando"),
    BLOBS,
    TAGS,
    runtime(
        "external_auth_type",
        STRING,
        "What kind of external authentication it uses; empty for none.",
        EMPTY,
        since="george",
    ),
    runtime("external_auth_service_name", STRING, "Which directory it asks.", EMPTY, since="george"),
    runtime(
        "external_auth_configuration", STRING_MAP, "Settings of the external authentication.", EMPTY, since="george"
    ),
    runtime("edition", STRING, "The edition it runs.", EMPTY, since="midnight-ride"),
    rw(
        "license_server",
        STRING_MAP,
        "Where its licence server is.",
        {"address": "localhost", "port": "27000"},
        since="midnight-ride",
    ),
    runtime("bios_strings", STRING_MAP, "What its BIOS says about the maker.", EMPTY, since="midnight-ride"),
    runtime(
        "power_on_mode",
        STRING,
        "How it can be powered on remotely; empty for not at all.",
        EMPTY,
        since="midnight-ride",
    ),
    runtime("power_on_config", STRING_MAP, "Settings for powering it on.", EMPTY, since="midnight-ride"),
    static("local_cache_sr", refs.SR, "The SR that caches shared disks.", EMPTY, since="cowley"),
    runtime("chipset_info", STRING_MAP, "What its chipset can do, such as IOMMU.", EMPTY, since="boston"),
    maintained("PCIs", "PCI.host", "Its PCI devices.", since="boston"),
    maintained("PGPUs", "PGPU.host", "Its GPUs.", since="boston"),
    maintained("PUSBs", "PUSB.host", "Its USB devices.", since="inverness"),
    static(
        "ssl_legacy",
        BOOL,
        "Whether it accepts outdated TLS; never any more.",
        True,
        since="dundee, deprecated stockholm",
    ),
    rw("guest_VCPUs_params", STRING_MAP, "CPU scheduling that all VMs on it get.", EMPTY, since="tampa"),
    rw("display", HOST_DISPLAY, "Whether its screen shows its own console.", "enabled", since="cream"),
    runtime(
        "virtual_hardware_platform_versions",
        SetType(INT),
        "Versions of virtual hardware that it offers.",
        [0],
        since="cream",
    ),
    runtime("control_domain", refs.VM, "The VM that it is managed from.", EMPTY, since="ely"),
    runtime(
        "updates_requiring_reboot",
        SetType(refs.pool_update),
        "Updates that a reboot would complete.",
        since="ely",
        stored_here=True,
    ),
    maintained("features", "Feature.host", "Features that it has.", since="falcon"),
    static("iscsi_iqn", STRING, "Its name as an iSCSI initiator.", EMPTY, since="kolkata"),
    static("multipathing", BOOL, "Whether it uses several paths to its storage.", EMPTY, since="kolkata"),
    static(
        "uefi_certificates",
        STRING,
        "Secure boot certificates for VMs; use those of the pool.",
        EMPTY,
        since="quebec, deprecated 22.16.0",
    ),
    maintained("certificates", "Certificate.host", "Certificates installed on it.", since="stockholm"),
    runtime("editions", STRING_SET, "Editions that it could run.", EMPTY, since="stockholm"),
    runtime(
        "pending_guidances", SetType(UPDATE_GUIDANCES), "What must be done to it after updates.", EMPTY, since="1.303.0"
    ),
    runtime(
        "tls_verification_enabled", BOOL, "Whether it verifies certificates when it connects.", EMPTY, since="1.313.0"
    ),
    runtime("last_software_update", DATETIME, "When it was last updated.", EMPTY, since="prototyped 22.20.0"),
    runtime("https_only", BOOL, "Whether its port 80 is closed.", EMPTY, since="prototyped 22.27.0"),
    runtime(
        "recommended_guidances",
        SetType(UPDATE_GUIDANCES),
        "What should be done to it after updates.",
        EMPTY,
        since="prototyped 23.18.0, removed 23.24.0",
        internal=True,
    ),
    runtime(
        "latest_synced_updates_applied",
        LATEST_SYNCED_UPDATES_APPLIED_STATE,
        "Whether it has all updates that were fetched last.",
        "unknown",
        since="prototyped 23.18.0",
    ),
    runtime(
        "numa_affinity_policy",
        HOST_NUMA_AFFINITY_POLICY,
        "How its VMs' memory is placed on NUMA nodes.",
        "default_policy",
        since="prototyped 24.0.0",
    ),
    runtime(
        "pending_guidances_recommended",
        SetType(UPDATE_GUIDANCES),
        "What should still be done to it after updates were applied.",
        EMPTY,
        since="prototyped 24.10.0",
    ),
    runtime(
        "pending_guidances_full",
        SetType(UPDATE_GUIDANCES),
        "All that could be done to it after updates were applied.",
        EMPTY,
        since="prototyped 24.10.0",
    ),
    runtime(
        "last_update_hash", STRING, "Hash of the updates that were applied last.", EMPTY, since="prototyped 24.10.0"
    ),
    runtime("ssh_enabled", BOOL, "Whether SSH is open.", True, since="prototyped 25.21.0"),
    runtime(
        "ssh_enabled_timeout",
        INT,
        "For how many seconds SSH stays open; 0 is for good.",
        EMPTY,
        since="prototyped 25.21.0",
    ),
    runtime("ssh_expiry", DATETIME, "When SSH closes by itself.", EMPTY, since="prototyped 25.21.0"),
    runtime(
        "console_idle_timeout",
        INT,
        "After how many idle seconds its console logs out; 0 is never.",
        EMPTY,
        since="prototyped 25.21.0",
    ),
    runtime(
        "ssh_auto_mode",
        BOOL,
        "Whether SSH opens by itself while the toolstack is down.",
        EMPTY,
        since="prototyped 25.27.0",
    ),
    runtime(
        "max_cstate", STRING, "How deep its idle CPUs may sleep; empty for no limit.", EMPTY, since="prototyped 26.0.0"
    ),
    runtime("secure_boot", BOOL, "Whether it booted securely.", EMPTY, since="prototyped 25.31.0"),
    runtime("ntp_mode", HOST_NTP_MODE, "Where its time servers come from.", "Factory", since="prototyped 26.0.0"),
    runtime("ntp_custom_servers", STRING_SET, "Time servers an administrator chose.", EMPTY, since="prototyped 26.0.0"),
    runtime("timezone", STRING, "Its time zone.", "UTC", since="prototyped 26.0.0"),
]
