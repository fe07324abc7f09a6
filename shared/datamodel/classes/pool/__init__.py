"""The pool."""

from __future__ import annotations

from shared.datamodel.classes.pool import ha, membership, security, settings, updates
from shared.datamodel.classes.pool.fields import FIELDS
from shared.datamodel.declare import ClassDecl, declare
from shared.datamodel.roles import POOL_OPERATOR

POOL = declare(
    "pool",
    "A set of hosts managed as one; there is exactly one.",
    roles=POOL_OPERATOR,
    fields=FIELDS,
    messages=[*membership.MESSAGES, *ha.MESSAGES, *security.MESSAGES, *updates.MESSAGES, *settings.MESSAGES],
)

CLASSES: tuple[ClassDecl, ...] = (POOL,)
