"""Hosts."""

from __future__ import annotations

from shared.datamodel.classes.host import diagnostics, ha, networking, power, security, upkeep
from shared.datamodel.classes.host.fields import FIELDS
from shared.datamodel.declare import ClassDecl, declare
from shared.datamodel.roles import POOL_OPERATOR

HOST = declare(
    "host",
    "A machine that runs VMs.",
    roles=POOL_OPERATOR,
    fields=FIELDS,
    messages=[
        *power.MESSAGES,
        *ha.MESSAGES,
        *security.MESSAGES,
        *networking.MESSAGES,
        *upkeep.MESSAGES,
        *diagnostics.MESSAGES,
    ],
)

CLASSES: tuple[ClassDecl, ...] = (HOST,)
