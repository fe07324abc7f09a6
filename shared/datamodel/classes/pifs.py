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
    "",
    roles=POOL_OPERATOR,
    fields=[
        UUID,
        static("device", STRING, ""),
        static("network", refs.network, ""),
        static("host", refs.host, ""),
        static("MAC", STRING, ""),
        static("MTU", INT, ""),
        static("VLAN", INT, ""),
        rw("device_name", STRING, "", internal=True),
        runtime("metrics", refs.PIF_metrics, ""),
        runtime("physical", BOOL, "", EMPTY, since="miami"),
        runtime("currently_attached", BOOL, "", True, since="miami"),
        runtime("ip_configuration_mode", IP_CONFIGURATION_MODE, "", "None", since="miami"),
        runtime("IP", STRING, "", EMPTY, since="miami"),
        runtime("netmask", STRING, "", EMPTY, since="miami"),
        runtime("gateway", STRING, "", EMPTY, since="miami"),
        runtime("DNS", STRING, "", EMPTY, since="miami"),
        runtime("bond_slave_of", refs.Bond, "", UNSET_REF, since="miami"),
        maintained("bond_master_of", "Bond.master", "", since="miami"),
        runtime("VLAN_master_of", refs.VLAN, "", UNSET_REF, since="miami"),
        maintained("VLAN_slave_of", "VLAN.tagged_PIF", "", since="miami"),
        runtime("management", BOOL, "", EMPTY, since="miami"),
        other_config(since="miami"),
        runtime("disallow_unplug", BOOL, "", EMPTY, since="orlando"),
        maintained("tunnel_access_PIF_of", "tunnel.access_PIF", "", since="cowley"),
        maintained("tunnel_transport_PIF_of", "tunnel.transport_PIF", "", since="cowley"),
        runtime("ipv6_configuration_mode", IPV6_CONFIGURATION_MODE, "", "None", since="tampa"),
        runtime("IPv6", STRING_SET, "", EMPTY, since="tampa"),
        runtime("ipv6_gateway", STRING, "", EMPTY, since="tampa"),
        runtime("primary_address_type", PRIMARY_ADDRESS_TYPE, "", "IPv4", since="tampa"),
        static("managed", BOOL, "", True, since="vgpu-productisation"),
        runtime("properties", STRING_MAP, "", EMPTY, since="creedence"),
        runtime("capabilities", STRING_SET, "", EMPTY, since="dundee"),
        runtime("igmp_snooping_status", PIF_IGMP_STATUS, "", "unknown", since="inverness"),
        maintained("sriov_physical_PIF_of", "network_sriov.physical_PIF", "", since="kolkata"),
        maintained("sriov_logical_PIF_of", "network_sriov.logical_PIF", "", since="kolkata"),
        runtime("PCI", refs.PCI, "", EMPTY, since="kolkata"),
    ],
    messages=[
        message(
            "create_VLAN",
            "",
            {"device": STRING, "network": refs.network, "host": refs.host, "VLAN": INT},
            refs.PIF,
            since="rio, deprecated miami",
            errors=("VLAN_TAG_INVALID",),
        ),
        message("destroy", "", {"self": refs.PIF}, since="rio, deprecated miami", errors=("PIF_IS_PHYSICAL",)),
        message(
            "reconfigure_ip",
            "",
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
            "",
            {"self": refs.PIF, "mode": IPV6_CONFIGURATION_MODE, "IPv6": STRING, "gateway": STRING, "DNS": STRING},
            since="tampa",
            errors=("CLUSTERING_ENABLED",),
        ),
        message(
            "set_primary_address_type",
            "",
            {"self": refs.PIF, "primary_address_type": PRIMARY_ADDRESS_TYPE},
            since="tampa",
        ),
        message("scan", "", {"host": refs.host}, since="miami"),
        message(
            "introduce",
            "",
            {"host": refs.host, "MAC": STRING, "device": STRING, "managed": Optional(BOOL, True)},
            refs.PIF,
            since="miami",
        ),
        message(
            "forget",
            "",
            {"self": refs.PIF},
            since="miami",
            errors=(
                "PIF_TUNNEL_STILL_EXISTS",
                "CLUSTERING_ENABLED",
            ),
        ),
        message(
            "unplug",
            "",
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
            "",
            {"self": refs.PIF, "value": BOOL},
            since="orlando",
            errors=(
                "OTHER_OPERATION_IN_PROGRESS",
                "CLUSTERING_ENABLED",
            ),
        ),
        message("plug", "", {"self": refs.PIF}, since="miami", errors=("TRANSPORT_PIF_NOT_CONFIGURED",)),
        message(
            "pool_introduce",
            "",
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
            "",
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
        message("db_forget", "", {"self": refs.PIF}, since="orlando"),
        message("set_property", "", {"self": refs.PIF, "name": STRING, "value": STRING}, since="creedence"),
    ],
)

