"""USB devices passed through to VMs."""

from __future__ import annotations

from shared.datamodel import refs
from shared.datamodel.declare import (
    EMPTY,
    UUID,
    ClassDecl,
    Optional,
    declare,
    maintained,
    message,
    names,
    operations,
    other_config,
    runtime,
    static,
)
from shared.datamodel.roles import POOL_ADMIN
from shared.datamodel.types import BOOL, FLOAT, STRING, STRING_MAP, EnumType

VUSB_OPERATIONS = EnumType(
    "vusb_operations",
    (
        "attach",
        "plug",
        "unplug",
    ),
)

PUSB = declare(
    "PUSB",
    "",
    since="inverness",
    roles=POOL_ADMIN,
    fields=[
        UUID,
        static("USB_group", refs.USB_group, "", EMPTY),
        static("host", refs.host, "", EMPTY),
        static("path", STRING, "", EMPTY),
        static("vendor_id", STRING, "", EMPTY),
        static("vendor_desc", STRING, "", EMPTY),
        static("product_id", STRING, "", EMPTY),
        static("product_desc", STRING, "", EMPTY),
        static("serial", STRING, "", EMPTY),
        static("version", STRING, "", EMPTY),
        static("description", STRING, "", EMPTY),
        runtime("passthrough_enabled", BOOL, "", EMPTY),
        other_config(),
        static("speed", FLOAT, "", -1.0, since="stockholm"),
    ],
    messages=[
        message("scan", "", {"host": refs.host}),
        message("set_passthrough_enabled", "", {"self": refs.PUSB, "value": BOOL}),
    ],
)

USB_GROUP = declare(
    "USB_group",
    "",
    since="inverness",
    roles=POOL_ADMIN,
    fields=[
        UUID,
        names("USB_group"),
        maintained("PUSBs", "PUSB.USB_group", ""),
        maintained("VUSBs", "VUSB.USB_group", ""),
        other_config(),
    ],
    messages=[
        message(
            "create",
            "",
            {
                "name_label": Optional(STRING),
                "name_description": Optional(STRING),
                "other_config": Optional(STRING_MAP),
            },
            refs.USB_group,
        ),
        message("destroy", "", {"self": refs.USB_group}),
    ],
)

VUSB = declare(
    "VUSB",
    "",
    since="inverness",
    roles=POOL_ADMIN,
    fields=[
        UUID,
        operations(VUSB_OPERATIONS, since="rio"),
        runtime("VM", refs.VM, ""),
        runtime("USB_group", refs.USB_group, ""),
        other_config(),
        runtime("currently_attached", BOOL, "", EMPTY, since="rio"),
    ],
    messages=[
        message(
            "create", "", {"VM": refs.VM, "USB_group": refs.USB_group, "other_config": Optional(STRING_MAP)}, refs.VUSB
        ),
        message("unplug", "", {"self": refs.VUSB}),
        message("destroy", "", {"self": refs.VUSB}),
    ],
)

CLASSES: tuple[ClassDecl, ...] = (
    PUSB,
    USB_GROUP,
    VUSB,
)
