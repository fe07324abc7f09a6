"""Closes SSH when its time is over (`host.ssh_expiry`)."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import Final

from services.api import clock
from services.api.api import Api
from services.api.host_side.machine import Machine
from services.api.row_waiters import wait
from shared.config import HostConfig
from shared.contracts.db import Equals, Update
from shared.contracts.host import Flag
from shared.errors import ApiError

log = logging.getLogger("api.host")

LONGEST: Final = 600.0
"""Seconds after which the clock is looked at again, as it may have been set."""


async def follow(api: Api, host: HostConfig, machine: Machine) -> None:
    """Runs as long as the service."""
    await api.replica.wait_ready()
    while True:
        ref = api.store.ref_of_uuid("host", host.uuid)
        if ref is None:
            await asyncio.sleep(LONGEST)
            continue
        with api.waiters.watching("host", ref) as changed:
            row = api.store.row("host", ref)
            left = _left(row["ssh_enabled"], row["ssh_expiry"]) if row is not None else None
            if row is None or left is None or left > 0:
                await wait(changed, min(LONGEST, left or LONGEST))
                continue
        try:
            await machine.ssh(Flag(value=False))
            closed = Update(cls="host", ref=ref, fields={"ssh_enabled": False, "ssh_expiry": clock.EPOCH})
            still = Equals(cls="host", ref=ref, field="ssh_expiry", value=row["ssh_expiry"])
            await api.database.transact([closed], [still])
        except ApiError as error:
            log.warning("SSH of %s is not closed yet: %s", host.name, error)
            await asyncio.sleep(10.0)


def _left(enabled: bool, expiry: str) -> float | None:
    """Seconds until SSH closes; None when it does not."""
    return clock.seconds(expiry) - time.time() if enabled and expiry != clock.EPOCH else None
