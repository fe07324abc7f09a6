"""Acceleration of provisioning services."""

from __future__ import annotations

from shared.datamodel import refs
from shared.datamodel.declare import EMPTY, ClassDecl, declare, maintained, message, runtime, setter, static
from shared.datamodel.groups import UUID, names
from shared.datamodel.roles import POOL_OPERATOR
from shared.datamodel.types import BOOL, INT, STRING, STRING_SET, EnumType

PVS_PROXY_STATUS = EnumType(
    "pvs_proxy_status",
    ("stopped", "initialised", "caching", "incompatible_write_cache_mode", "incompatible_protocol_version"),
)

PVS_SITE = declare(
    "PVS_site",
    "Provisioning servers that offer the same disks.",
    since="ely",
    roles=POOL_OPERATOR,
    fields=[
        UUID,
        names("site"),
        static("PVS_uuid", STRING, "The uuid that the provisioning service knows it by.", EMPTY),
        maintained("cache_storage", "PVS_cache_storage.site", "Where hosts cache its disks.", stored_here=True),
        maintained("servers", "PVS_server.site", "Its servers."),
        maintained("proxies", "PVS_proxy.site", "Proxies of VMs that boot from it."),
    ],
    messages=[
        message(
            "introduce",
            "Enters a site.",
            {"name_label": STRING, "name_description": STRING, "PVS_uuid": STRING},
            refs.PVS_site,
        ),
        message(
            "forget",
            "Removes a site that is not in use.",
            {"self": refs.PVS_site},
            errors=("PVS_SITE_CONTAINS_RUNNING_PROXIES", "PVS_SITE_CONTAINS_SERVERS"),
        ),
        setter("PVS_uuid", "Sets the uuid that the provisioning service knows it by."),
    ],
)

PVS_SERVER = declare(
    "PVS_server",
    "A provisioning server.",
    since="ely",
    roles=POOL_OPERATOR,
    fields=[
        UUID,
        static("addresses", STRING_SET, "Its addresses.", EMPTY),
        static("first_port", INT, "The first UDP port it serves.", EMPTY),
        static("last_port", INT, "The last UDP port it serves.", EMPTY),
        static("site", refs.PVS_site, "The site it belongs to.", EMPTY),
    ],
    messages=[
        message(
            "introduce",
            "Enters a server of a site.",
            {"addresses": STRING_SET, "first_port": INT, "last_port": INT, "site": refs.PVS_site},
            refs.PVS_server,
        ),
        message("forget", "Removes it.", {"self": refs.PVS_server}),
    ],
)

PVS_PROXY = declare(
    "PVS_proxy",
    "A cache between a VM's interface and the provisioning servers.",
    since="ely",
    roles=POOL_OPERATOR,
    fields=[
        UUID,
        static("site", refs.PVS_site, "The site that its VM boots from.", EMPTY),
        static("VIF", refs.VIF, "The interface it listens on.", EMPTY),
        runtime("currently_attached", BOOL, "Whether it is at work.", EMPTY),
        runtime("status", PVS_PROXY_STATUS, "What it is doing.", "stopped"),
    ],
    messages=[
        message("create", "Gives a VM interface a proxy.", {"site": refs.PVS_site, "VIF": refs.VIF}, refs.PVS_proxy),
        message("destroy", "Removes the proxy.", {"self": refs.PVS_proxy}),
    ],
)

PVS_CACHE_STORAGE = declare(
    "PVS_cache_storage",
    "Where a host caches a site's disks.",
    since="ely",
    roles=POOL_OPERATOR,
    default_ctor_dtor=True,
    fields=[
        UUID,
        static("host", refs.host, "The host.", EMPTY),
        static("SR", refs.SR, "The SR that the cache is in.", EMPTY),
        static("site", refs.PVS_site, "The site.", EMPTY),
        static("size", INT, "Bytes it may take.", 21474836480),
        runtime("VDI", refs.VDI, "The disk that is the cache.", EMPTY),
    ],
)

CLASSES: tuple[ClassDecl, ...] = (PVS_SITE, PVS_SERVER, PVS_PROXY, PVS_CACHE_STORAGE)
