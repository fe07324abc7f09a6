"""`/audit_log`: who did what, from a moment on."""

from __future__ import annotations

from services.api.handlers.handler import Request, handler


def _at_the_coordinator(request: Request) -> None:
    """Members pass their lines on to it."""
    request.on_coordinator()


@handler("get_audit_log", before=_at_the_coordinator)
async def get_audit_log(request: Request) -> None:
    """Of no known length: it grows while it is read."""
    await request.stream.start(
        [("connection", "close"), ("cache-control", "no-cache, no-store"), ("content-type", "text/plain")]
    )
    async for piece in request.api.audit.since(request.query.get("since", "")):
        await request.stream.write(piece)
