"""Storage repositories, their types and their connections to hosts."""

from __future__ import annotations

from shared.datamodel import refs
from shared.datamodel.declare import (
    EMPTY,
    ClassDecl,
    Optional,
    declare,
    maintained,
    message,
    runtime,
    rw,
    setter,
    static,
)
from shared.datamodel.groups import (
    BLOBS,
    CLIENT_KEYS,
    TAGS,
    UUID,
    data_sources,
    names,
    new_blob,
    operations,
    other_config,
    uuid,
)
from shared.datamodel.roles import LOCAL_ONLY, POOL_ADMIN, POOL_OPERATOR, READ_ONLY, VM_POWER_ADMIN
from shared.datamodel.schema import MISSING
from shared.datamodel.types import (
    BOOL,
    INT,
    STRING,
    STRING_MAP,
    STRING_SET,
    EnumType,
    MapType,
    OptionType,
    RecordType,
    SetType,
)

IMAGE_FORMAT_TYPE = EnumType("image_format_type", ("raw", "vhd", "qcow2"))
SR_HEALTH = EnumType("sr_health", ("healthy", "recovering", "unreachable", "unavailable"))
STORAGE_OPERATIONS = EnumType(
    "storage_operations",
    (
        "scan",
        "destroy",
        "forget",
        "plug",
        "unplug",
        "update",
        "vdi_create",
        "vdi_introduce",
        "vdi_destroy",
        "vdi_resize",
        "vdi_clone",
        "vdi_snapshot",
        "vdi_mirror",
        "vdi_enable_cbt",
        "vdi_disable_cbt",
        "vdi_data_destroy",
        "vdi_list_changed_blocks",
        "vdi_set_on_boot",
        "vdi_blocked",
        "vdi_copy",
        "vdi_force_unlock",
        "vdi_forget",
        "vdi_generate_config",
        "vdi_resize_online",
        "vdi_update",
        "vdi_revert",
        "pbd_create",
        "pbd_destroy",
    ),
)

SM = declare(
    "SM",
    "A type of SR: what its driver is and can do.",
    roles=POOL_OPERATOR,
    fields=[
        UUID,
        names("storage driver", runtime),
        runtime("type", STRING, "The type's name, as SRs give it."),
        runtime("vendor", STRING, "Who made the driver."),
        runtime("copyright", STRING, "Whose the driver is."),
        runtime("version", STRING, "The driver's version."),
        runtime("required_api_version", STRING, "The version of the plug-in interface it speaks."),
        runtime("configuration", STRING_MAP, "Names and meanings of device settings."),
        runtime("capabilities", STRING_SET, "What it can do.", EMPTY, since="miami, deprecated clearwater"),
        runtime(
            "features",
            MapType(STRING, INT),
            "What it can do, with the version of each ability.",
            EMPTY,
            since="clearwater, changed 24.37.0",
        ),
        runtime(
            "host_pending_features",
            MapType(refs.host, STRING_SET),
            "Abilities that only some hosts' drivers have yet.",
            EMPTY,
            since="prototyped 24.37.0",
            internal=True,
        ),
        other_config(since="miami"),
        runtime("driver_filename", STRING, "The driver's file.", EMPTY, since="orlando"),
        runtime("required_cluster_stack", STRING_SET, "Cluster stacks, one of which it needs.", EMPTY, since="dundee"),
        runtime(
            "supported_image_formats",
            SetType(IMAGE_FORMAT_TYPE),
            "Formats in which it can keep disks.",
            EMPTY,
            since="prototyped 26.15.0",
        ),
    ],
)

