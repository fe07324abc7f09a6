"""Storage repositories, plugs and disks."""

from __future__ import annotations

from typing import Any

from services.cli.commands.prompts import FORCE_NEEDED
from services.cli.server.command import HOST, Call, command
from services.cli.server.failures import CommandError
from services.cli.server.simple import create, message
from services.cli.server.values import parsed, size
from shared.datamodel import model
from shared.datamodel.types import NULL_REF

_DISK_TYPES = ("system", "user", "suspend", "crashdump")
_FILE = "-filename"


async def loaded(call: Call, filename: str) -> str:
    """A text file of the client's. Raises `CommandError` if it cannot be read."""
    data = await call.terminal.load(filename)
    if data is None:
        raise CommandError(f"Failed to read {filename}")
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise CommandError(f"{filename} is not UTF-8 text") from error


async def _host(call: Call, shared: bool) -> str:
    """The host that makes the SR: the coordinator, unless the SR is one host's own and there are several."""
    if "host-uuid" in call.params:
        return await call.ref("host-uuid", "host")
    hosts = await call.objects.all("host")
    if not shared and len(hosts) > 1:
        raise CommandError("Required parameter not found: host-uuid")
    return await coordinator(call)


async def coordinator(call: Call) -> str:
    pool = next(iter((await call.objects.all("pool")).values()))
    return str(pool["master"])


async def _device_config(call: Call) -> dict[str, str]:
    """`device-config:`; a key that ends in `-filename` stands for the content of that file."""
    config: dict[str, str] = {}
    for key, value in call.params.mapping("device-config").items():
        if key.endswith(_FILE):
            config[key.removesuffix(_FILE)] = await loaded(call, value)
        else:
            config[key] = value
    return config


async def _sr_create(call: Call) -> None:
    params = call.params
    shared = params.flag("shared")
    host = await _host(call, shared)
    try:
        amount = size("physical-size", params.get("physical-size", "0"))
    except CommandError:
        amount = 0  # the drivers that need it complain themselves
    sr = await call.api.call(
        "SR.create",
        host,
        await _device_config(call),
        amount,
        params["name-label"],
        params.get("name-description"),
        params["type"],
        params.get("content-type"),
        shared,
        params.mapping("sm-config"),
    )
    await call.print_uuid("SR", sr)


async def _sr_probe(call: Call) -> None:
    host = await call.optional_ref("host-uuid", "host") or await coordinator(call)
    params = call.params
    text = await call.api.call(
        "SR.probe", host, params.mapping("device-config"), params["type"], params.mapping("sm-config")
    )
    await call.printer.items([str(text)])


async def _sr_probe_ext(call: Call) -> None:
    """SRs first, then what is enough to make one, then what is not."""
    host = await call.optional_ref("host-uuid", "host") or await coordinator(call)
    params = call.params
    found = await call.api.call(
        "SR.probe_ext", host, params.mapping("device-config"), params["type"], params.mapping("sm-config")
    )
    whole = [result for result in found if result["sr"] is not None]
    rest = [result for result in found if result["sr"] is None]
    parts = (
        ("SR", "The following SRs were found:", whole),
        ("Configuration", "Complete configurations:", [result for result in rest if result["complete"]]),
        ("Configuration", "Incomplete configurations:", [result for result in rest if not result["complete"]]),
    )
    for name, title, results in parts:
        if results:
            await call.printer.message(title)
        for number, result in enumerate(results):
            about = {f"{name} {number} extra information": result["extra_info"]}
            if result["sr"] is None:
                about = {f"{name} {number}": result["configuration"], **about}
            else:
                about = {
                    f"{name} {number}": _shown(result["sr"]),
                    f"{name} {number} configuration": result["configuration"],
                    **about,
                }
            for heading, values in about.items():
                await call.printer.message(f"{heading}:")
                await call.printer.table([list(values.items())])


def _shown(sr: dict[str, Any]) -> dict[str, str]:
    """An SR that a driver has found, with its fields named as those of an SR are."""
    known = {key: value for key, value in sr.items() if value is not None}
    texts = {key: str(value).lower() if isinstance(value, bool) else str(value) for key, value in known.items()}
    return {key.replace("_", "-"): text for key, text in texts.items()}


