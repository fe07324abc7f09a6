"""Virtual machines and templates."""

from __future__ import annotations

from shared.datamodel.classes.vm import copies, lifecycle, memory, placement, settings
from shared.datamodel.classes.vm.fields import FIELDS
from shared.datamodel.declare import ClassDecl, declare
from shared.datamodel.roles import VM_ADMIN

VM = declare(
    "VM",
    "A virtual machine, a template or a snapshot.",
    since="rio, changed 1.257.0",
    parts_since="rio",
    roles=VM_ADMIN,
    default_ctor_dtor=True,
    fields=FIELDS,
    messages=[*lifecycle.MESSAGES, *copies.MESSAGES, *placement.MESSAGES, *memory.MESSAGES, *settings.MESSAGES],
)

CLASSES: tuple[ClassDecl, ...] = (VM,)
