"""Hosts' interfaces to the physical network, and what is built on them."""

from __future__ import annotations

from shared.datamodel import refs
from shared.datamodel.declare import (
    EMPTY,
    UNSET_REF,
    UUID,
    ClassDecl,
    Optional,
    declare,
    maintained,
    message,
    namespace,
    other_config,
    runtime,
    rw,
    static,
    uuid,
)
from shared.datamodel.roles import POOL_OPERATOR, READ_ONLY
from shared.datamodel.types import BOOL, DATETIME, FLOAT, INT, STRING, STRING_MAP, STRING_SET, EnumType, SetType

BOND_MODE = EnumType(
    "bond_mode",
    (
        "balance-slb",
        "active-backup",
        "lacp",
    ),
    exact=True,
)
IP_CONFIGURATION_MODE = EnumType(
    "ip_configuration_mode",
    (
        "None",
        "DHCP",
        "Static",
    ),
)
IPV6_CONFIGURATION_MODE = EnumType(
    "ipv6_configuration_mode",
    (
        "None",
        "DHCP",
        "Static",
        "Autoconf",
    ),
)
PIF_IGMP_STATUS = EnumType(
    "pif_igmp_status",
    (
        "enabled",
        "disabled",
        "unknown",
    ),
)
PRIMARY_ADDRESS_TYPE = EnumType(
    "primary_address_type",
    (
        "IPv4",
        "IPv6",
    ),
)
SDN_CONTROLLER_PROTOCOL = EnumType(
    "sdn_controller_protocol",
    (
        "ssl",
        "pssl",
    ),
)
SRIOV_CONFIGURATION_MODE = EnumType(
    "sriov_configuration_mode",
    (
        "sysfs",
        "modprobe",
        "manual",
        "unknown",
    ),
)
TUNNEL_PROTOCOL = EnumType(
    "tunnel_protocol",
    (
        "gre",
        "vxlan",
    ),
)

