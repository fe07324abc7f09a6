"""Emergency mode: a member that does not reach the database refuses all but the calls that repair it (`wire-protocol`
8.2).
"""

from __future__ import annotations

from typing import Final

from services.api.api import Api
from shared.datamodel import model
from shared.errors import ApiError
from shared.host_role import BROKEN

SILENCE: Final = 30.0
"""Seconds without a word from the database after which it counts as lost: a restart of it takes one or two."""

ANSWERED: Final = frozenset(name for name, message in model.messages.items() if message.emergency)
"""Calls that need neither database nor coordinator. As sent: `Async.` and `Class_message` spellings are refused."""


def reason(api: Api, host: str) -> ApiError | None:
    """Why that host (uuid) of this process is in emergency mode; None when it is not, as a coordinator never is."""
    if api.is_coordinator:
        return None
    if api.role.now == BROKEN:
        return ApiError("HOST_BROKEN")
    own = next((one for one in api.hosts if one.uuid == host), None)
    if own is not None and own.address and own.address == api.role.coordinator:
        return ApiError("HOST_ITS_OWN_SLAVE")
    if not api.replica.ready or api.replica.silence > SILENCE:
        return ApiError("HOST_STILL_BOOTING")
    if api.store.ref_of_uuid("host", host) is None:
        return ApiError("HOST_UNKNOWN_TO_MASTER", host)
    return None