SR = declare(
    "SR",
    "A storage repository: a place where disks are kept.",
    roles=POOL_OPERATOR,
    fields=[
        UUID,
        names("SR", static),
        operations(STORAGE_OPERATIONS),
        maintained("VDIs", "VDI.SR", "Disks in it."),
        maintained("PBDs", "PBD.SR", "Its connections to hosts."),
        runtime("virtual_allocation", INT, "Sum of its disks' sizes in bytes."),
        runtime("physical_utilisation", INT, "Bytes in use on its medium."),
        static("physical_size", INT, "Bytes its medium has."),
        static("type", STRING, "Its type: which driver it uses."),
        static("content_type", STRING, "What it is for, such as `iso`."),
        runtime("shared", BOOL, "Whether several hosts may connect to it."),
        other_config(default=MISSING, keys=CLIENT_KEYS),
        TAGS,
        runtime(
            "default_vdi_visibility", BOOL, "Whether its disks are managed unless they say otherwise.", internal=True
        ),
        rw("sm_config", STRING_MAP, "What its driver remembers.", EMPTY, since="miami"),
        BLOBS,
        runtime("local_cache_enabled", BOOL, "Whether a host caches shared disks in it.", EMPTY, since="cowley"),
        runtime("introduced_by", refs.DR_task, "The recovery that brought it in.", EMPTY, since="boston"),
        runtime("clustered", BOOL, "Whether hosts need a cluster to use it.", EMPTY, since="dundee"),
        runtime("is_tools_sr", BOOL, "Whether it holds the CD with tools for guests.", EMPTY, since="dundee"),
    ],
    messages=[
        message(
            "create",
            "Makes a new SR on its medium and connects every host to it if shared, else this one.",
            {
                "host": refs.host,
                "device_config": STRING_MAP,
                "physical_size": INT,
                "name_label": STRING,
                "name_description": STRING,
                "type": STRING,
                "content_type": STRING,
                "shared": BOOL,
                "sm_config": Optional(STRING_MAP),
            },
            refs.SR,
            errors=("SR_UNKNOWN_DRIVER",),
        ),
        message(
            "introduce",
            "Enters an existing SR; connect hosts to it with PBDs.",
            {
                "uuid": STRING,
                "name_label": STRING,
                "name_description": STRING,
                "type": STRING,
                "content_type": STRING,
                "shared": BOOL,
                "sm_config": Optional(STRING_MAP),
            },
            refs.SR,
        ),
        message(
            "make",
            "Makes a new SR; use `create`.",
            {
                "host": refs.host,
                "device_config": STRING_MAP,
                "physical_size": INT,
                "name_label": STRING,
                "name_description": STRING,
                "type": STRING,
                "content_type": STRING,
                "sm_config": Optional(STRING_MAP),
            },
            STRING,
            since="rio, deprecated miami",
        ),
        message("destroy", "Destroys it with everything in it.", {"sr": refs.SR}, errors=("SR_HAS_PBD",)),
        message("forget", "Removes it from the database; its medium stays.", {"sr": refs.SR}, errors=("SR_HAS_PBD",)),
        message("update", "Reads its size and usage anew.", {"sr": refs.SR}, since="symc"),
        message(
            "get_supported_types", "Types of SR that can be made.", result=STRING_SET, roles=READ_ONLY, sync_only=True
        ),
        message("scan", "Compares the database with the disks on its medium.", {"sr": refs.SR}, roles=VM_POWER_ADMIN),
        message(
            "probe",
            "Looks for SRs on a device; answers the driver's XML.",
            {"host": refs.host, "device_config": STRING_MAP, "type": STRING, "sm_config": Optional(STRING_MAP)},
            STRING,
            since="miami",
        ),
        message(
            "probe_ext",
            "Looks for SRs on a device; answers records.",
            {"host": refs.host, "device_config": STRING_MAP, "type": STRING, "sm_config": Optional(STRING_MAP)},
            SetType(RecordType("probe_result")),
            since="prototyped kolkata, lima",
        ),
        message("set_shared", "Sets whether several hosts may connect to it.", {"sr": refs.SR, "value": BOOL}),
        message("set_name_label", "Renames it, on its medium too.", {"sr": refs.SR, "value": STRING}),
        message(
            "set_name_description", "Changes its description, on its medium too.", {"sr": refs.SR, "value": STRING}
        ),
        new_blob("sr", refs.SR),
        setter("physical_size", "Says how many bytes its medium has.", since="miami", sync_only=True),
        setter(
            "virtual_allocation",
            "Says what its disks' sizes sum up to.",
            since="miami",
            roles=LOCAL_ONLY,
            sync_only=True,
            hidden=True,
        ),
        setter(
            "physical_utilisation",
            "Says how many bytes are in use.",
            since="miami",
            roles=LOCAL_ONLY,
            sync_only=True,
            hidden=True,
        ),
        message(
            "assert_can_host_ha_statefile",
            "Fails if HA could not keep its state here.",
            {"sr": refs.SR},
            since="orlando",
        ),
        message(
            "assert_supports_database_replication",
            "Fails if the database could not be copied here.",
            {"sr": refs.SR},
            since="boston",
        ),
        message(
            "enable_database_replication",
            "Starts copying the database to a disk in it.",
            {"sr": refs.SR},
            since="boston",
        ),
        message("disable_database_replication", "Stops copying the database to it.", {"sr": refs.SR}, since="boston"),
        *data_sources("sr", refs.SR, "dundee"),
        message(
            "get_live_hosts",
            "Hosts that could use it now.",
            {"sr": refs.SR},
            SetType(refs.host),
            since="stockholm",
            hidden=True,
        ),
    ],
)

