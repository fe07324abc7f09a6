"""XenAPI calls over the bus, for services that act as a client (the CLI server)."""

from __future__ import annotations

from typing import Any

from shared.bus.contract import Empty, Method, Record, Replay


class XenApiCall(Record, frozen=True):
    """`params`: as on the JSON-RPC wire, session first. `trusted`: the client reached the host's Unix socket (root).

    `user_agent`, `address`: of the client at the edge. `host`: uuid of the host whose edge that is, "" for the one that
    is asked.
    """

    method: str
    params: list[Any]
    trusted: bool = False
    user_agent: str = ""
    address: str = ""
    host: str = ""


class XenApiAnswer(Record, frozen=True):
    """`error`: code and parameters; empty on success. `value`: as on the JSON-RPC wire."""

    value: Any = None
    error: list[str] = []


XENAPI = Method("api", "xenapi", XenApiCall, XenApiAnswer, "One XenAPI call.", timeout=86400, replay=Replay.ONCE)


class AuditLines(Record, frozen=True):
    """Lines of a member's audit log, without line breaks."""

    lines: list[str]


AUDIT = Method(
    "api", "audit", AuditLines, Empty, "Lines for the coordinator's audit log.", timeout=5, replay=Replay.ONCE
)
