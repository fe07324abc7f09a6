"""USB devices passed through to VMs."""

from __future__ import annotations

from shared.datamodel import refs
from shared.datamodel.declare import EMPTY, ClassDecl, Optional, declare, maintained, message, runtime, setter, static
from shared.datamodel.groups import UUID, names, operations, other_config
from shared.datamodel.roles import POOL_ADMIN
from shared.datamodel.types import BOOL, FLOAT, STRING, STRING_MAP, EnumType

VUSB_OPERATIONS = EnumType("vusb_operations", ("attach", "plug", "unplug"))

PUSB = declare(
    "PUSB",
    "A USB device of a host.",
    since="inverness",
    roles=POOL_ADMIN,
    fields=[
        UUID,
        static("USB_group", refs.USB_group, "The group it belongs to.", EMPTY),
        static("host", refs.host, "The host it is plugged into.", EMPTY),
        static("path", STRING, "Where it is on the bus.", EMPTY),
        static("vendor_id", STRING, "Number of its maker.", EMPTY),
        static("vendor_desc", STRING, "Its maker.", EMPTY),
        static("product_id", STRING, "Number of its model.", EMPTY),
        static("product_desc", STRING, "Its model.", EMPTY),
        static("serial", STRING, "Its serial number.", EMPTY),
        static("version", STRING, "The version of USB it speaks.", EMPTY),
        static("description", STRING, "What it is.", EMPTY),
        runtime("passthrough_enabled", BOOL, "Whether it may be passed to a VM.", EMPTY),
        other_config(),
        static("speed", FLOAT, "Its speed, in Mbit/s.", -1.0, since="stockholm"),
    ],
    messages=[
        message("scan", "Enters new USB devices of a host, and forgets those that are gone.", {"host": refs.host}),
        setter("passthrough_enabled", "Sets whether it may be passed to a VM."),
    ],
)

USB_GROUP = declare(
    "USB_group",
    "Like USB devices across the pool.",
    since="inverness",
    roles=POOL_ADMIN,
    fields=[
        UUID,
        names("USB group"),
        maintained("PUSBs", "PUSB.USB_group", "USB devices that belong to it."),
        maintained("VUSBs", "VUSB.USB_group", "VMs' USB devices that use it."),
        other_config(),
    ],
    messages=[
        message(
            "create",
            "Makes an empty group.",
            {
                "name_label": Optional(STRING),
                "name_description": Optional(STRING),
                "other_config": Optional(STRING_MAP),
            },
            refs.USB_group,
        ),
        message("destroy", "Removes an empty group.", {"self": refs.USB_group}),
    ],
)

VUSB = declare(
    "VUSB",
    "A VM's USB device.",
    since="inverness",
    roles=POOL_ADMIN,
    fields=[
        UUID,
        operations(VUSB_OPERATIONS, since="rio"),
        runtime("VM", refs.VM, "The VM it belongs to."),
        runtime("USB_group", refs.USB_group, "The group it takes a device from."),
        other_config(),
        runtime("currently_attached", BOOL, "Whether it is plugged into a running VM.", EMPTY, since="rio"),
    ],
    messages=[
        message(
            "create",
            "Gives a VM a USB device of a group.",
            {"VM": refs.VM, "USB_group": refs.USB_group, "other_config": Optional(STRING_MAP)},
            refs.VUSB,
        ),
        message("unplug", "Unplugs it from the running VM.", {"self": refs.VUSB}),
        message("destroy", "Takes it away.", {"self": refs.VUSB}),
    ],
)

CLASSES: tuple[ClassDecl, ...] = (PUSB, USB_GROUP, VUSB)
