"""Networking, storage and other settings of the pool."""

from __future__ import annotations

from shared.datamodel import refs
from shared.datamodel.declare import MessageDecl, adder, message, remover, setter
from shared.datamodel.groups import new_blob
from shared.datamodel.roles import POOL_ADMIN
from shared.datamodel.types import INT, STRING, STRING_MAP, SetType

MESSAGES: tuple[MessageDecl, ...] = (
    message(
        "create_VLAN",
        "Makes a VLAN of a network on the same device of every host.",
        {"device": STRING, "network": refs.network, "VLAN": INT},
        SetType(refs.PIF),
        errors=("VLAN_TAG_INVALID",),
    ),
    message(
        "management_reconfigure",
        "Moves management of every host to another network.",
        {"network": refs.network},
        since="inverness",
        errors=(
            "HA_IS_ENABLED",
            "PIF_NOT_PRESENT",
            "CANNOT_PLUG_BOND_SLAVE",
            "PIF_INCOMPATIBLE_PRIMARY_ADDRESS_TYPE",
            "PIF_HAS_NO_NETWORK_CONFIGURATION",
            "PIF_HAS_NO_V6_NETWORK_CONFIGURATION",
        ),
    ),
    message(
        "create_VLAN_from_PIF",
        "Makes a VLAN on the interface that corresponds to this one on every host.",
        {"pif": refs.PIF, "network": refs.network, "VLAN": INT},
        SetType(refs.PIF),
        errors=("VLAN_TAG_INVALID",),
    ),
    new_blob("pool", refs.pool),
    message("enable_binary_storage", "Allows blobs on every host.", since="orlando", hidden=True),
    message("disable_binary_storage", "Forbids blobs on every host and deletes them.", since="orlando", hidden=True),
    message(
        "set_vswitch_controller",
        "Sets the controller of the virtual switches; use class SDN_controller.",
        {"address": STRING},
        since="midnight-ride, extended cowley, deprecated falcon",
    ),
    message(
        "test_archive_target",
        "Tries whether snapshots could be archived there.",
        {"self": refs.pool, "config": STRING_MAP},
        STRING,
        since="cowley",
        sync_only=True,
    ),
    message(
        "enable_local_storage_caching",
        "Caches shared disks on local storage of every host.",
        {"self": refs.pool},
        since="cowley",
    ),
    message(
        "disable_local_storage_caching",
        "Stops caching on local storage on every host.",
        {"self": refs.pool},
        since="cowley",
    ),
    setter("igmp_snooping_enabled", "Turns IGMP snooping on or off on every bridge."),
    adder("guest_agent_config", "Adds a setting for guests.", roles=POOL_ADMIN),
    remover("guest_agent_config", "Removes a setting for guests.", roles=POOL_ADMIN),
)