async def _vdi_generate_config(call: Call) -> None:
    vdi = await call.ref("uuid", "VDI")
    text = await call.api.call("VDI.generate_config", await call.ref("host-uuid", "host"), vdi)
    await call.printer.items([str(text)])


async def _vdi_introduce(call: Call) -> None:
    params = call.params
    vdi = await call.api.call(
        "VDI.introduce",
        params["uuid"],
        params.get("name-label"),
        params.get("name-description"),
        await call.ref("sr-uuid", "SR"),
        await parsed(model.classes["VDI"].fields["type"].type, "type", params["type"], call.objects),
        params.flag("sharable"),
        params.flag("read-only"),
        params.mapping("other-config"),
        params["location"],
        params.mapping("xenstore-data"),
        params.mapping("sm-config"),
        params.flag("managed"),
    )
    await call.print_uuid("VDI", vdi)


async def _vdi_create(call: Call) -> None:
    params = call.params
    kind = params.get("type", "user")
    if kind not in _DISK_TYPES:
        raise CommandError(f"Unknown vdi type: {kind}")
    amount = size("virtual-size", params["virtual-size"])
    record = {
        "name_label": params["name-label"],
        "name_description": "",
        "SR": await call.ref("sr-uuid", "SR"),
        "virtual_size": amount,
        "type": kind,
        "sharable": params.flag("sharable"),
        "read_only": False,
        "other_config": {},
        "xenstore_data": {},
        "sm_config": params.mapping("sm-config"),
        "tags": list(params.mapping("tags")),
    }
    await call.print_uuid("VDI", await call.api.call("VDI.create", record))


async def _vdi_clone(call: Call) -> None:
    params = call.params
    made = await call.api.call("VDI.clone", await call.ref("uuid", "VDI"), params.mapping("driver-params"))
    if "new-name-label" in params:
        await call.api.call("VDI.set_name_label", made, params["new-name-label"])
    if "new-name-description" in params:
        await call.api.call("VDI.set_name_description", made, params["new-name-description"])
    await call.print_uuid("VDI", made)


async def _vdi_snapshot(call: Call) -> None:
    driver = call.params.mapping("driver-params")
    await call.print_uuid("VDI", await call.api.call("VDI.snapshot", await call.ref("uuid", "VDI"), driver))


async def _vdi_copy(call: Call) -> None:
    source = await call.ref("uuid", "VDI")
    sr = await call.optional_ref("sr-uuid", "SR")
    base = await call.optional_ref("base-vdi-uuid", "VDI")
    into = await call.optional_ref("into-vdi-uuid", "VDI")
    if (sr is None) == (into is None):
        raise CommandError("Please specify one but not both of: a destination sr-uuid; or a destination into-vdi-uuid")
    made = await call.api.call("VDI.copy", source, sr or NULL_REF, base or NULL_REF, into or NULL_REF)
    await call.print_uuid("VDI", made)


async def _vdi_resize(call: Call) -> None:
    disk = await call.ref("uuid", "VDI")
    amount = size("disk-size", call.params["disk-size"])
    method = "VDI.resize_online" if call.params.get("online") == "true" else "VDI.resize"
    await call.api.call(method, disk, amount)


async def _vdi_unlock(call: Call) -> None:
    if not call.params.flag("force"):
        raise CommandError(FORCE_NEEDED)
    await call.api.call("VDI.force_unlock", await call.ref("uuid", "VDI"))


async def _vdi_pool_migrate(call: Call) -> None:
    disk, sr = await call.ref("uuid", "VDI"), await call.ref("sr-uuid", "SR")
    image = call.params.find("dest-img-format")
    made = await call.api.call("VDI.pool_migrate", disk, sr, {} if image is None else {"dest-img-format": image})
    await call.print_uuid("VDI", made)


