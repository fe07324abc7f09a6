"""What is built on hosts' interfaces: bonds, VLANs, tunnels, SR-IOV networks."""

from __future__ import annotations

from shared.datamodel import refs
from shared.datamodel.declare import (
    EMPTY,
    UNSET_REF,
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
from shared.datamodel.groups import UUID, other_config, uuid
from shared.datamodel.roles import POOL_OPERATOR, READ_ONLY
from shared.datamodel.types import BOOL, INT, STRING, STRING_MAP, EnumType, SetType

BOND_MODE = EnumType("bond_mode", ("balance-slb", "active-backup", "lacp"), exact=True)
SDN_CONTROLLER_PROTOCOL = EnumType("sdn_controller_protocol", ("ssl", "pssl"))
SRIOV_CONFIGURATION_MODE = EnumType("sriov_configuration_mode", ("sysfs", "modprobe", "manual", "unknown"))
TUNNEL_PROTOCOL = EnumType("tunnel_protocol", ("gre", "vxlan"))

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
        setter("mode", "Sets how traffic is spread over the interfaces."),
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
            errors=("OPENVSWITCH_NOT_ACTIVE", "TRANSPORT_PIF_NOT_CONFIGURED", "IS_TUNNEL_ACCESS_PIF"),
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

CLASSES: tuple[ClassDecl, ...] = (BOND, VLAN, TUNNEL, NETWORK_SRIOV, SDN_CONTROLLER)
