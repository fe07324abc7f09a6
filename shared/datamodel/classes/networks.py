"""Virtual networks and the VMs' interfaces to them."""

from __future__ import annotations

from shared.datamodel import refs
from shared.datamodel.declare import (
    EMPTY,
    UUID,
    ClassDecl,
    Optional,
    declare,
    maintained,
    message,
    names,
    namespace,
    operations,
    other_config,
    runtime,
    rw,
    static,
    uuid,
)
from shared.datamodel.roles import POOL_ADMIN, POOL_OPERATOR, VM_ADMIN, VM_OPERATOR, VM_POWER_ADMIN
from shared.datamodel.schema import MISSING
from shared.datamodel.types import (
    BOOL,
    DATETIME,
    FLOAT,
    INT,
    STRING,
    STRING_MAP,
    STRING_SET,
    EnumType,
    MapType,
    SetType,
)

NETWORK_DEFAULT_LOCKING_MODE = EnumType(
    "network_default_locking_mode",
    (
        "unlocked",
        "disabled",
    ),
)
NETWORK_OPERATIONS = EnumType("network_operations", ("attaching",))
NETWORK_PURPOSE = EnumType(
    "network_purpose",
    (
        "nbd",
        "insecure_nbd",
    ),
)
VIF_IPV4_CONFIGURATION_MODE = EnumType(
    "vif_ipv4_configuration_mode",
    (
        "None",
        "Static",
        "DHCP",
    ),
)
VIF_IPV6_CONFIGURATION_MODE = EnumType(
    "vif_ipv6_configuration_mode",
    (
        "None",
        "Static",
        "Autoconf",
    ),
)
VIF_LOCKING_MODE = EnumType(
    "vif_locking_mode",
    (
        "network_default",
        "locked",
        "unlocked",
        "disabled",
    ),
)
VIF_OPERATIONS = EnumType(
    "vif_operations",
    (
        "attach",
        "plug",
        "unplug",
    ),
)

NETWORK = declare(
    "network",
    "",
    roles=VM_ADMIN,
    default_ctor_dtor=True,
    fields=[
        UUID,
        names("network", roles=POOL_OPERATOR),
        operations(NETWORK_OPERATIONS),
        maintained("VIFs", "VIF.network", ""),
        maintained("PIFs", "PIF.network", ""),
        rw("MTU", INT, "", 1500, since="midnight-ride"),
        other_config(
            default=MISSING,
            roles=POOL_OPERATOR,
            keys={
                "folder": VM_OPERATOR,
                "XenCenter.CustomFields.*": VM_OPERATOR,
                "XenCenterCreateInProgress": VM_OPERATOR,
            },
        ),
        static("bridge", STRING, "", EMPTY, since="rio, changed falcon"),
        static("managed", BOOL, "", True, since="falcon"),
        runtime("blobs", MapType(STRING, refs.blob), "", EMPTY, since="orlando"),
        rw("tags", STRING_SET, "", EMPTY, since="orlando", roles=VM_OPERATOR),
        runtime("default_locking_mode", NETWORK_DEFAULT_LOCKING_MODE, "", "unlocked", since="tampa"),
        runtime("assigned_ips", MapType(refs.VIF, STRING), "", EMPTY, since="creedence"),
        runtime("purpose", SetType(NETWORK_PURPOSE), "", EMPTY, since="inverness"),
    ],
    messages=[
        message(
            "attach", "", {"network": refs.network, "host": refs.host}, since="miami", roles=POOL_OPERATOR, hidden=True
        ),
        message(
            "pool_introduce",
            "",
            {
                "name_label": STRING,
                "name_description": STRING,
                "MTU": INT,
                "other_config": STRING_MAP,
                "bridge": STRING,
                "managed": BOOL,
                "purpose": SetType(NETWORK_PURPOSE),
            },
            refs.network,
            roles=POOL_OPERATOR,
            hidden=True,
        ),
        message(
            "create_new_blob",
            "",
            {"network": refs.network, "name": STRING, "mime_type": STRING, "public": Optional(BOOL)},
            refs.blob,
            since="orlando",
            roles=POOL_OPERATOR,
        ),
        message(
            "set_default_locking_mode",
            "",
            {"network": refs.network, "value": NETWORK_DEFAULT_LOCKING_MODE},
            since="tampa",
            roles=POOL_OPERATOR,
        ),
        message(
            "attach_for_vm", "", {"host": refs.host, "vm": refs.VM}, since="tampa", roles=VM_POWER_ADMIN, hidden=True
        ),
        message(
            "detach_for_vm", "", {"host": refs.host, "vm": refs.VM}, since="tampa", roles=VM_POWER_ADMIN, hidden=True
        ),
        message(
            "add_purpose",
            "",
            {"self": refs.network, "value": NETWORK_PURPOSE},
            since="inverness",
            roles=POOL_ADMIN,
            errors=("NETWORK_INCOMPATIBLE_PURPOSES",),
        ),
        message(
            "remove_purpose", "", {"self": refs.network, "value": NETWORK_PURPOSE}, since="inverness", roles=POOL_ADMIN
        ),
    ],
)