PIF = declare(
    "PIF",
    "A host's network interface: physical, VLAN, bond or tunnel.",
    roles=POOL_OPERATOR,
    fields=[
        UUID,
        static("device", STRING, "Name of the device, such as eth0."),
        static("network", refs.network, "The network it connects the host to."),
        static("host", refs.host, "The host it belongs to."),
        static("MAC", STRING, "Its hardware address."),
        static("MTU", INT, "The largest packet, in bytes."),
        static("VLAN", INT, "Its VLAN tag, -1 for untagged."),
        rw("device_name", STRING, "The device's name in the kernel.", internal=True),
        runtime("metrics", refs.PIF_metrics, "Its traffic, link and hardware."),
        runtime("physical", BOOL, "Whether it is a real device.", EMPTY, since="miami"),
        runtime("currently_attached", BOOL, "Whether it is up.", True, since="miami"),
        runtime("ip_configuration_mode", IP_CONFIGURATION_MODE, "How it gets its IPv4 address.", "None", since="miami"),
        runtime("IP", STRING, "Its IPv4 address.", EMPTY, since="miami"),
        runtime("netmask", STRING, "Its IPv4 netmask.", EMPTY, since="miami"),
        runtime("gateway", STRING, "Its IPv4 gateway.", EMPTY, since="miami"),
        runtime("DNS", STRING, "Its name servers, separated by commas.", EMPTY, since="miami"),
        runtime("bond_slave_of", refs.Bond, "The bond it is part of.", UNSET_REF, since="miami"),
        maintained("bond_master_of", "Bond.master", "The bond that it stands for.", since="miami"),
        runtime("VLAN_master_of", refs.VLAN, "The VLAN that it is the tagged side of.", UNSET_REF, since="miami"),
        maintained("VLAN_slave_of", "VLAN.tagged_PIF", "VLANs that run over it.", since="miami"),
        runtime("management", BOOL, "Whether the host is managed over it.", EMPTY, since="miami"),
        other_config(since="miami"),
        runtime("disallow_unplug", BOOL, "Whether it is protected against being unplugged.", EMPTY, since="orlando"),
        maintained(
            "tunnel_access_PIF_of", "tunnel.access_PIF", "The tunnel that it is the inner end of.", since="cowley"
        ),
        maintained("tunnel_transport_PIF_of", "tunnel.transport_PIF", "Tunnels that run over it.", since="cowley"),
        runtime(
            "ipv6_configuration_mode", IPV6_CONFIGURATION_MODE, "How it gets its IPv6 address.", "None", since="tampa"
        ),
        runtime("IPv6", STRING_SET, "Its IPv6 addresses, with prefix length.", EMPTY, since="tampa"),
        runtime("ipv6_gateway", STRING, "Its IPv6 gateway.", EMPTY, since="tampa"),
        runtime(
            "primary_address_type",
            PRIMARY_ADDRESS_TYPE,
            "Which of its addresses the host is managed at.",
            "IPv4",
            since="tampa",
        ),
        static("managed", BOOL, "Whether the toolstack configures it.", True, since="vgpu-productisation"),
        runtime("properties", STRING_MAP, "Settings of the device, such as gro.", EMPTY, since="creedence"),
        runtime("capabilities", STRING_SET, "What the device can do, such as sriov.", EMPTY, since="dundee"),
        runtime(
            "igmp_snooping_status",
            PIF_IGMP_STATUS,
            "Whether IGMP snooping is on on its bridge.",
            "unknown",
            since="inverness",
        ),
        maintained(
            "sriov_physical_PIF_of",
            "network_sriov.physical_PIF",
            "The SR-IOV network that it carries.",
            since="kolkata",
        ),
        maintained(
            "sriov_logical_PIF_of",
            "network_sriov.logical_PIF",
            "The SR-IOV network that it stands for.",
            since="kolkata",
        ),
        runtime("PCI", refs.PCI, "The PCI device that it is.", EMPTY, since="kolkata"),
    ],
    messages=[
        message(
            "create_VLAN",
            "Makes a VLAN on a device; use `VLAN.create`.",
            {"device": STRING, "network": refs.network, "host": refs.host, "VLAN": INT},
            refs.PIF,
            since="rio, deprecated miami",
            errors=("VLAN_TAG_INVALID",),
        ),
        message(
            "destroy",
            "Removes a VLAN; use `VLAN.destroy`.",
            {"self": refs.PIF},
            since="rio, deprecated miami",
            errors=("PIF_IS_PHYSICAL",),
        ),
        message(
            "reconfigure_ip",
            "Sets its IPv4 address.",
            {
                "self": refs.PIF,
                "mode": IP_CONFIGURATION_MODE,
                "IP": STRING,
                "netmask": STRING,
                "gateway": STRING,
                "DNS": STRING,
            },
            since="miami",
            errors=("CLUSTERING_ENABLED",),
        ),
        message(
            "reconfigure_ipv6",
            "Sets its IPv6 address.",
            {"self": refs.PIF, "mode": IPV6_CONFIGURATION_MODE, "IPv6": STRING, "gateway": STRING, "DNS": STRING},
            since="tampa",
            errors=("CLUSTERING_ENABLED",),
        ),
        message(
            "set_primary_address_type",
            "Sets which of its addresses the host is managed at.",
            {"self": refs.PIF, "primary_address_type": PRIMARY_ADDRESS_TYPE},
            since="tampa",
        ),
        message(
            "scan",
            "Enters new physical interfaces of a host, and forgets those that are gone.",
            {"host": refs.host},
            since="miami",
        ),
        message(
            "introduce",
            "Enters one physical interface.",
            {"host": refs.host, "MAC": STRING, "device": STRING, "managed": Optional(BOOL, True)},
            refs.PIF,
            since="miami",
        ),
        message(
            "forget",
            "Forgets a physical interface.",
            {"self": refs.PIF},
            since="miami",
            errors=(
                "PIF_TUNNEL_STILL_EXISTS",
                "CLUSTERING_ENABLED",
            ),
        ),
        message(
            "unplug",
            "Brings it down.",
            {"self": refs.PIF},
            since="miami",
            errors=(
                "HA_OPERATION_WOULD_BREAK_FAILOVER_PLAN",
                "VIF_IN_USE",
                "PIF_DOES_NOT_ALLOW_UNPLUG",
                "PIF_HAS_FCOE_SR_IN_USE",
            ),
        ),
        message(
            "set_disallow_unplug",
            "Protects it against being unplugged, or not.",
            {"self": refs.PIF, "value": BOOL},
            since="orlando",
            errors=(
                "OTHER_OPERATION_IN_PROGRESS",
                "CLUSTERING_ENABLED",
            ),
        ),
        message("plug", "Brings it up.", {"self": refs.PIF}, since="miami", errors=("TRANSPORT_PIF_NOT_CONFIGURED",)),
        message(
            "pool_introduce",
            "Enters an interface of a joining host.",
            {
                "device": STRING,
                "network": refs.network,
                "host": refs.host,
                "MAC": STRING,
                "MTU": INT,
                "VLAN": INT,
                "physical": BOOL,
                "ip_configuration_mode": IP_CONFIGURATION_MODE,
                "IP": STRING,
                "netmask": STRING,
                "gateway": STRING,
                "DNS": STRING,
                "bond_slave_of": refs.Bond,
                "VLAN_master_of": refs.VLAN,
                "management": BOOL,
                "other_config": STRING_MAP,
                "disallow_unplug": Optional(BOOL),
                "ipv6_configuration_mode": Optional(IPV6_CONFIGURATION_MODE, "None"),
                "IPv6": Optional(STRING_SET),
                "ipv6_gateway": Optional(STRING),
                "primary_address_type": Optional(PRIMARY_ADDRESS_TYPE, "IPv4"),
                "managed": Optional(BOOL, True),
                "properties": Optional(STRING_MAP),
            },
            refs.PIF,
            hidden=True,
        ),
        message(
            "db_introduce",
            "Enters an interface into the database only.",
            {
                "device": STRING,
                "network": refs.network,
                "host": refs.host,
                "MAC": STRING,
                "MTU": INT,
                "VLAN": INT,
                "physical": BOOL,
                "ip_configuration_mode": IP_CONFIGURATION_MODE,
                "IP": STRING,
                "netmask": STRING,
                "gateway": STRING,
                "DNS": STRING,
                "bond_slave_of": refs.Bond,
                "VLAN_master_of": refs.VLAN,
                "management": BOOL,
                "other_config": STRING_MAP,
                "disallow_unplug": Optional(BOOL),
                "ipv6_configuration_mode": Optional(IPV6_CONFIGURATION_MODE, "None"),
                "IPv6": Optional(STRING_SET),
                "ipv6_gateway": Optional(STRING),
                "primary_address_type": Optional(PRIMARY_ADDRESS_TYPE, "IPv4"),
                "managed": Optional(BOOL, True),
                "properties": Optional(STRING_MAP),
            },
            refs.PIF,
            since="orlando",
        ),
        message("db_forget", "Removes it from the database only.", {"self": refs.PIF}, since="orlando"),
        message(
            "set_property",
            "Sets one setting of the device.",
            {"self": refs.PIF, "name": STRING, "value": STRING},
            since="creedence",
        ),
    ],
)

