"""How clients ask what has been changed: the same words over HTTP, as an extension and from xe."""

from __future__ import annotations

import re
import time
from collections.abc import AsyncIterator, Callable, Mapping
from datetime import UTC, datetime
from typing import Any, Final

import msgspec

from shared.bus.interface import Bus
from shared.contracts.db_history import HISTORY, HistoryEntry, HistoryRequest
from shared.datamodel import model
from shared.errors import ApiError

WORDS: Final = ("ref", "uuid", "class", "field", "task", "session", "user", "since", "until", "order", "limit", "token")
"""`class`, `field`: as the API or as xe has them. `since`, `until`: a generation, a date and time (UTC unless it says
otherwise), or how long ago (`90s`, `10m`, `2h`, `3d`). `order`: newest | oldest, which come first.
"""
LIMIT: Final = 1000
"""Entries told when nobody says how many."""
EXTENSION: Final = "db.get_history"

_AGO: Final = re.compile(r"(\d{1,9})([smhd])")
_SECONDS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_CLASSES: Final = {name.lower(): name for name in model.classes}


def parse(words: Mapping[str, Any], clock: Callable[[], float] = time.time) -> HistoryRequest:
    """Raises INVALID_VALUE [word, value]."""
    for word, value in words.items():
        if word not in WORDS or not isinstance(value, str):
            raise ApiError("INVALID_VALUE", word, value)
    since, since_generation = _moment(words, "since", clock)
    until, until_generation = _moment(words, "until", clock)
    order = words.get("order", "newest")
    if order not in ("newest", "oldest"):
        raise ApiError("INVALID_VALUE", "order", order)
    limit = words.get("limit") or str(LIMIT)
    if not re.fullmatch(r"[0-9]{1,9}", limit):
        raise ApiError("INVALID_VALUE", "limit", limit)
    token = words.get("token", "")
    if not re.fullmatch(r"[0-9]{0,18}", token):
        raise ApiError("INVALID_VALUE", "token", token)
    cls = words.get("class", "")
    if cls and cls.lower() not in _CLASSES:
        raise ApiError("INVALID_VALUE", "class", cls)
    return HistoryRequest(
        ref=words.get("ref", ""),
        uuid=words.get("uuid", ""),
        cls=_CLASSES[cls.lower()] if cls else "",
        field=words.get("field", "").replace("-", "_"),
        task=words.get("task", ""),
        session=words.get("session", ""),
        user=words.get("user", ""),
        since=since,
        until=until,
        since_generation=since_generation,
        until_generation=until_generation,
        oldest_first=order == "oldest",
        limit=int(limit),
        token=token,
    )


def _moment(words: Mapping[str, Any], word: str, clock: Callable[[], float]) -> tuple[float | None, int | None]:
    """As a time, or as a generation."""
    text = words.get(word, "")
    if not text:
        return None, None
    if re.fullmatch(r"[0-9]{1,18}", text):
        return None, int(text)
    if ago := _AGO.fullmatch(text):
        return clock() - int(ago[1]) * _SECONDS[ago[2]], None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise ApiError("INVALID_VALUE", word, text) from None
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp(), None


def plain(entry: HistoryEntry) -> dict[str, Any]:
    """As clients get it: every member is there, the time is ISO 8601 with milliseconds."""
    at = datetime.fromtimestamp(entry.time, UTC)
    return {
        "time": f"{at:%Y-%m-%dT%H:%M:%S}.{at.microsecond // 1000:03d}Z",
        "generation": entry.generation,
        "term": entry.term,
        "kind": entry.kind,
        "task": entry.task,
        "call": entry.call,
        "session": entry.session,
        "user": entry.user,
        "originator": entry.originator,
        "note": entry.note,
        "changes": [
            {
                "class": change.cls,
                "ref": change.ref,
                "uuid": change.uuid,
                "name": change.name,
                "kind": change.kind,
                "fields": {field.name: {"old": field.old, "new": field.new} for field in change.fields},
            }
            for change in entry.changes
        ],
    }


async def entries(bus: Bus, request: HistoryRequest) -> AsyncIterator[HistoryEntry]:
    """As many as the limit says, 0: all, page by page."""
    left, token = request.limit or None, request.token
    while True:
        page = await bus.call(HISTORY, msgspec.structs.replace(request, limit=left or LIMIT, token=token))
        for entry in page.entries:
            yield entry
        if left is not None:
            left -= len(page.entries)
        token = page.token
        if not page.more or left == 0:
            return


async def extension(bus: Bus, arguments: list[Any]) -> dict[str, Any]:
    """One page, for whoever calls `db.get_history(session, {word: value})`. Raises INVALID_VALUE."""
    if len(arguments) > 1 or (arguments and not isinstance(arguments[0], Mapping)):
        raise ApiError("INVALID_VALUE", "filter", arguments)
    page = await bus.call(HISTORY, parse(arguments[0] if arguments else {}))
    return {
        "entries": [plain(entry) for entry in page.entries],
        "token": page.token,
        "more": page.more,
        "recording": page.recording,
    }
