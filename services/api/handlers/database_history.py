"""`/db_history`: who changed which field of which object when, one entry a line."""

from __future__ import annotations

import orjson

from services.api import history_questions
from services.api.edge.dispatcher import HttpRefusal
from services.api.handlers.handler import Request, handler
from shared.contracts.db_history import HistoryRequest
from shared.errors import ApiError


def _asked(request: Request) -> HistoryRequest:
    return history_questions.parse(
        {word: value for word, value in request.query.items() if word in history_questions.WORDS}
    )


def _possible(request: Request) -> None:
    """Raises `HttpRefusal` 302, 400."""
    request.on_coordinator()
    try:
        _asked(request)
    except ApiError as error:
        raise HttpRefusal(400, f"{error.params[0]} cannot be {error.params[1]!r}.", error=error) from None


@handler("get_db_history", before=_possible)
async def get_db_history(request: Request) -> None:
    """Of no known length: entries are looked for while they are sent."""
    await request.stream.start(
        [("connection", "close"), ("cache-control", "no-cache, no-store"), ("content-type", "application/x-ndjson")]
    )
    async for entry in history_questions.entries(request.api.bus, _asked(request)):
        await request.stream.write(orjson.dumps(history_questions.plain(entry)) + b"\n")