PIF_METRICS = declare(
    "PIF_metrics",
    "Traffic, link and hardware of a host's interface.",
    roles=POOL_OPERATOR,
    fields=[
        UUID,
        namespace(
            "io",
            runtime(
                "read_kbs",
                FLOAT,
                "KiB/s received; use the performance archives.",
                EMPTY,
                since="rio, deprecated tampa, removed tampa",
                persist=False,
            ),
            runtime(
                "write_kbs",
                FLOAT,
                "KiB/s sent; use the performance archives.",
                EMPTY,
                since="rio, deprecated tampa, removed tampa",
                persist=False,
            ),
        ),
        runtime("carrier", BOOL, "Whether it has a link."),
        runtime("vendor_id", STRING, "Number of the hardware's maker."),
        runtime("vendor_name", STRING, "The hardware's maker."),
        runtime("device_id", STRING, "Number of the hardware's model."),
        runtime("device_name", STRING, "The hardware's model."),
        runtime("speed", INT, "Mbit/s of the link, 0 if unknown."),
        runtime("duplex", BOOL, "Whether both ends can send at once."),
        runtime("pci_bus_path", STRING, "Where it is on the PCI bus."),
        runtime("last_updated", DATETIME, "When this was last brought up to date."),
        other_config(since="orlando"),
    ],
)

BOND = declare(
    "Bond",
    "Several interfaces that work as one.",
    since="miami",
    roles=POOL_OPERATOR,
    fields=[
        uuid(since="rio"),
        static("master", refs.PIF, "The interface that stands for the bond.", UNSET_REF),
        maintained("slaves", "PIF.bond_slave_of", "The interfaces bonded."),
        other_config(),
        runtime(
            "primary_slave",
            refs.PIF,
            "The interface that the bond takes its settings and address from.",
            EMPTY,
            since="boston",
        ),
        runtime("mode", BOND_MODE, "How traffic is spread over the interfaces.", "balance-slb", since="boston"),
        runtime("properties", STRING_MAP, "Settings of this mode.", EMPTY, since="tampa"),
        runtime("links_up", INT, "How many of its interfaces have a link.", EMPTY, since="tampa"),
        runtime(
            "auto_update_mac", BOOL, "Whether its hardware address follows its first interface.", True, since="quebec"
        ),
    ],
    messages=[
        message(
            "create",
            "Bonds interfaces of one host.",
            {
                "network": refs.network,
                "members": SetType(refs.PIF),
                "MAC": STRING,
                "mode": Optional(BOND_MODE, "balance-slb"),
                "properties": Optional(STRING_MAP),
            },
            refs.Bond,
        ),
        message("destroy", "Takes the bond apart.", {"self": refs.Bond}),
        message(
            "set_mode",
            "Sets how traffic is spread over the interfaces.",
            {"self": refs.Bond, "value": BOND_MODE},
            since="boston",
        ),
        message(
            "set_property",
            "Sets one setting of the bond.",
            {"self": refs.Bond, "name": STRING, "value": STRING},
            since="tampa",
        ),
    ],
)

