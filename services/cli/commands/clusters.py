"""Clusters of hosts, PVS sites, the SDN controller, drivers."""

from __future__ import annotations

from services.cli.commands.prompts import FORCE_NEEDED
from services.cli.server.command import HOST, Call, command
from services.cli.server.failures import CommandError
from services.cli.server.objects import Row
from services.cli.server.selectors import on_each
from services.cli.server.simple import message
from services.cli.server.values import size

_TIMEOUTS = (("token-timeout", 20.0), ("token-timeout-coefficient", 1.0))


async def _cache_storage_create(call: Call) -> None:
    async def on(host: Row) -> None:
        record = {
            "host": host.ref,
            "SR": await call.ref("sr-uuid", "SR"),
            "site": await call.ref("pvs-site-uuid", "PVS_site"),
            "size": size("size", call.params["size"]),
        }
        await call.print_uuid("PVS_cache_storage", await call.api.call("PVS_cache_storage.create", record))

    await on_each(call, on)


async def _driver_select(call: Call) -> None:
    driver, name = await call.ref("uuid", "Host_driver"), call.params["variant-name"]
    for variant in await call.api.call("Host_driver.get_variants", driver):
        record = await call.objects.record("Driver_variant", variant)
        if record is not None and record["name"] == name:
            await call.api.call("Host_driver.select", driver, variant)
            return
    raise CommandError(f"{name} does not identify a variant of this driver")


async def _driver_deselect(call: Call) -> None:
    if not call.params.flag("force"):
        raise CommandError(FORCE_NEEDED)
    await call.api.call("Host_driver.deselect", await call.ref("uuid", "Host_driver"))


COMMANDS = (
    message(
        "cluster-create",
        "Cluster.create",
        "pif-uuid",
        ("cluster-stack", "corosync"),
        ("pool-auto-join", True),
        *_TIMEOUTS,
        flags="Hidden",
    ),
    message("cluster-destroy", "Cluster.destroy", "uuid"),
    message("cluster-pool-create", "Cluster.pool_create", "network-uuid", ("cluster-stack", "corosync"), *_TIMEOUTS),
    message("cluster-pool-destroy", "Cluster.pool_destroy", "cluster-uuid"),
    message("cluster-pool-force-destroy", "Cluster.pool_force_destroy", "cluster-uuid"),
    message("cluster-pool-resync", "Cluster.pool_resync", "cluster-uuid"),
    message("cluster-host-create", "Cluster_host.create", "cluster-uuid", "host-uuid", "pif-uuid", flags="Hidden"),
    message("cluster-host-destroy", "Cluster_host.destroy", "uuid"),
    message("cluster-host-disable", "Cluster_host.disable", "uuid"),
    message("cluster-host-enable", "Cluster_host.enable", "uuid"),
    message("cluster-host-force-destroy", "Cluster_host.force_destroy", "uuid"),
    message("pvs-site-introduce", "PVS_site.introduce", "name-label", ("name-description", ""), ("pvs-uuid", "")),
    message("pvs-site-forget", "PVS_site.forget", "uuid"),
    message("pvs-server-introduce", "PVS_server.introduce", "addresses", "first-port", "last-port", "pvs-site-uuid"),
    message("pvs-server-forget", "PVS_server.forget", "uuid"),
    message("pvs-proxy-create", "PVS_proxy.create", "pvs-site-uuid", "vif-uuid"),
    message("pvs-proxy-destroy", "PVS_proxy.destroy", "uuid"),
    command(
        "pvs-cache-storage-create",
        _cache_storage_create,
        "Gives a PVS site a cache on a host's SR.",
        required="sr-uuid pvs-site-uuid size",
        selector=HOST,
    ),
    message("pvs-cache-storage-destroy", "PVS_cache_storage.destroy", "uuid"),
    message(
        "sdn-controller-introduce",
        "SDN_controller.introduce",
        ("protocol", "ssl"),
        ("address", ""),
        ("tcp-port", 0),
    ),
    message("pool-set-vswitch-controller", "pool.set_vswitch_controller", "address", flags="Hidden"),
    command(
        "hostdriver-select",
        _driver_select,
        "Chooses a driver's variant by name.",
        required="uuid variant-name",
    ),
    command(
        "hostdriver-deselect",
        _driver_deselect,
        "Goes back to the variant that the host chooses itself.",
        required="uuid",
        optional="force",
    ),
    message("hostdriver-variant-select", "Driver_variant.select", "uuid"),
    message("hostdriver-rescan", "Host_driver.rescan", selector=HOST),
)
