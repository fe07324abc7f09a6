"""Network, clock and storage settings of hosts."""

from __future__ import annotations

from shared.datamodel import refs
from shared.datamodel.classes.host.enums import HOST_DISPLAY
from shared.datamodel.declare import MessageDecl, message, setter
from shared.datamodel.roles import READ_ONLY, VM_OPERATOR
from shared.datamodel.types import BOOL, DATETIME, STRING, STRING_MAP, STRING_SET

MESSAGES: tuple[MessageDecl, ...] = (
    message("management_reconfigure", "Moves its management to another interface.", {"pif": refs.PIF}, since="miami"),
    message(
        "local_management_reconfigure",
        "Moves this host's management to another device, without the database.",
        {"interface": STRING},
        since="miami",
        sync_only=True,
        emergency=True,
    ),
    message(
        "management_disable", "Closes this host's management interface.", since="miami", sync_only=True, emergency=True
    ),
    message(
        "get_management_interface",
        "The interface that it is managed over.",
        {"host": refs.host},
        refs.PIF,
        since="tampa",
    ),
    message(
        "set_hostname_live",
        "Changes its name in the network.",
        {"host": refs.host, "hostname": STRING},
        since="miami",
        errors=("HOST_NAME_INVALID",),
        sync_only=True,
    ),
    message(
        "get_servertime",
        "Its clock, in UTC.",
        {"host": refs.host},
        DATETIME,
        since="orlando",
        roles=READ_ONLY,
        sync_only=True,
    ),
    message(
        "get_server_localtime",
        "Its clock, in its time zone.",
        {"host": refs.host},
        DATETIME,
        since="cowley",
        roles=READ_ONLY,
        sync_only=True,
    ),
    message(
        "reset_networking",
        "Forgets all its networking, to be set up anew.",
        {"host": refs.host},
        since="boston",
        hidden=True,
    ),
    message(
        "enable_local_storage_caching",
        "Caches shared disks on this local SR.",
        {"host": refs.host, "sr": refs.SR},
        since="cowley",
        sync_only=True,
    ),
    message(
        "disable_local_storage_caching",
        "Stops caching on local storage.",
        {"host": refs.host},
        since="cowley",
        sync_only=True,
    ),
    message(
        "enable_display",
        "Shows its console on its screen, from the next boot on.",
        {"host": refs.host},
        HOST_DISPLAY,
        since="cream",
    ),
    message(
        "disable_display",
        "Keeps its console off its screen, from the next boot on.",
        {"host": refs.host},
        HOST_DISPLAY,
        since="cream",
    ),
    message(
        "mxgpu_vf_setup",
        "Sets up virtual functions of an AMD GPU.",
        {"host": refs.host},
        since="falcon",
        roles=VM_OPERATOR,
        pool_internal=True,
    ),
    message(
        "nvidia_vf_setup",
        "Sets up virtual functions of an NVIDIA GPU.",
        {"host": refs.host, "pf": refs.PCI, "enable": BOOL},
        since="quebec",
        roles=VM_OPERATOR,
        pool_internal=True,
    ),
    message(
        "set_iscsi_iqn", "Sets its name as an iSCSI initiator.", {"host": refs.host, "value": STRING}, since="kolkata"
    ),
    message(
        "set_multipathing",
        "Sets whether it uses several paths to its storage.",
        {"host": refs.host, "value": BOOL},
        since="kolkata",
    ),
    message(
        "update_firewalld_service_status",
        "Opens and closes its ports as its services need.",
        since="prototyped 25.34.0",
        sync_only=True,
        pool_internal=True,
        emergency=True,
    ),
    setter("ntp_mode", "Sets where its time servers come from."),
    setter("ntp_custom_servers", "Sets its own time servers."),
    message(
        "get_ntp_servers_status",
        "How its time servers answer.",
        {"self": refs.host},
        STRING_MAP,
        since="prototyped 26.0.0",
        roles=READ_ONLY,
    ),
    setter("timezone", "Sets its time zone."),
    message(
        "list_timezones",
        "Time zones it knows.",
        {"self": refs.host},
        STRING_SET,
        since="prototyped 26.0.0",
        roles=READ_ONLY,
    ),
    message(
        "get_ntp_synchronized",
        "Whether its clock follows the time servers.",
        {"self": refs.host},
        BOOL,
        since="prototyped 26.0.0",
        roles=READ_ONLY,
    ),
    message(
        "set_servertime", "Sets its clock by hand.", {"self": refs.host, "value": DATETIME}, since="prototyped 26.0.0"
    ),
)
