"""The host's plug-in `extauth-hook`: what administrators want to happen when the directory or its subjects change, such
as letting the same people in by SSH.
"""

from __future__ import annotations

import logging
from typing import Final

from shared.bus.interface import Bus
from shared.contracts.host import CALL_PLUGIN, PluginCall
from shared.errors import ApiError
from shared.store import NULL
from shared.turns import Turns

log = logging.getLogger("api.directory")

NAME: Final = "extauth-hook"
TIMEOUT: Final = 300.0

AFTER_ENABLE: Final = "after-extauth-enable"
BEFORE_DISABLE: Final = "before-extauth-disable"
AFTER_INITIALIZE: Final = "after-xapi-initialize"
AFTER_SUBJECT_ADD: Final = "after-subject-add"
AFTER_SUBJECT_REMOVE: Final = "after-subject-remove"
AFTER_SUBJECT_UPDATE: Final = "after-subject-update"
AFTER_ROLES_UPDATE: Final = "after-roles-update"


class Hooks:
    """Runs of one host come one after the other: scripts rewrite configuration files."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._turns = Turns()

    async def run(self, event: str, host: str, auth_type: str, service_name: str) -> None:
        """`host`: uuid. Nothing depends on what the script does: if it fails, the log says so. It gets no session."""
        about = {"auth_type": auth_type, "service_name": service_name, "ad_backend": "ldap"}
        request = PluginCall(plugin=NAME, function=event, arguments=about, session=NULL)
        async with self._turns.of(host):
            try:
                answer = (await self._bus.call(CALL_PLUGIN, request, host=host, timeout=TIMEOUT)).text
            except ApiError as error:
                if error.code != "XENAPI_MISSING_PLUGIN":
                    log.warning("%s %s on host %s: %s", NAME, event, host, error)
                return
        if answer != "True":
            log.warning("%s %s on host %s answers %s", NAME, event, host, answer)
