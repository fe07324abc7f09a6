"""Hosts' interfaces to the physical network."""

from __future__ import annotations

from shared.datamodel import refs
from shared.datamodel.declare import (
    EMPTY,
    UNSET_REF,
    ClassDecl,
    Optional,
    ParamDecls,
    declare,
    maintained,
    message,
    namespace,
    runtime,
    rw,
    setter,
    static,
)
from shared.datamodel.groups import UUID, other_config
from shared.datamodel.roles import POOL_OPERATOR
from shared.datamodel.types import BOOL, DATETIME, FLOAT, INT, STRING, STRING_MAP, STRING_SET, EnumType

IP_CONFIGURATION_MODE = EnumType("ip_configuration_mode", ("None", "DHCP", "Static"))
IPV6_CONFIGURATION_MODE = EnumType("ipv6_configuration_mode", ("None", "DHCP", "Static", "Autoconf"))
PIF_IGMP_STATUS = EnumType("pif_igmp_status", ("enabled", "disabled", "unknown"))
PRIMARY_ADDRESS_TYPE = EnumType("primary_address_type", ("IPv4", "IPv6"))

_ONE_PIF: ParamDecls = {
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
}
"""What there is to say about an interface that exists already."""

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
            errors=("PIF_TUNNEL_STILL_EXISTS", "CLUSTERING_ENABLED"),
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
        setter(
            "disallow_unplug",
            "Protects it against being unplugged, or not.",
            errors=("OTHER_OPERATION_IN_PROGRESS", "CLUSTERING_ENABLED"),
        ),
        message("plug", "Brings it up.", {"self": refs.PIF}, since="miami", errors=("TRANSPORT_PIF_NOT_CONFIGURED",)),
        message(
            "pool_introduce",
            "Enters an interface of a joining host.",
            _ONE_PIF,
            refs.PIF,
            hidden=True,
        ),
        message(
            "db_introduce",
            "Enters an interface into the database only.",
            _ONE_PIF,
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

CLASSES: tuple[ClassDecl, ...] = (PIF, PIF_METRICS)
