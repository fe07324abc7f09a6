"""What has been changed in the database, by whom. The original has no such command."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any, Final

import orjson

from services.cli.commands.history_lines import lines
from services.cli.server.command import Call, command
from services.cli.server.failures import CommandError

EXTENSION: Final = "db.get_history"
WORDS: Final = ("uuid", "ref", "class", "field", "task", "session", "user", "since", "until")
LIMIT: Final = 100
PAUSE: Final = 1.0
"""Seconds between questions while following."""
History = Callable[[Mapping[str, str]], Awaitable[Any]]

_NEVER: Final = "9" * 18
"""A generation that none reaches."""


async def _history(call: Call) -> None:
    """The newest entries that fit, the oldest of them first, as logs are read; with `follow` also all that come."""
    words = {word: call.params[word] for word in WORDS if word in call.params}
    follow = call.params.flag("follow")
    if follow and ("until" in words or call.printer.minimal):
        raise CommandError("follow has no end: there is no until= with it, and no --minimal")
    limit, history = _limit(call), await _coordinators(call)
    end = await _end(history)
    await _tell(call, reversed(await _newest(history, words, end, limit)))
    while follow:
        page = await history({**words, "order": "oldest", "token": end})
        await _tell(call, page["entries"])
        end = page["token"]
        if not page["more"]:
            await asyncio.sleep(PAUSE)


def _limit(call: Call) -> int:
    text = call.params.get("limit", str(LIMIT))
    if not (text.isascii() and text.isdecimal()) or not 0 < int(text) < 10**9:
        raise CommandError(f"limit is a number above 0, not {text!r}")
    return int(text)


async def _coordinators(call: Call) -> History:
    """A page of the history for what is asked, from the coordinator."""
    [host] = {pool["master"] for pool in (await call.objects.all("pool")).values()}

    async def page(words: Mapping[str, str]) -> Any:
        request = {"jsonrpc": "2.0", "id": 0, "method": EXTENSION, "params": [call.api.session, words]}
        return await call.api.call("host.call_extension", host, orjson.dumps(request).decode())

    return page


async def _end(history: History) -> str:
    """The place behind all that there is."""
    page = await history({"order": "oldest", "since": _NEVER})
    if not page["recording"]:
        raise CommandError("No history is kept: so say the database's options history_bytes and history_days")
    return str(page["token"])


async def _newest(history: History, words: Mapping[str, str], token: str, limit: int) -> list[Any]:
    """Before that place, the newest first."""
    entries: list[Any] = []
    while True:
        page = await history({**words, "limit": str(limit - len(entries)), "token": token})
        entries += page["entries"]
        token = page["token"]
        if len(entries) >= limit or not page["more"]:
            return entries


async def _tell(call: Call, entries: Iterable[Any]) -> None:
    for entry in entries:
        if call.printer.minimal:
            await call.printer.items([str(entry["generation"])])
        else:
            await call.printer.items(list(lines(entry)))


COMMANDS = (
    command(
        "diagnostic-db-history",
        _history,
        "Who changed which field of which object when, with the old and the new value: the newest entries that fit "
        "all that is given. since and until: a generation, a date, or how long ago (90s, 10m, 2h, 3d). task: a "
        "reference or the name of a call. session: a reference or a trackid. --follow: goes on with what comes. "
        "--minimal: generations only. Upstream has no such command.",
        optional=" ".join((*WORDS, "limit", "follow")),
    ),
)
