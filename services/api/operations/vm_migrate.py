"""VM messages about moving to another pool or from elsewhere, which is not built yet; a destination that is none is
refused as such.
"""

from __future__ import annotations

from typing import Any, Final

from services.api.call import Call
from services.api.decisions.rows import existing
from services.api.operation import operation
from services.api.operations.host_plugins import plugin
from shared.errors import ApiError, internal_error

DESTINATION: Final = ("host", "SM", "xenops", "session_id", "master")
"""What `host.migrate_receive` of the other pool gives."""


def _refused(message: str) -> None:
    @operation(message, built=False)
    def refuse(call: Call, vm: str, dest: dict[str, str], *more: Any) -> None:
        existing(call.store, "VM", vm)
        for key in DESTINATION:
            if key not in dest:
                raise internal_error(f"the destination lacks {key}")
        raise ApiError("NOT_IMPLEMENTED", message)


for _name in ("migrate_send", "assert_can_migrate", "assert_can_migrate_sender"):
    _refused(f"VM.{_name}")


@operation("VM.pool_migrate_complete", built=False, forwarded=True)
def pool_migrate_complete(call: Call, vm: str, host: str) -> None:
    existing(call.store, "VM", vm)
    raise ApiError("NOT_IMPLEMENTED", call.message.wire_name)


@operation("VM.import_convert", built=False)
async def import_convert(
    call: Call, type: str, username: str, password: str, sr: str, remote_config: dict[str, str]
) -> None:
    """From another maker's servers, by an appliance that a plug-in of the coordinator finds."""
    await plugin(call, call.api.host_ref, "conversion", "main", {})
    existing(call.store, "SR", sr)
    raise ApiError("NOT_IMPLEMENTED", call.message.wire_name)
