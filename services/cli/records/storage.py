"""Storage repositories, plugs, drivers, disks and drives."""

from __future__ import annotations

from services.cli.server.objects import Row
from services.cli.server.readers import throughput
from services.cli.server.record import attr, computed, name_of, records, values
from services.cli.server.values import MISSING, Value
from shared.errors import ApiError


async def _host(row: Row) -> Value:
    """Where a repository is plugged in: many plugs mean that it is shared."""
    plugs = row.record["PBDs"]
    if len(plugs) > 1:
        return "<shared>"
    plug = await row.objects.record("PBD", plugs[0]) if plugs else None
    host = None if plug is None else await row.objects.record("host", plug["host"])
    return MISSING if host is None else str(host["name_label"])


async def _metadata_of_pool(row: Row) -> Value:
    local = await row.objects.record("pool", row.record["metadata_of_pool"])
    if local is not None:
        return str(local["uuid"])
    if row.record["type"] != "metadata":
        return MISSING
    return str(await row.api.call("VDI.read_database_pool_uuid", row.ref)) or MISSING


async def _vdi_name(row: Row) -> Value:
    if row.record["empty"]:
        return "<EMPTY>"
    disk = await row.behind("VDI", "VDI")
    return MISSING if disk is None else str(disk["name_label"])


async def _attachable(row: Row) -> Value:
    try:
        await row.api.call("VBD.assert_attachable", row.ref)
    except ApiError as error:
        return f"false (error: {error})"
    return "true"


SR = records(
    "sr",
    "SR",
    standard=True,
    default="uuid name-label name-description host type content-type",
    fields=(
        attr("uuid"),
        attr("name-label", write="set"),
        attr("name-description", write="set"),
        computed("host", _host, needs=["PBD", "host"]),
        attr("allowed-operations"),
        values("current-operations"),
        attr("VDIs"),
        attr("PBDs"),
        attr("virtual-allocation"),
        attr("physical-utilisation"),
        attr("physical-size"),
        attr("type"),
        attr("content-type"),
        attr("shared", write="set"),
        attr("introduced-by"),
        attr("is-tools-sr"),
        attr("other-config", write="add remove"),
        attr("sm-config"),
        attr("blobs", view=""),
        attr("local-cache-enabled"),
        attr("tags", joiner=", ", write="add remove"),
        attr("clustered"),
    ),
)

SM = records(
    "sm",
    "SM",
    default="uuid name-label name-description type vendor copyright configuration",
    fields=(
        attr("uuid"),
        attr("name-label"),
        attr("name-description"),
        attr("type"),
        attr("vendor"),
        attr("copyright"),
        attr("required-api-version"),
        attr("capabilities", view="", deprecated=True),
        attr("features"),
        attr("configuration", view=""),
        attr("driver-filename"),
        attr("required-cluster-stack", joiner=", ", view=""),
        attr("supported-image-formats", view=""),
    ),
)

PBD = records(
    "pbd",
    "PBD",
    default="uuid host-uuid sr-uuid device-config currently-attached",
    fields=(
        attr("uuid"),
        attr("host", deprecated=True),
        attr("host-uuid", "host"),
        name_of("host-name-label", "host"),
        attr("sr-uuid", "SR"),
        name_of("sr-name-label", "SR"),
        attr("device-config"),
        attr("currently-attached"),
        attr("other-config", write="add remove"),
    ),
)

VDI = records(
    "vdi",
    "VDI",
    default="uuid name-label name-description sr-uuid virtual-size sharable read-only",
    fields=(
        attr("uuid"),
        attr("name-label", write="set"),
        attr("name-description", write="set"),
        attr("is-a-snapshot"),
        attr("snapshot-of"),
        attr("snapshots", view=""),
        attr("snapshot-time"),
        attr("allowed-operations"),
        values("current-operations"),
        attr("sr-uuid", "SR"),
        name_of("sr-name-label", "SR"),
        attr("vbd-uuids", "VBDs"),
        attr("crashdump-uuids", "crash_dumps"),
        attr("virtual-size"),
        attr("physical-utilisation"),
        attr("location"),
        attr("type"),
        attr("sharable"),
        attr("read-only"),
        attr("storage-lock"),
        attr("managed"),
        attr("parent", deprecated=True),
        attr("missing"),
        attr("is-tools-iso"),
        attr("other-config", write="add remove"),
        attr("xenstore-data", write="clear"),
        attr("sm-config"),
        attr("on-boot", write="set"),
        attr("allow-caching", write="set"),
        attr("metadata-latest"),
        computed("metadata-of-pool", _metadata_of_pool, needs=["pool"]),
        attr("tags", joiner=", ", write="add remove"),
        attr("cbt-enabled"),
    ),
)

VBD = records(
    "vbd",
    "VBD",
    default="uuid vm-uuid vm-name-label vdi-uuid empty device",
    fields=(
        attr("uuid"),
        attr("vm-uuid", "VM"),
        name_of("vm-name-label", "VM"),
        attr("vdi-uuid", "VDI"),
        computed("vdi-name-label", _vdi_name, needs=["VDI"]),
        attr("allowed-operations"),
        values("current-operations"),
        attr("empty"),
        attr("device"),
        attr("userdevice", write="set"),
        attr("bootable", write="set"),
        attr("mode", write="set"),
        attr("type", write="set"),
        attr("unpluggable", write="set"),
        attr("currently-attached"),
        computed("attachable", _attachable, expensive=True),
        attr("storage-lock"),
        attr("status-code"),
        attr("status-detail"),
        attr("qos_algorithm_type", write="set"),
        attr("qos_algorithm_params", write="add remove"),
        attr("qos_supported_algorithms"),
        attr("other-config", write="add remove"),
        computed("io_read_kbs", throughput("VM.query_data_source", "VM", "vbd_{}_read"), expensive=True),
        computed("io_write_kbs", throughput("VM.query_data_source", "VM", "vbd_{}_write"), expensive=True),
    ),
)
