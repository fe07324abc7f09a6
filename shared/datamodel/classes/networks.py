"""Virtual networks and the VMs' interfaces to them."""

from __future__ import annotations

from shared.datamodel import refs
from shared.datamodel.declare import (
    EMPTY,
    ClassDecl,
    Optional,
    adder,
    declare,
    maintained,
    message,
    namespace,
    remover,
    runtime,
    rw,
    setter,
    static,
)
from shared.datamodel.groups import BLOBS, CLIENT_KEYS, QOS, TAGS, UUID, names, new_blob, operations, other_config, uuid
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

NETWORK_DEFAULT_LOCKING_MODE = EnumType("network_default_locking_mode", ("unlocked", "disabled"))
NETWORK_OPERATIONS = EnumType("network_operations", ("attaching",))
NETWORK_PURPOSE = EnumType("network_purpose", ("nbd", "insecure_nbd"))
VIF_IPV4_CONFIGURATION_MODE = EnumType("vif_ipv4_configuration_mode", ("None", "Static", "DHCP"))
VIF_IPV6_CONFIGURATION_MODE = EnumType("vif_ipv6_configuration_mode", ("None", "Static", "Autoconf"))
VIF_LOCKING_MODE = EnumType("vif_locking_mode", ("network_default", "locked", "unlocked", "disabled"))
VIF_OPERATIONS = EnumType("vif_operations", ("attach", "plug", "unplug"))

