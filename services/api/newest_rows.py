"""Rows as new as the database's: for questions about what may just have been written by another process."""

from __future__ import annotations

from typing import Final

from services.api.api import Api
from shared.bus.contract import Empty
from shared.contracts.db import DB_STATUS

CATCH_UP: Final = 10.0
"""Seconds that commits may take to arrive here."""


async def arrive(api: Api) -> None:
    """Until `api.store` has what the database had when this was asked. Raises `BusError`."""
    status = await api.bus.call(DB_STATUS, Empty())
    await api.replica.wait_generation(status.generation, timeout=CATCH_UP)
