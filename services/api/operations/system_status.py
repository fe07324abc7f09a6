"""What a status report of a host can hold."""

from __future__ import annotations

from services.api import status_report
from services.api.call import Call
from services.api.decisions.liveness import require_live
from services.api.operation import operation


@operation("host.get_system_status_capabilities")
def get_system_status_capabilities(call: Call, host: str) -> str:
    """XML. The same for all hosts; a member that has lost its coordinator answers for itself."""
    if call.api.is_coordinator:
        require_live(call.store, host)
    return status_report.capabilities()
