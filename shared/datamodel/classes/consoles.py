"""VMs' consoles."""

from __future__ import annotations

from shared.datamodel import refs
from shared.datamodel.declare import ClassDecl, declare, runtime, rw
from shared.datamodel.groups import UUID, other_config
from shared.datamodel.roles import VM_ADMIN
from shared.datamodel.schema import MISSING
from shared.datamodel.types import INT, STRING, EnumType

CONSOLE_PROTOCOL = EnumType("console_protocol", ("vt100", "rfb", "rdp"))

CONSOLE = declare(
    "console",
    "A way to a VM's screen or serial line.",
    roles=VM_ADMIN,
    default_ctor_dtor=True,
    fields=[
        UUID,
        runtime("protocol", CONSOLE_PROTOCOL, "Whether it is a screen or a text terminal."),
        runtime("location", STRING, "The address to connect to."),
        runtime("VM", refs.VM, "The VM it shows."),
        other_config(default=MISSING),
        rw("port", INT, "The port on its host.", internal=True),
    ],
)

CLASSES: tuple[ClassDecl, ...] = (CONSOLE,)