PIF_METRICS = declare(
    "PIF_metrics",
    "",
    roles=POOL_OPERATOR,
    fields=[
        UUID,
        namespace(
            "io",
            runtime("read_kbs", FLOAT, "", EMPTY, since="rio, deprecated tampa, removed tampa", persist=False),
            runtime("write_kbs", FLOAT, "", EMPTY, since="rio, deprecated tampa, removed tampa", persist=False),
        ),
        runtime("carrier", BOOL, ""),
        runtime("vendor_id", STRING, ""),
        runtime("vendor_name", STRING, ""),
        runtime("device_id", STRING, ""),
        runtime("device_name", STRING, ""),
        runtime("speed", INT, ""),
        runtime("duplex", BOOL, ""),
        runtime("pci_bus_path", STRING, ""),
        runtime("last_updated", DATETIME, ""),
        other_config(since="orlando"),
    ],
)

BOND = declare(
    "Bond",
    "",
    since="miami",
    roles=POOL_OPERATOR,
    fields=[
        uuid(since="rio"),
        static("master", refs.PIF, "", UNSET_REF),
        maintained("slaves", "PIF.bond_slave_of", ""),
        other_config(),
        runtime("primary_slave", refs.PIF, "", EMPTY, since="boston"),
        runtime("mode", BOND_MODE, "", "balance-slb", since="boston"),
        runtime("properties", STRING_MAP, "", EMPTY, since="tampa"),
        runtime("links_up", INT, "", EMPTY, since="tampa"),
        runtime("auto_update_mac", BOOL, "", True, since="quebec"),
    ],
    messages=[
        message(
            "create",
            "",
            {
                "network": refs.network,
                "members": SetType(refs.PIF),
                "MAC": STRING,
                "mode": Optional(BOND_MODE, "balance-slb"),
                "properties": Optional(STRING_MAP),
            },
            refs.Bond,
        ),
        message("destroy", "", {"self": refs.Bond}),
        message("set_mode", "", {"self": refs.Bond, "value": BOND_MODE}, since="boston"),
        message("set_property", "", {"self": refs.Bond, "name": STRING, "value": STRING}, since="tampa"),
    ],
)

VLAN = declare(
    "VLAN",
    "",
    since="miami",
    roles=POOL_OPERATOR,
    fields=[
        uuid(since="rio"),
        static("tagged_PIF", refs.PIF, "", UNSET_REF),
        runtime("untagged_PIF", refs.PIF, "", UNSET_REF),
        static("tag", INT, "", -1),
        other_config(),
    ],
    messages=[
        message(
            "pool_introduce",
            "",
            {"tagged_PIF": refs.PIF, "untagged_PIF": refs.PIF, "tag": INT, "other_config": STRING_MAP},
            refs.VLAN,
            since="inverness",
            hidden=True,
        ),
        message("create", "", {"tagged_PIF": refs.PIF, "tag": INT, "network": refs.network}, refs.VLAN),
        message("destroy", "", {"self": refs.VLAN}),
    ],
)

TUNNEL = declare(
    "tunnel",
    "",
    since="cowley",
    roles=POOL_OPERATOR,
    fields=[
        UUID,
        static("access_PIF", refs.PIF, "", UNSET_REF),
        static("transport_PIF", refs.PIF, "", UNSET_REF),
        rw("status", STRING_MAP, "", {"active": "false"}),
        other_config(),
        rw("protocol", TUNNEL_PROTOCOL, "", "gre", since="1.250.0"),
    ],
    messages=[
        message(
            "create",
            "",
            {"transport_PIF": refs.PIF, "network": refs.network, "protocol": Optional(TUNNEL_PROTOCOL, "gre")},
            refs.tunnel,
            errors=(
                "OPENVSWITCH_NOT_ACTIVE",
                "TRANSPORT_PIF_NOT_CONFIGURED",
                "IS_TUNNEL_ACCESS_PIF",
            ),
        ),
        message("destroy", "", {"self": refs.tunnel}),
    ],
)

NETWORK_SRIOV = declare(
    "network_sriov",
    "",
    since="kolkata",
    roles=POOL_OPERATOR,
    fields=[
        uuid(since="rio"),
        static("physical_PIF", refs.PIF, "", UNSET_REF),
        static("logical_PIF", refs.PIF, "", UNSET_REF),
        runtime("requires_reboot", BOOL, "", EMPTY),
        runtime("configuration_mode", SRIOV_CONFIGURATION_MODE, "", "unknown"),
    ],
    messages=[
        message("create", "", {"pif": refs.PIF, "network": refs.network}, refs.network_sriov),
        message("destroy", "", {"self": refs.network_sriov}),
        message("get_remaining_capacity", "", {"self": refs.network_sriov}, INT, roles=READ_ONLY),
    ],
)

SDN_CONTROLLER = declare(
    "SDN_controller",
    "",
    since="falcon",
    roles=POOL_OPERATOR,
    fields=[
        UUID,
        static("protocol", SDN_CONTROLLER_PROTOCOL, "", "ssl"),
        static("address", STRING, "", EMPTY),
        static("port", INT, "", EMPTY),
    ],
    messages=[
        message(
            "introduce",
            "",
            {"protocol": Optional(SDN_CONTROLLER_PROTOCOL, "ssl"), "address": Optional(STRING), "port": Optional(INT)},
            refs.SDN_controller,
        ),
        message("forget", "", {"self": refs.SDN_controller}),
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