PBD = declare(
    "PBD",
    "The connection of a host to an SR.",
    roles=POOL_OPERATOR,
    default_ctor_dtor=True,
    fields=[
        UUID,
        static("host", refs.host, "The host."),
        static("SR", refs.SR, "The SR."),
        static("device_config", STRING_MAP, "How the host reaches the SR's medium."),
        runtime("currently_attached", BOOL, "Whether the SR is attached there now."),
        other_config(since="miami"),
    ],
    messages=[
        message("plug", "Attaches the SR on the host.", {"self": refs.PBD}, errors=("SR_UNKNOWN_DRIVER",)),
        message("unplug", "Detaches the SR from the host.", {"self": refs.PBD}),
        setter("device_config", "Sets how the host reaches the medium, while unplugged.", since="miami"),
    ],
)

SR_STAT = declare(
    "sr_stat",
    "What a storage driver reports about an SR.",
    since="prototyped kolkata, lima, extended 24.17.0",
    roles=READ_ONLY,
    in_database=False,
    gen_events=False,
    fields=[
        runtime("uuid", OptionType(STRING), "Its uuid, if the medium has one."),
        runtime("name_label", STRING, "Its name, if the medium has one."),
        runtime("name_description", STRING, "Its description, if the medium has one."),
        runtime("free_space", INT, "Bytes that are free."),
        runtime("total_space", INT, "Bytes in all."),
        runtime("clustered", BOOL, "Whether it needs a cluster."),
        runtime("health", SR_HEALTH, "Whether it works."),
    ],
)

PROBE_RESULT = declare(
    "probe_result",
    "One thing found on a device that was probed for SRs.",
    since="prototyped kolkata, lima",
    roles=READ_ONLY,
    in_database=False,
    gen_events=False,
    fields=[
        runtime("configuration", STRING_MAP, "Device settings that lead to it."),
        runtime("complete", BOOL, "Whether these settings are enough to attach it."),
        runtime("sr", OptionType(RecordType("sr_stat")), "The SR found there, if any."),
        runtime("extra_info", STRING_MAP, "What else the driver found."),
    ],
)

LVHD = declare(
    "LVHD",
    "SRs on logical volumes, and what only they can do.",
    since="dundee",
    roles=POOL_ADMIN,
    enumerable=False,
    fields=[uuid(since="rio")],
    messages=[
        message(
            "enable_thin_provisioning",
            "Makes the SR's disks take space only when written; no longer supported.",
            {"host": refs.host, "SR": refs.SR, "initial_allocation": INT, "allocation_quantum": INT},
            STRING,
            forward="hostext:LVHD.enable_thin_provisioning",
        )
    ],
)

CLASSES: tuple[ClassDecl, ...] = (SM, SR, PBD, SR_STAT, PROBE_RESULT, LVHD)