VLAN = declare(
    "VLAN",
    "A tagged virtual LAN on an interface.",
    since="miami",
    roles=POOL_OPERATOR,
    fields=[
        uuid(since="rio"),
        static("tagged_PIF", refs.PIF, "The interface whose traffic is tagged.", UNSET_REF),
        runtime("untagged_PIF", refs.PIF, "The interface that stands for the VLAN.", UNSET_REF),
        static("tag", INT, "Its tag.", -1),
        other_config(),
    ],
    messages=[
        message(
            "pool_introduce",
            "Enters a VLAN of a joining host.",
            {"tagged_PIF": refs.PIF, "untagged_PIF": refs.PIF, "tag": INT, "other_config": STRING_MAP},
            refs.VLAN,
            since="inverness",
            hidden=True,
        ),
        message(
            "create",
            "Makes a VLAN that connects a network to an interface.",
            {"tagged_PIF": refs.PIF, "tag": INT, "network": refs.network},
            refs.VLAN,
        ),
        message("destroy", "Removes the VLAN.", {"self": refs.VLAN}),
    ],
)

TUNNEL = declare(
    "tunnel",
    "A network carried inside another one.",
    since="cowley",
    roles=POOL_OPERATOR,
    fields=[
        UUID,
        static("access_PIF", refs.PIF, "The inner end: the interface that stands for the tunnel.", UNSET_REF),
        static("transport_PIF", refs.PIF, "The interface that carries it.", UNSET_REF),
        rw("status", STRING_MAP, "Whether it is active, and the like.", {"active": "false"}),
        other_config(),
        rw("protocol", TUNNEL_PROTOCOL, "How packets are wrapped.", "gre", since="1.250.0"),
    ],
    messages=[
        message(
            "create",
            "Makes a tunnel for a network over an interface.",
            {"transport_PIF": refs.PIF, "network": refs.network, "protocol": Optional(TUNNEL_PROTOCOL, "gre")},
            refs.tunnel,
            errors=(
                "OPENVSWITCH_NOT_ACTIVE",
                "TRANSPORT_PIF_NOT_CONFIGURED",
                "IS_TUNNEL_ACCESS_PIF",
            ),
        ),
        message("destroy", "Removes the tunnel.", {"self": refs.tunnel}),
    ],
)

NETWORK_SRIOV = declare(
    "network_sriov",
    "SR-IOV on an interface: VMs get virtual functions of the hardware.",
    since="kolkata",
    roles=POOL_OPERATOR,
    fields=[
        uuid(since="rio"),
        static("physical_PIF", refs.PIF, "The interface whose hardware is shared.", UNSET_REF),
        static("logical_PIF", refs.PIF, "The interface that stands for it in its network.", UNSET_REF),
        runtime("requires_reboot", BOOL, "Whether the host must reboot to have it work.", EMPTY),
        runtime("configuration_mode", SRIOV_CONFIGURATION_MODE, "How the hardware is set up.", "unknown"),
    ],
    messages=[
        message(
            "create",
            "Turns on SR-IOV on an interface for a network.",
            {"pif": refs.PIF, "network": refs.network},
            refs.network_sriov,
        ),
        message("destroy", "Turns off SR-IOV.", {"self": refs.network_sriov}),
        message(
            "get_remaining_capacity",
            "How many virtual functions are left.",
            {"self": refs.network_sriov},
            INT,
            roles=READ_ONLY,
        ),
    ],
)

SDN_CONTROLLER = declare(
    "SDN_controller",
    "A controller that the hosts' virtual switches obey.",
    since="falcon",
    roles=POOL_OPERATOR,
    fields=[
        UUID,
        static("protocol", SDN_CONTROLLER_PROTOCOL, "How switches talk to it.", "ssl"),
        static("address", STRING, "Its address.", EMPTY),
        static("port", INT, "Its port.", EMPTY),
    ],
    messages=[
        message(
            "introduce",
            "Has the switches obey a controller.",
            {"protocol": Optional(SDN_CONTROLLER_PROTOCOL, "ssl"), "address": Optional(STRING), "port": Optional(INT)},
            refs.SDN_controller,
        ),
        message("forget", "Has the switches stop obeying it.", {"self": refs.SDN_controller}),
    ],
)

CLASSES: tuple[ClassDecl, ...] = (
    PIF,
    PIF_METRICS,
    BOND,
    VLAN,
    TUNNEL,
    NETWORK_SRIOV,
    SDN_CONTROLLER,
)
