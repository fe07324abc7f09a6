"""VMs' drives."""

from __future__ import annotations

from shared.datamodel import refs
from shared.datamodel.declare import (
    EMPTY,
    ClassDecl,
    Optional,
    declare,
    message,
    namespace,
    runtime,
    rw,
    setter,
    static,
)
from shared.datamodel.groups import QOS, UUID, operations, other_config, uuid
from shared.datamodel.roles import VM_ADMIN, VM_OPERATOR
from shared.datamodel.schema import MISSING
from shared.datamodel.types import BOOL, DATETIME, FLOAT, INT, STRING, STRING_MAP, EnumType

VBD_MODE = EnumType("vbd_mode", ("RO", "RW"))
VBD_OPERATIONS = EnumType(
    "vbd_operations", ("attach", "eject", "insert", "plug", "unplug", "unplug_force", "pause", "unpause")
)
VBD_TYPE = EnumType("vbd_type", ("CD", "Disk", "Floppy"))

VBD = declare(
    "VBD",
    "A drive of a VM: a position that a disk or a medium is in.",
    roles=VM_ADMIN,
    default_ctor_dtor=True,
    fields=[
        UUID,
        operations(VBD_OPERATIONS),
        static("VM", refs.VM, "The VM it belongs to."),
        static("VDI", refs.VDI, "The disk in it."),
        static("device", STRING, "Name that the guest sees it under.", EMPTY, since="rio, changed 1.257.0"),
        rw("userdevice", STRING, "Its position in the VM, as the user gave it."),
        rw("bootable", BOOL, "Whether the VM may boot from it."),
        static("mode", VBD_MODE, "Whether the guest may write."),
        rw("type", VBD_TYPE, "Whether it is a hard disk, a CD or a floppy drive."),
        rw("unpluggable", BOOL, "Whether it may be unplugged while the VM runs.", True, since="miami"),
        runtime("storage_lock", BOOL, "Whether the storage layer holds a lock for it."),
        static("empty", BOOL, "Whether there is no disk in it."),
        runtime("reserved", BOOL, "Whether it is set aside while something is done to it.", EMPTY, internal=True),
        other_config(default=MISSING),
        static(
            "currently_attached", BOOL, "Whether it is plugged into a running VM.", EMPTY, since="rio, changed 1.257.0"
        ),
        runtime("status_code", INT, "Error number of the last plug or unplug."),
        runtime("status_detail", STRING, "What the last plug or unplug said."),
        runtime("runtime_properties", STRING_MAP, "What it has been given while plugged."),
        QOS,
        runtime(
            "metrics",
            refs.VBD_metrics,
            "Its traffic figures; no longer kept here.",
            EMPTY,
            since="rio, deprecated tampa, removed tampa",
        ),
    ],
    messages=[
        message(
            "eject",
            "Takes the medium out.",
            {"vbd": refs.VBD},
            roles=VM_OPERATOR,
            errors=("VBD_NOT_REMOVABLE_MEDIA", "VBD_IS_EMPTY"),
        ),
        message(
            "insert",
            "Puts a medium in.",
            {"vbd": refs.VBD, "vdi": refs.VDI},
            roles=VM_OPERATOR,
            errors=("VBD_NOT_REMOVABLE_MEDIA", "VBD_NOT_EMPTY"),
        ),
        message("plug", "Plugs it into the running VM.", {"self": refs.VBD}),
        message(
            "unplug",
            "Unplugs it from the running VM.",
            {"self": refs.VBD},
            errors=("DEVICE_DETACH_REJECTED", "DEVICE_ALREADY_DETACHED"),
        ),
        message("unplug_force", "Unplugs it whether the guest agrees or not.", {"self": refs.VBD}),
        message(
            "unplug_force_no_safety_check",
            "The same, for drives that must not be unplugged too.",
            {"self": refs.VBD},
            since="symc, deprecated ely",
            hidden=True,
        ),
        message("assert_attachable", "Fails if it could not be plugged now.", {"self": refs.VBD}),
        message(
            "pause",
            "Stops its traffic so that the disk beneath can change; answers a token.",
            {"self": refs.VBD},
            STRING,
            since="symc",
            hidden=True,
        ),
        message(
            "unpause",
            "Lets its traffic go on.",
            {"self": refs.VBD, "token": Optional(STRING)},
            since="symc",
            hidden=True,
        ),
        setter("mode", "Sets whether the guest may write."),
    ],
)

VBD_METRICS = declare(
    "VBD_metrics",
    "Traffic of a VM's drive; no longer kept here.",
    since="rio, deprecated tampa, removed tampa",
    roles=VM_ADMIN,
    persist=False,
    fields=[
        uuid(since="rio"),
        namespace(
            "io",
            runtime("read_kbs", FLOAT, "KiB/s read.", EMPTY, persist=False),
            runtime("write_kbs", FLOAT, "KiB/s written.", EMPTY, persist=False),
        ),
        runtime("last_updated", DATETIME, "When this was last brought up to date.", EMPTY),
        other_config(since="orlando, deprecated tampa, removed tampa"),
    ],
)

CLASSES: tuple[ClassDecl, ...] = (VBD, VBD_METRICS)