COMMANDS = (
    command(
        "sr-create",
        _sr_create,
        "Makes an SR and plugs it in; what was on its device is lost.",
        required="name-label type",
        optional="name-description host-uuid device-config: shared physical-size content-type sm-config:",
        flags="With_fd",
    ),
    message(
        "sr-introduce",
        "SR.introduce",
        "uuid",
        "name-label",
        ("name-description", ""),
        "type",
        ("content-type", ""),
        ("shared", False),
        required="name-label type uuid",
    ),
    command(
        "sr-probe",
        _sr_probe,
        "Asks a driver what it finds.",
        required="type",
        optional="host-uuid device-config: sm-config:",
    ),
    command(
        "sr-probe-ext",
        _sr_probe_ext,
        "Asks a driver what it finds, and what it still needs to know.",
        required="type",
        optional="host-uuid device-config: sm-config:",
    ),
    message("sr-scan", "SR.scan", "uuid"),
    message(
        "lvhd-enable-thin-provisioning",
        "LVHD.enable_thin_provisioning",
        "sr-uuid",
        "size initial-allocation",
        "size allocation-quantum",
        selector=HOST,
        quiet=True,
    ),
    command(
        "vdi-introduce",
        _vdi_introduce,
        "Makes a disk known that is on its SR already.",
        required="uuid sr-uuid type location",
        optional="name-description sharable read-only managed other-config: xenstore-data: sm-config: name-label",
    ),
    command(
        "vdi-generate-config",
        _vdi_generate_config,
        "What a host needs to attach a disk by itself.",
        required="host-uuid uuid",
        flags="Hidden",
    ),
    message("sr-update", "SR.update", "uuid"),
    message("sr-forget", "SR.forget", "uuid"),
    message("sr-destroy", "SR.destroy", "uuid"),
    message("sr-enable-database-replication", "SR.enable_database_replication", "uuid"),
    message("sr-disable-database-replication", "SR.disable_database_replication", "uuid"),
    create(
        "pbd-create",
        "PBD",
        {"host": "host-uuid", "SR": "sr-uuid", "device_config": ("device-config:", {})},
        other_config={},
    ),
    message("pbd-plug", "PBD.plug", "uuid"),
    message("pbd-unplug", "PBD.unplug", "uuid"),
    message("pbd-destroy", "PBD.destroy", "uuid"),
    command(
        "vdi-create",
        _vdi_create,
        "Makes a disk. virtual-size=10GiB.",
        required="sr-uuid name-label virtual-size",
        optional="sm-config: sharable tags: type",
    ),
    command(
        "vdi-clone",
        _vdi_clone,
        "Clones a disk within its SR.",
        required="uuid",
        optional="driver-params- new-name-label new-name-description",
    ),
    command("vdi-snapshot", _vdi_snapshot, "Takes a snapshot of a disk.", required="uuid", optional="driver-params-"),
    command(
        "vdi-copy",
        _vdi_copy,
        "Copies a disk to an SR, or into a disk.",
        required="uuid",
        optional="sr-uuid base-vdi-uuid into-vdi-uuid",
    ),
    command(
        "vdi-resize",
        _vdi_resize,
        "Makes a disk larger. online=true: while it is in use.",
        required="uuid disk-size",
        optional="online",
    ),
    command("vdi-unlock", _vdi_unlock, "Breaks the lock of a disk.", required="uuid", optional="force"),
    command(
        "vdi-pool-migrate",
        _vdi_pool_migrate,
        "Moves the disk of a running VM to another SR.",
        required="uuid sr-uuid",
        optional="dest-img-format",
    ),
    message("vdi-destroy", "VDI.destroy", "uuid"),
    message("vdi-forget", "VDI.forget", "uuid"),
    message("vdi-update", "VDI.update", "uuid"),
    message("vdi-enable-cbt", "VDI.enable_cbt", "uuid"),
    message("vdi-disable-cbt", "VDI.disable_cbt", "uuid"),
    message("vdi-data-destroy", "VDI.data_destroy", "uuid"),
    message("vdi-list-changed-blocks", "VDI.list_changed_blocks", "vdi-from-uuid", "vdi-to-uuid", flags="With_fd"),
)