VIF = declare(
    "VIF",
    "",
    roles=VM_ADMIN,
    default_ctor_dtor=True,
    fields=[
        UUID,
        operations(VIF_OPERATIONS),
        static("device", STRING, ""),
        static("network", refs.network, ""),
        static("VM", refs.VM, ""),
        static("MAC", STRING, ""),
        static("MTU", INT, ""),
        runtime("reserved", BOOL, "", internal=True),
        other_config(default=MISSING),
        static("currently_attached", BOOL, "", EMPTY, since="rio, changed 1.257.0"),
        runtime("status_code", INT, ""),
        runtime("status_detail", STRING, ""),
        runtime("runtime_properties", STRING_MAP, ""),
        namespace(
            "qos",
            rw("algorithm_type", STRING, ""),
            rw("algorithm_params", STRING_MAP, ""),
            runtime("supported_algorithms", STRING_SET, ""),
        ),
        runtime("metrics", refs.VIF_metrics, "", EMPTY, since="rio, deprecated tampa, removed tampa"),
        runtime("MAC_autogenerated", BOOL, "", EMPTY, since="george"),
        static("locking_mode", VIF_LOCKING_MODE, "", "network_default", since="tampa"),
        static("ipv4_allowed", STRING_SET, "", EMPTY, since="tampa"),
        static("ipv6_allowed", STRING_SET, "", EMPTY, since="tampa"),
        runtime("ipv4_configuration_mode", VIF_IPV4_CONFIGURATION_MODE, "", "None", since="dundee"),
        runtime("ipv4_addresses", STRING_SET, "", EMPTY, since="dundee"),
        runtime("ipv4_gateway", STRING, "", EMPTY, since="dundee"),
        runtime("ipv6_configuration_mode", VIF_IPV6_CONFIGURATION_MODE, "", "None", since="dundee"),
        runtime("ipv6_addresses", STRING_SET, "", EMPTY, since="dundee"),
        runtime("ipv6_gateway", STRING, "", EMPTY, since="dundee"),
        runtime("reserved_pci", refs.PCI, "", EMPTY, since="kolkata", internal=True),
        static("trunks", SetType(INT), "", EMPTY, since="prototyped 26.17.0"),
    ],
    messages=[
        message("plug", "", {"self": refs.VIF}),
        message("unplug", "", {"self": refs.VIF}),
        message("unplug_force", "", {"self": refs.VIF}, since="boston"),
        message("move", "", {"self": refs.VIF, "network": refs.network}, since="ely"),
        message(
            "set_locking_mode", "", {"self": refs.VIF, "value": VIF_LOCKING_MODE}, since="tampa", roles=POOL_OPERATOR
        ),
        message("set_ipv4_allowed", "", {"self": refs.VIF, "value": STRING_SET}, since="tampa", roles=POOL_OPERATOR),
        message("add_ipv4_allowed", "", {"self": refs.VIF, "value": STRING}, since="tampa", roles=POOL_OPERATOR),
        message("remove_ipv4_allowed", "", {"self": refs.VIF, "value": STRING}, since="tampa", roles=POOL_OPERATOR),
        message("set_ipv6_allowed", "", {"self": refs.VIF, "value": STRING_SET}, since="tampa", roles=POOL_OPERATOR),
        message("add_ipv6_allowed", "", {"self": refs.VIF, "value": STRING}, since="tampa", roles=POOL_OPERATOR),
        message("remove_ipv6_allowed", "", {"self": refs.VIF, "value": STRING}, since="tampa", roles=POOL_OPERATOR),
        message(
            "configure_ipv4",
            "",
            {
                "self": refs.VIF,
                "mode": VIF_IPV4_CONFIGURATION_MODE,
                "address": Optional(STRING),
                "gateway": Optional(STRING),
            },
            since="dundee, extended 26.16.0",
            roles=VM_OPERATOR,
        ),
        message(
            "configure_ipv6",
            "",
            {
                "self": refs.VIF,
                "mode": VIF_IPV6_CONFIGURATION_MODE,
                "address": Optional(STRING),
                "gateway": Optional(STRING),
            },
            since="dundee, extended 26.16.0",
            roles=VM_OPERATOR,
        ),
        message("add_trunks", "", {"self": refs.VIF, "value": INT}, since="prototyped 26.17.0"),
        message("remove_trunks", "", {"self": refs.VIF, "value": INT}, since="prototyped 26.17.0"),
        message("set_trunks", "", {"self": refs.VIF, "value": SetType(INT)}, since="prototyped 26.17.0"),
    ],
)

VIF_METRICS = declare(
    "VIF_metrics",
    "",
    since="rio, deprecated tampa, removed tampa",
    roles=VM_ADMIN,
    persist=False,
    fields=[
        uuid(since="rio"),
        namespace(
            "io",
            runtime("read_kbs", FLOAT, "", EMPTY, persist=False),
            runtime("write_kbs", FLOAT, "", EMPTY, persist=False),
        ),
        runtime("last_updated", DATETIME, "", since="rio"),
        other_config(since="orlando"),
    ],
)

CLASSES: tuple[ClassDecl, ...] = (
    NETWORK,
    VIF,
    VIF_METRICS,
)
