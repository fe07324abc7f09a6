"""Citrix Provisioning: sites, servers, proxies, caches."""

from __future__ import annotations

from services.cli.server.record import attr, records

PVS_SITE = records(
    "pvs-site",
    "PVS_site",
    default="uuid name-label name-description pvs-uuid pvs-server-uuids",
    fields=(
        attr("uuid"),
        attr("name-label", write="set"),
        attr("name-description", write="set"),
        attr("pvs-uuid", "PVS_uuid", write="set"),
        attr("pvs-cache-storage-uuids", "cache_storage"),
        attr("pvs-server-uuids", "servers"),
        attr("pvs-proxy-uuids", "proxies"),
    ),
)

PVS_SERVER = records(
    "pvs-server",
    "PVS_server",
    default="uuid addresses pvs-site-uuid",
    fields=(
        attr("uuid"),
        attr("addresses"),
        attr("first-port"),
        attr("last-port"),
        attr("pvs-site-uuid", "site"),
    ),
)

PVS_PROXY = records(
    "pvs-proxy",
    "PVS_proxy",
    default="uuid pvs-site-uuid vif-uuid currently-attached",
    fields=(
        attr("uuid"),
        attr("pvs-site-uuid", "site"),
        attr("vif-uuid", "VIF"),
        attr("currently-attached"),
        attr("status"),
    ),
)

PVS_CACHE_STORAGE = records(
    "pvs-cache-storage",
    "PVS_cache_storage",
    default="uuid host-uuid sr-uuid pvs-site-uuid size",
    fields=(
        attr("uuid"),
        attr("host-uuid", "host"),
        attr("sr-uuid", "SR"),
        attr("pvs-site-uuid", "site"),
        attr("size"),
        attr("vdi-uuid", "VDI"),
    ),
)