NETWORK = declare(
    "network",
    "A virtual network that VMs and hosts connect to.",
    roles=VM_ADMIN,
    default_ctor_dtor=True,
    fields=[
        UUID,
        names("network", roles=POOL_OPERATOR),
        operations(NETWORK_OPERATIONS),
        maintained("VIFs", "VIF.network", "VM interfaces connected to it."),
        maintained("PIFs", "PIF.network", "Host interfaces connected to it."),
        rw("MTU", INT, "The largest packet, in bytes.", 1500, since="midnight-ride"),
        other_config(
            default=MISSING,
            roles=POOL_OPERATOR,
            keys={**CLIENT_KEYS, "XenCenterCreateInProgress": VM_OPERATOR},
        ),
        static("bridge", STRING, "Name of its bridge on hosts.", EMPTY, since="rio, changed falcon"),
        static("managed", BOOL, "Whether the toolstack makes its bridge.", True, since="falcon"),
        BLOBS,
        TAGS,
        runtime(
            "default_locking_mode",
            NETWORK_DEFAULT_LOCKING_MODE,
            "What VM interfaces may send when they leave it to the network.",
            "unlocked",
            since="tampa",
        ),
        runtime(
            "assigned_ips",
            MapType(refs.VIF, STRING),
            "Addresses given to VM interfaces, where the host hands them out.",
            EMPTY,
            since="creedence",
        ),
        runtime(
            "purpose",
            SetType(NETWORK_PURPOSE),
            "What it is for, such as serving disks by NBD.",
            EMPTY,
            since="inverness",
        ),
    ],
    messages=[
        message(
            "attach",
            "Makes its bridge on a host.",
            {"network": refs.network, "host": refs.host},
            since="miami",
            roles=POOL_OPERATOR,
            hidden=True,
        ),
        message(
            "pool_introduce",
            "Enters a network of a joining host.",
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
        new_blob("network", refs.network, POOL_OPERATOR),
        message(
            "set_default_locking_mode",
            "Sets what VM interfaces may send when they leave it to the network.",
            {"network": refs.network, "value": NETWORK_DEFAULT_LOCKING_MODE},
            since="tampa",
            roles=POOL_OPERATOR,
        ),
        message(
            "attach_for_vm",
            "Makes its bridges on a host before a VM arrives there.",
            {"host": refs.host, "vm": refs.VM},
            since="tampa",
            roles=VM_POWER_ADMIN,
            hidden=True,
        ),
        message(
            "detach_for_vm",
            "Removes bridges that were made for a VM.",
            {"host": refs.host, "vm": refs.VM},
            since="tampa",
            roles=VM_POWER_ADMIN,
            hidden=True,
        ),
        adder("purpose", "Adds a purpose.", roles=POOL_ADMIN, errors=("NETWORK_INCOMPATIBLE_PURPOSES",)),
        remover("purpose", "Removes a purpose.", roles=POOL_ADMIN),
    ],
)

VIF = declare(
    "VIF",
    "A VM's network interface.",
    roles=VM_ADMIN,
    default_ctor_dtor=True,
    fields=[
        UUID,
        operations(VIF_OPERATIONS),
        static("device", STRING, "Its position in the VM: a number."),
        static("network", refs.network, "The network it is connected to."),
        static("VM", refs.VM, "The VM it belongs to."),
        static("MAC", STRING, "Its hardware address."),
        static("MTU", INT, "The largest packet, in bytes."),
        runtime("reserved", BOOL, "Whether it is set aside while something is done to it.", internal=True),
        other_config(default=MISSING),
        static(
            "currently_attached", BOOL, "Whether it is plugged into a running VM.", EMPTY, since="rio, changed 1.257.0"
        ),
        runtime("status_code", INT, "Error number of the last plug or unplug."),
        runtime("status_detail", STRING, "What the last plug or unplug said."),
        runtime("runtime_properties", STRING_MAP, "What it has been given while plugged."),
        QOS,
        runtime(
            "metrics",
            refs.VIF_metrics,
            "Its traffic figures; no longer kept here.",
            EMPTY,
            since="rio, deprecated tampa, removed tampa",
        ),
        runtime("MAC_autogenerated", BOOL, "Whether its hardware address was made up for it.", EMPTY, since="george"),
        static("locking_mode", VIF_LOCKING_MODE, "What it may send.", "network_default", since="tampa"),
        static("ipv4_allowed", STRING_SET, "IPv4 addresses it may send from, when locked.", EMPTY, since="tampa"),
        static("ipv6_allowed", STRING_SET, "IPv6 addresses it may send from, when locked.", EMPTY, since="tampa"),
        runtime(
            "ipv4_configuration_mode",
            VIF_IPV4_CONFIGURATION_MODE,
            "How the guest gets its IPv4 address.",
            "None",
            since="dundee",
        ),
        runtime("ipv4_addresses", STRING_SET, "Static IPv4 addresses, with prefix length.", EMPTY, since="dundee"),
        runtime("ipv4_gateway", STRING, "Static IPv4 gateway.", EMPTY, since="dundee"),
        runtime(
            "ipv6_configuration_mode",
            VIF_IPV6_CONFIGURATION_MODE,
            "How the guest gets its IPv6 address.",
            "None",
            since="dundee",
        ),
        runtime("ipv6_addresses", STRING_SET, "Static IPv6 addresses, with prefix length.", EMPTY, since="dundee"),
        runtime("ipv6_gateway", STRING, "Static IPv6 gateway.", EMPTY, since="dundee"),
        runtime(
            "reserved_pci",
            refs.PCI,
            "The virtual function that is set aside for it.",
            EMPTY,
            since="kolkata",
            internal=True,
        ),
        static("trunks", SetType(INT), "VLAN tags that the guest may use.", EMPTY, since="prototyped 26.17.0"),
    ],
    messages=[
        message("plug", "Plugs it into the running VM.", {"self": refs.VIF}),
        message("unplug", "Unplugs it from the running VM.", {"self": refs.VIF}),
        message("unplug_force", "Unplugs it whether the guest agrees or not.", {"self": refs.VIF}, since="boston"),
        message(
            "move",
            "Connects it to another network, even while the VM runs.",
            {"self": refs.VIF, "network": refs.network},
            since="ely",
        ),
        setter("locking_mode", "Sets what it may send.", roles=POOL_OPERATOR),
        setter("ipv4_allowed", "Sets the IPv4 addresses it may send from.", roles=POOL_OPERATOR),
        adder("ipv4_allowed", "Adds an IPv4 address it may send from.", roles=POOL_OPERATOR),
        remover("ipv4_allowed", "Removes an IPv4 address it may send from.", roles=POOL_OPERATOR),
        setter("ipv6_allowed", "Sets the IPv6 addresses it may send from.", roles=POOL_OPERATOR),
        adder("ipv6_allowed", "Adds an IPv6 address it may send from.", roles=POOL_OPERATOR),
        remover("ipv6_allowed", "Removes an IPv6 address it may send from.", roles=POOL_OPERATOR),
        message(
            "configure_ipv4",
            "Tells the guest which IPv4 address to use.",
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
            "Tells the guest which IPv6 address to use.",
            {
                "self": refs.VIF,
                "mode": VIF_IPV6_CONFIGURATION_MODE,
                "address": Optional(STRING),
                "gateway": Optional(STRING),
            },
            since="dundee, extended 26.16.0",
            roles=VM_OPERATOR,
        ),
        adder("trunks", "Lets the guest use a VLAN tag."),
        remover("trunks", "Forbids the guest a VLAN tag."),
        setter("trunks", "Sets the VLAN tags that the guest may use."),
    ],
)

VIF_METRICS = declare(
    "VIF_metrics",
    "Traffic of a VM's interface; no longer kept here.",
    since="rio, deprecated tampa, removed tampa",
    roles=VM_ADMIN,
    persist=False,
    fields=[
        uuid(since="rio"),
        namespace(
            "io",
            runtime("read_kbs", FLOAT, "KiB/s received.", EMPTY, persist=False),
            runtime("write_kbs", FLOAT, "KiB/s sent.", EMPTY, persist=False),
        ),
        runtime("last_updated", DATETIME, "When this was last brought up to date.", since="rio"),
        other_config(since="orlando"),
    ],
)

CLASSES: tuple[ClassDecl, ...] = (NETWORK, VIF, VIF_METRICS)
