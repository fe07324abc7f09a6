"""Every message with values of the right types and no sense: a result or an error of the catalogue, and nothing else.

Reads and writes go to a pool of the harness, so what one call breaks the next ones meet.
"""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path
from random import Random
from typing import Any

import pytest

from shared.datamodel import model
from shared.datamodel.errors import CATALOGUE
from shared.datamodel.types import (
    BOOL,
    DATETIME,
    FLOAT,
    INT,
    EnumType,
    MapType,
    OptionType,
    RecordType,
    RefType,
    SetType,
    Type,
)
from shared.errors import ApiError
from shared.store import Store
from tests.api.harness import Pool

WAITING = {"event.from", "event.next"}
ENDING = {"session.logout", "session.local_logout", "host.shutdown_agent", "host.restart_agent"}
"""Those that end the session, or the process that runs the tests."""

TEXTS = [
    "", "a", "OpaqueRef:NULL", "x" * 300, "ä\U0001f600", "true", "-1", "<&>", "0", "a b", "/etc/passwd", "10.0.0.1",
    "00:11:22:33:44:55", "7" * 30, "..", "2025",
]  # fmt: skip
NUMBERS = [0, 1, -1, 7, 2**31, 2**52]
TIMES = ["19700101T00:00:00Z", "20250102T03:04:05Z"]
TRIES = 3
LIMIT = 10.0
"""Seconds until a call counts as hanging."""

SAID_SO = (
    "Internal API",
    "Db_exn.Empty_key_in_map",
    "the destination lacks",
    "the uuid ",
    "the database does not say",
    "the call cannot be parsed",
    "the host has no management interface",
    "Sys_error(",
    "not a database",
    "the interface ",
)
"""What INTERNAL_ERROR may begin with: refusals that the original, too, has no other code for."""


class Nonsense:
    """Values of a type, some of them about rows that are there."""

    def __init__(self, store: Store, random: Random) -> None:
        self._store = store
        self._random = random

    def of(self, type_: Type) -> Any:
        random = self._random
        match type_:
            case RefType(cls):
                known = list(self._store.rows(cls)) if cls in self._store.tables else []
                return random.choice(known) if known and random.random() < 0.75 else random.choice(TEXTS[:3])
            case SetType(of):
                return [self.of(of) for _ in range(random.randrange(3))]
            case MapType(key, value):
                return {str(self.of(key)): self.of(value) for _ in range(random.randrange(3))}
            case EnumType(_, words):
                return random.choice(words)
            case OptionType(of):
                return self.of(of)
            case RecordType(cls):
                fields = model.classes[cls].fields.values()
                return {f.name: self.of(f.type) for f in fields if f.qualifier != "RO/runtime" and not f.internal_only}
        choices: dict[Type, list[Any]] = {INT: NUMBERS, FLOAT: [0.0, 1.5, -1.0], BOOL: [True, False], DATETIME: TIMES}
        return random.choice(choices.get(type_) or self._texts())

    def _texts(self) -> list[str]:
        """Among them the uuid of something: of the right class, now and then."""
        rows = list(self._store.rows(self._random.choice(list(self._store.tables))).values())
        return [*TEXTS, *([str(self._random.choice(rows).get("uuid", ""))] * 4 if rows else [])]


def fault(error: ApiError) -> str:
    """What is wrong with such an error; "" if a client can make something of it."""
    if error.code == "INTERNAL_ERROR":
        return "" if error.params[0].startswith(SAID_SO) else "an internal error"
    if error.code not in CATALOGUE and not error.code.startswith("SR_BACKEND_FAILURE"):
        return "a code that the catalogue lacks"
    return ""


@pytest.mark.parametrize("seed", [1])
async def test_every_message_answers_nonsense_with_an_error_of_the_catalogue(
    tmp_path: Path, seed: int, caplog: pytest.LogCaptureFixture
) -> None:
    pool = await Pool.start(tmp_path)
    random = Random(seed)
    messages = [m for m in model.messages.values() if m.session and m.wire_name not in WAITING | ENDING]
    random.shuffle(messages)
    faults = []
    for message in messages:
        client = await pool.login()
        for _ in range(TRIES):
            nonsense = Nonsense(pool.store, random)
            arguments = [nonsense.of(param.type) for param in message.params]
            try:
                async with asyncio.timeout(LIMIT):
                    await client.call(message.wire_name, *arguments)
            except ApiError as error:
                if wrong := fault(error):
                    faults.append((message.wire_name, wrong, error.description, arguments))
            except TimeoutError:
                faults.append((message.wire_name, "no answer", [], arguments))
    assert not faults, "\n".join(f"{name}: {wrong}, {str(error)[:200]}" for name, wrong, error, _ in faults)
    assert [
        record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR and record.exc_info
    ] == []
    client = await pool.login()
    assert await client.call("pool.get_all")
    await pool.stop()
