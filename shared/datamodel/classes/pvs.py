"""Acceleration of provisioning services."""

from __future__ import annotations

from shared.datamodel import refs
from shared.datamodel.declare import EMPTY, UUID, ClassDecl, declare, maintained, message, names, runtime, static
from shared.datamodel.roles import POOL_OPERATOR
from shared.datamodel.types import BOOL, INT, STRING, STRING_SET, EnumType

PVS_PROXY_STATUS = EnumType(
    "pvs_proxy_status",
    (
        "stopped",
        "initialised",
        "caching",
        "incompatible_write_cache_mode",
        "incompatible_protocol_version",
    ),
)

PVS_SITE = declare(
    "PVS_site",
    "",
    since="ely",
    roles=POOL_OPERATOR,
    fields=[
        UUID,
        names("PVS_site"),
        static("PVS_uuid", STRING, "", EMPTY),
        maintained("cache_storage", "PVS_cache_storage.site", "", stored_here=True),
        maintained("servers", "PVS_server.site", ""),
        maintained("proxies", "PVS_proxy.site", ""),
    ],
    messages=[
        message("introduce", "", {"name_label": STRING, "name_description": STRING, "PVS_uuid": STRING}, refs.PVS_site),
        message(
            "forget",
            "",
            {"self": refs.PVS_site},
            errors=(
                "PVS_SITE_CONTAINS_RUNNING_PROXIES",
                "PVS_SITE_CONTAINS_SERVERS",
            ),
        ),
        message("set_PVS_uuid", "", {"self": refs.PVS_site, "value": STRING}),
    ],
)

PVS_SERVER = declare(
    "PVS_server",
    "",
    since="ely",
    roles=POOL_OPERATOR,
    fields=[
        UUID,
        static("addresses", STRING_SET, "", EMPTY),
        static("first_port", INT, "", EMPTY),
        static("last_port", INT, "", EMPTY),
        static("site", refs.PVS_site, "", EMPTY),
    ],
    messages=[
        message(
            "introduce",
            "",
            {"addresses": STRING_SET, "first_port": INT, "last_port": INT, "site": refs.PVS_site},
            refs.PVS_server,
        ),
        message("forget", "", {"self": refs.PVS_server}),
    ],
)

PVS_PROXY = declare(
    "PVS_proxy",
    "",
    since="ely",
    roles=POOL_OPERATOR,
    fields=[
        UUID,
        static("site", refs.PVS_site, "", EMPTY),
        static("VIF", refs.VIF, "", EMPTY),
        runtime("currently_attached", BOOL, "", EMPTY),
        runtime("status", PVS_PROXY_STATUS, "", "stopped"),
    ],
    messages=[
        message("create", "", {"site": refs.PVS_site, "VIF": refs.VIF}, refs.PVS_proxy),
        message("destroy", "", {"self": refs.PVS_proxy}),
    ],
)

PVS_CACHE_STORAGE = declare(
    "PVS_cache_storage",
    "",
    since="ely",
    roles=POOL_OPERATOR,
    default_ctor_dtor=True,
    fields=[
        UUID,
        static("host", refs.host, "", EMPTY),
        static("SR", refs.SR, "", EMPTY),
        static("site", refs.PVS_site, "", EMPTY),
        static("size", INT, "", 21474836480),
        runtime("VDI", refs.VDI, "", EMPTY),
    ],
)

CLASSES: tuple[ClassDecl, ...] = (
    PVS_SITE,
    PVS_SERVER,
    PVS_PROXY,
    PVS_CACHE_STORAGE,
)
