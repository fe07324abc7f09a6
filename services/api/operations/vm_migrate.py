"""VM messages about moving to another pool, which is not built yet; a destination that is none is refused as such."""

from __future__ import annotations

from typing import Any, Final

from services.api.call import Call
from services.api.decisions.rows import existing
from services.api.operation import operation
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


for _name in ("migrate_send", "assert_can_migrate"):
    _refused(f"VM.{_name}")
