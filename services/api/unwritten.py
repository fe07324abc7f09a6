"""Messages that are declared and not built yet: NOT_IMPLEMENTED [message], after the refusals that rows alone decide.

A client whose call could never have succeeded learns why, whether the message is built or not.
"""

from __future__ import annotations

from typing import Any, Final

from services.api import extensions
from services.api.allowed import CHECKS
from services.api.call import Call
from services.api.decisions.rows import existing, is_null
from services.api.operation import Operation
from shared.datamodel import model
from shared.datamodel.schema import Message
from shared.datamodel.types import RefType
from shared.errors import ApiError

CHECKED: Final[dict[str, str]] = {
    "VM.resume": "resume",
    "VM.resume_on": "resume_on",
    "VM.pool_migrate": "pool_migrate",
    "VM.record_data_source": "data_source_op",
    "VTPM.create": "create_vtpm",
    "VIF.plug": "plug",
    "VIF.unplug": "unplug",
    "VIF.unplug_force": "unplug",
}
"""Message to the operation of its first argument that must be allowed."""

FORWARDED: Final[frozenset[str]] = frozenset(
    {
        "Diagnostics.network_stats",
        "host.apply_guest_agent_config",
        "host.backup_rrds",
        "host.record_data_source",
        "host.rescan_drivers",
        "host.send_debug_keys",
        "pool_patch.apply",
        "pool_patch.precheck",
        "pool_update.resync_host",
    }
)
"""See `Operation.forwarded`."""


def operation(message: Message) -> Operation:
    """How such a message is answered."""
    references = _references(message)

    def body(call: Call, *arguments: Any) -> Any:
        if message.forward:
            return extensions.forwarded(call, arguments)
        for index, cls in references:
            if index == references[0][0] or not is_null(arguments[index]):
                existing(call.store, cls, arguments[index])
        wanted = CHECKED.get(message.wire_name)
        if wanted is not None:
            index, cls = references[0]
            refusal = CHECKS[cls](call.store, arguments[index], wanted)
            if refusal is not None:
                raise refusal
        raise ApiError("NOT_IMPLEMENTED", message.wire_name)

    return Operation(message.wire_name, body, None, forwarded=message.wire_name in FORWARDED)


def _references(message: Message) -> list[tuple[int, str]]:
    """Its parameters that name objects: position and class. The first must be there, others may be null.

    A session among them is another pool's.
    """
    return [
        (index, param.type.cls)
        for index, param in enumerate(message.params)
        if isinstance(param.type, RefType) and param.type.cls != "session" and model.classes[param.type.cls].in_database
    ]
