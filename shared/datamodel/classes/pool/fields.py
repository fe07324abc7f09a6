"""Fields of class `pool`."""

from __future__ import annotations

from shared.datamodel import refs
from shared.datamodel.classes.pool.enums import POOL_ALLOWED_OPERATIONS, TELEMETRY_FREQUENCY, UPDATE_SYNC_FREQUENCY
from shared.datamodel.declare import EMPTY, FieldDecls, maintained, runtime, rw, static
from shared.datamodel.groups import BLOBS, CLIENT_KEYS, TAGS, UUID, operations, other_config
from shared.datamodel.roles import POOL_OPERATOR_OR_CERT, VM_OPERATOR
from shared.datamodel.schema import MISSING
from shared.datamodel.types import BOOL, DATETIME, INT, STRING, STRING_MAP, STRING_SET, SetType

FIELDS: FieldDecls = [
    UUID,
    rw("name_label", STRING, "What people call the pool."),
    rw("name_description", STRING, "What people want to remember about the pool."),
    runtime("master", refs.host, "The coordinator: the host that has the database."),
    rw("default_SR", refs.SR, "Where disks go when nobody says otherwise."),
    rw("suspend_image_SR", refs.SR, "Where memory images of suspended VMs go when nobody says otherwise."),
    rw("crash_dump_SR", refs.SR, "Where crash dumps go when nobody says otherwise."),
    other_config(
        default=MISSING,
        keys={**CLIENT_KEYS, "EMPTY_FOLDERS": VM_OPERATOR},
    ),
    runtime("ha_enabled", BOOL, "Whether protected VMs are restarted when their host fails.", EMPTY, since="orlando"),
    runtime("ha_configuration", STRING_MAP, "Settings of the HA daemon.", EMPTY, since="orlando"),
    runtime(
        "ha_statefiles", STRING_SET, "Disks that the hosts tell each other their state through.", EMPTY, since="orlando"
    ),
    runtime(
        "ha_host_failures_to_tolerate",
        INT,
        "How many hosts may fail with all protected VMs still to be restarted.",
        EMPTY,
        since="orlando",
    ),
    runtime("ha_plan_exists_for", INT, "For how many host failures there is a plan now.", EMPTY, since="orlando"),
    rw("ha_allow_overcommit", BOOL, "Whether protected VMs may outgrow the plan.", EMPTY, since="orlando"),
    runtime("ha_overcommitted", BOOL, "Whether they have outgrown it.", EMPTY, since="orlando"),
    BLOBS,
    TAGS,
    rw(
        "gui_config",
        STRING_MAP,
        "Settings that graphical clients keep here.",
        EMPTY,
        since="orlando",
        roles=VM_OPERATOR,
    ),
    rw("health_check_config", STRING_MAP, "Settings of the health reports.", EMPTY, since="dundee"),
    runtime("wlb_url", STRING, "Address of the workload balancing server.", EMPTY, since="george"),
    runtime("wlb_username", STRING, "User name at the balancing server.", EMPTY, since="george"),
    runtime("wlb_password", refs.secret, "Password at the balancing server.", since="george", internal=True),
    rw(
        "wlb_enabled",
        BOOL,
        "Whether the balancing server is asked for placements.",
        EMPTY,
        since="george",
        roles=POOL_OPERATOR_OR_CERT,
    ),
    rw(
        "wlb_verify_cert",
        BOOL,
        "Whether the balancing server's certificate is verified; certificate checks now always decide.",
        EMPTY,
        since="george, deprecated 1.290.0",
    ),
    runtime(
        "redo_log_enabled",
        BOOL,
        "Whether database changes are logged to a disk, so that none is lost.",
        EMPTY,
        since="midnight-ride",
    ),
    runtime("redo_log_vdi", refs.VDI, "The disk that holds the redo log.", EMPTY, since="midnight-ride"),
    runtime(
        "vswitch_controller",
        STRING,
        "Address of the controller of the virtual switches.",
        EMPTY,
        since="midnight-ride, deprecated falcon",
    ),
    runtime("restrictions", STRING_MAP, "Features that the edition in use lacks.", EMPTY, since="midnight-ride"),
    maintained("metadata_VDIs", "VDI.metadata_of_pool", "Disks that hold the metadata of this pool.", since="boston"),
    runtime("ha_cluster_stack", STRING, "The cluster stack that HA uses.", EMPTY, since="dundee"),
    operations(POOL_ALLOWED_OPERATIONS),
    runtime("guest_agent_config", STRING_MAP, "Settings that guests read.", EMPTY, since="dundee"),
    runtime("cpu_info", STRING_MAP, "What all hosts' CPUs have in common.", EMPTY, since="dundee"),
    rw(
        "policy_no_vendor_device",
        BOOL,
        "Whether new VMs go without the device that makes Windows fetch drivers.",
        EMPTY,
        since="dundee, deprecated 24.14.0",
    ),
    rw("live_patching_disabled", BOOL, "Whether updates are applied without live patches.", EMPTY, since="ely"),
    runtime(
        "igmp_snooping_enabled",
        BOOL,
        "Whether bridges send multicast only where it is wanted.",
        EMPTY,
        since="inverness",
    ),
    static(
        "uefi_certificates",
        STRING,
        "Secure boot certificates for VMs, as a base64 archive.",
        EMPTY,
        since="quebec, changed 22.16.0",
    ),
    static(
        "custom_uefi_certificates",
        STRING,
        "Secure boot certificates an administrator chose instead of the bundled ones.",
        EMPTY,
        since="prototyped 24.0.0",
    ),
    rw("is_psr_pending", BOOL, "Whether a change of the pool secret is unfinished.", EMPTY, since="stockholm_psr"),
    runtime(
        "tls_verification_enabled", BOOL, "Whether hosts verify certificates when they connect.", EMPTY, since="1.290.0"
    ),
    runtime(
        "repositories",
        SetType(refs.Repository),
        "Repositories in use for updates.",
        EMPTY,
        since="1.301.0",
        stored_here=True,
    ),
    runtime(
        "client_certificate_auth_enabled",
        BOOL,
        "Whether clients may log in with a certificate.",
        EMPTY,
        since="1.318.0",
    ),
    runtime(
        "client_certificate_auth_name",
        STRING,
        "The name that a client's certificate must carry.",
        EMPTY,
        since="1.318.0",
    ),
    runtime("repository_proxy_url", STRING, "Proxy for reaching repositories.", EMPTY, since="21.3.0"),
    runtime("repository_proxy_username", STRING, "User name at the repositories' proxy.", EMPTY, since="21.3.0"),
    runtime(
        "repository_proxy_password",
        refs.secret,
        "Password at the repositories' proxy.",
        EMPTY,
        since="21.3.0, changed 23.9.0",
    ),
    rw(
        "migration_compression",
        BOOL,
        "Whether migrations compress memory unless told otherwise.",
        EMPTY,
        since="prototyped 22.33.0",
    ),
    rw(
        "coordinator_bias",
        BOOL,
        "Whether the coordinator is the last choice for starting VMs.",
        True,
        since="prototyped 22.37.0, rio",
    ),
    static("local_auth_max_threads", INT, "How many local logins are checked at once.", 8, since="prototyped 23.27.0"),
    static("ext_auth_max_threads", INT, "How many external logins are checked at once.", 1, since="prototyped 23.27.0"),
    runtime(
        "ext_auth_cache_enabled",
        BOOL,
        "Whether successful external logins are remembered for a while.",
        True,
        since="prototyped 24.31.0",
    ),
    runtime("ext_auth_cache_size", INT, "How many external logins are remembered.", 50, since="prototyped 24.31.0"),
    runtime(
        "ext_auth_cache_expiry",
        INT,
        "For how many seconds external logins are remembered.",
        300,
        since="prototyped 24.31.0",
    ),
    runtime(
        "telemetry_uuid", refs.secret, "Under what identifier telemetry is sent.", EMPTY, since="prototyped 23.9.0"
    ),
    runtime(
        "telemetry_frequency", TELEMETRY_FREQUENCY, "How often telemetry is sent.", "weekly", since="prototyped 23.9.0"
    ),
    runtime("telemetry_next_collection", DATETIME, "When telemetry is sent next.", EMPTY, since="prototyped 23.9.0"),
    runtime(
        "last_update_sync",
        DATETIME,
        "When updates were last fetched from the repositories.",
        EMPTY,
        since="prototyped 23.18.0",
    ),
    runtime(
        "update_sync_frequency",
        UPDATE_SYNC_FREQUENCY,
        "How often updates are fetched.",
        "weekly",
        since="prototyped 23.18.0",
    ),
    runtime(
        "update_sync_day",
        INT,
        "On which day of the week updates are fetched, when weekly.",
        EMPTY,
        since="prototyped 23.18.0",
    ),
    runtime(
        "update_sync_enabled", BOOL, "Whether updates are fetched by the clock.", EMPTY, since="prototyped 23.18.0"
    ),
    runtime("recommendations", STRING_MAP, "What the maker advises for this pool.", EMPTY, since="prototyped 24.19.1"),
    rw("license_server", STRING_MAP, "Where the licence server is.", EMPTY, since="prototyped 25.6.0"),
    rw(
        "ha_reboot_vm_on_internal_shutdown",
        BOOL,
        "Whether protected VMs are restarted when they shut down from within.",
        True,
        since="prototyped 25.16.0",
    ),
    rw(
        "limit_console_sessions",
        BOOL,
        "Whether a VM's console takes one viewer at a time.",
        EMPTY,
        since="prototyped 26.1.0",
    ),
    rw(
        "vm_console_idle_timeout",
        INT,
        "After how many idle seconds VM consoles are closed; 0 is never.",
        EMPTY,
        since="prototyped 26.1.0",
    ),
    rw(
        "auto_update_vm_secureboot_certificates",
        BOOL,
        "Whether VMs get new secure boot certificates at boot.",
        EMPTY,
        since="prototyped 26.16.1",
    ),
]
