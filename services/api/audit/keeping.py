"""Where the audit log is kept: the coordinator's file; members pass their lines on to it."""

from __future__ import annotations

import logging
import time
from pathlib import Path

from services.api.api import Api
from services.api.audit.line import in_one_line, prefix
from services.api.audit.rotating import RotatingFile
from services.api.audit.trail import Trail
from shared.bus.contract import Empty
from shared.contracts.api import AUDIT, AuditLines
from shared.errors import ApiError
from shared.service import Service

log = logging.getLogger("api.audit")


async def begin(service: Service, api: Api) -> None:
    """To be called before anything else is registered with `on_stop`, as the log has to close last."""
    path = Path(api.options.audit_log) if api.options.audit_log else service.state_dir / "audit.log"
    name = service.hosts[0].name if service.hosts else ""

    def lost(number: int) -> str:
        return f"{prefix(time.time(), name, '', 'audit')} {number} lines could not be written"

    async def keep(request: AuditLines) -> Empty:
        for line in request.lines:
            api.audit.note(in_one_line(line))
        return Empty()

    async def pass_on(lines: list[str]) -> bool:
        try:
            await api.bus.call(AUDIT, AuditLines(lines=lines), host=api.uuid_of("host", api.pool()["master"]))
        except ApiError as error:
            log.warning("the coordinator does not take %d lines of the audit log: %s", len(lines), error)
            return False
        return True

    api.audit = Trail(RotatingFile(path), lost, None if api.is_coordinator else pass_on)
    if api.is_coordinator:
        for host in service.hosts:
            await service.serve(AUDIT, keep, host=host.uuid)
    service.on_stop(api.audit.close)
    service.spawn(api.audit.run(), "audit log")
