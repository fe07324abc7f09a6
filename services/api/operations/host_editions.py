"""Messages about licences: there is one edition, which has every feature and needs no licence."""

from __future__ import annotations

from typing import Final

from services.api.call import Call
from services.api.decisions.rows import existing
from services.api.operation import operation
from services.api.subcalls import perform
from shared.contracts.db import Update
from shared.errors import ApiError

EDITION: Final = "free/libre"


@operation("host.apply_edition", forwarded=True)
async def apply_edition(call: Call, host: str, edition: str, force: bool) -> None:
    """Raises INVALID_EDITION [edition]. Empty means the one that there is."""
    if edition not in ("", EDITION):
        raise ApiError("INVALID_EDITION", edition)
    fields = {"edition": EDITION, "editions": [EDITION]}
    await call.transact([Update(cls="host", ref=host, fields=fields)])


@operation("pool.apply_edition")
async def apply_everywhere(call: Call, self: str, edition: str) -> None:
    existing(call.store, "pool", self)
    for host in call.store.rows("host"):
        await perform(call, "host.apply_edition", host, edition, False)


@operation("pool.get_license_state")
def get_license_state(call: Call, self: str) -> dict[str, str]:
    existing(call.store, "pool", self)
    return {"edition": EDITION, "expiry": "never"}


@operation("host.license_add", forwarded=True)
def license_add(call: Call, host: str, contents: str) -> None:
    """No file is a licence of an edition that needs none."""
    raise ApiError("LICENSE_PROCESSING_ERROR")


@operation("host.license_remove", forwarded=True)
def license_remove(call: Call, host: str) -> None:
    """There is never one."""
