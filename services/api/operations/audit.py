"""The audit log's own message: hosts of the pool add lines to it."""

from __future__ import annotations

import time

from services.api.audit.calls import host_name
from services.api.audit.line import in_one_line, prefix
from services.api.call import Call
from services.api.operation import operation


@operation("pool.audit_log_append")
def audit_log_append(call: Call, line: str) -> None:
    host = host_name(call.api, call.caller)
    call.api.audit.note(f"{prefix(time.time(), host, call.caller.address, call.wire)} {in_one_line(line)}")
