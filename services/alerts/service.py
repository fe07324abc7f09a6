"""The alerts service: at work where the coordinator is.

A member's process only waits until its host becomes coordinator: it has neither queues nor threads, nor what they need.
"""

from __future__ import annotations

import logging
from pathlib import Path

from services.alerts import options
from shared import host_role
from shared.service import Service

log = logging.getLogger("alerts")


async def setup(service: Service) -> None:
    """Raises `ConfigError` for a consumer that cannot work."""
    given = options.load(service.config)
    if given.role_file and not host_role.follow(service, Path(given.role_file)).is_coordinator:
        log.info("a member: alerts are the coordinator's")
        return
    from services.alerts.delivery import deliver  # here, so that members do without what it imports

    await deliver(service, given)
