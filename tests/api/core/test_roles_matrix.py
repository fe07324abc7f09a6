"""Every message, every role: exactly those that the reference names get through.

What the messages do is taken away, so that whatever is allowed can be tried; everything before it is the real thing.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from services.api import dispatch
from services.api.call import Call
from services.api.edge.dispatcher import Answer, Caller, Waiting
from services.api.operation import Operation
from services.api.wire.jsonrpc import JSON
from services.api.wire.raw import RawParams
from shared.contracts.db import Delete
from shared.datamodel import model
from shared.errors import ApiError
from tests.api.core.role_matrix import CALLERS, NOBODY, SUPERUSER, Declared, arguments, declared, log_in
from tests.api.harness import Client, Pool

REACHED = ["NOT_IMPLEMENTED", "reached"]
NO_SUCH_OBJECT = ("HANDLE_INVALID", "UUID_INVALID", "INVALID_VALUE")
"""How look-ups fail that are allowed."""
TASKLESS = ("task.", "event.")


class Matrix:
    """A dispatcher of the pool's whose operations only say that they were reached."""

    def __init__(self, pool: Pool) -> None:
        self.pool = pool
        self._caller = Caller(host=pool.hosts[0].uuid, address="127.0.0.1")
        self._dispatcher = dispatch.XenApi(pool.api, pool.api.hub, pool.api.executor)
        self.reached: set[tuple[str, str]] = set()
        """(session, method) of what was carried out."""

    def operations(self) -> dict[str, Operation]:
        return {name: Operation(name, self._body, None) for name in model.messages}

    def _body(self, call: Call, *_: Any) -> None:
        self.reached.add((call.session, call.wire))
        raise ApiError(*REACHED)

    async def try_(self, client: Client, method: str, message: Declared) -> list[str]:
        """The error; none for a look-up that was answered, an event call that waits, and an asynchronous call."""
        params = ([client.session] if message.session else []) + arguments(model.messages[message.name])
        outcome = self._dispatcher.call(self._caller, method, RawParams(params), JSON)
        if isinstance(outcome, Waiting):
            outcome.answer.close()
            return []
        if not isinstance(outcome, Answer):
            outcome = await outcome
        return outcome.error or []

    async def errors_of_tasks(self) -> dict[str, list[str]]:
        """Method to error, of all tasks there are, once they have ended. They are removed."""
        await self.pool.idle()
        rows = dict(self.pool.store.rows("task"))
        await self.pool.write(*(Delete(cls="task", ref=ref) for ref in rows))
        return {row["name_label"]: row["error_info"] for row in rows.values()}


KEPT = 150
"""Tasks at once: of more than two hundred, the oldest that have ended go."""


@pytest.fixture
async def matrix(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Matrix]:
    pool = await Pool.start(tmp_path, hosts=1, connect=False)
    matrix = Matrix(pool)
    monkeypatch.setattr(dispatch, "OPERATIONS", matrix.operations())
    yield matrix
    await pool.stop()


def _is_as_declared(message: Declared, caller: str, error: list[str]) -> bool:
    refusal = message.refusal(caller)
    if refusal:
        return error[: len(refusal)] == refusal
    if model.messages[message.name].kind in ("getter", "object"):
        return not error or error[0] in NO_SUCH_OBJECT
    return error == REACHED or message.name in ("event.from", "event.next")


@pytest.mark.parametrize("separator", [".", "_"])
async def test_every_message_lets_exactly_the_declared_roles_through(matrix: Matrix, separator: str) -> None:
    messages = declared()
    assert len(messages) == 2258
    wrong = []
    for caller in CALLERS:
        client = await log_in(matrix.pool, caller)
        for message in messages:
            method = message.name.replace(".", separator)
            error = await matrix.try_(client, method, message)
            refused_in_vain = message.refusal(caller) and (client.session, method) in matrix.reached
            if refused_in_vain or not _is_as_declared(message, caller, error):
                wrong.append((caller, method, message.refusal(caller), error))
    assert wrong == []


@pytest.mark.parametrize(("prefix", "callers"), [("Async.", CALLERS), ("InternalAsync.", ("vm-operator", NOBODY))])
async def test_asynchronous_calls_are_refused_in_their_tasks(
    matrix: Matrix, prefix: str, callers: tuple[str, ...]
) -> None:
    """What is known before roles are looked at is told at once. Messages of tasks and events have no task."""
    messages = [message for message in declared() if message.asynchronous]
    assert len(messages) > 500
    wrong = []
    for caller in callers:
        client = await log_in(matrix.pool, caller)
        told: list[list[str]] = []
        in_task: dict[str, list[str]] = {}
        for some in (messages[at : at + KEPT] for at in range(0, len(messages), KEPT)):
            told += await asyncio.gather(*(matrix.try_(client, prefix + message.name, message) for message in some))
            in_task |= await matrix.errors_of_tasks()
        for message, told_at_once in zip(messages, told, strict=True):
            refusal, method = message.refusal(caller), prefix + message.name
            expected = refusal or REACHED
            error = told_at_once or in_task.get(method, expected if message.name.startswith(TASKLESS) else [])
            reached = (client.session, method) in matrix.reached
            if reached == bool(refusal) or error[: len(expected)] != expected:
                wrong.append((caller, method, refusal, error))
    assert wrong == []


async def test_messages_without_an_asynchronous_form_have_none_for_anybody(matrix: Matrix) -> None:
    for caller in (SUPERUSER, NOBODY):
        client = await log_in(matrix.pool, caller)
        for message in declared():
            if message.asynchronous or message.refusal(caller)[:1] in (["INTERNAL_ERROR"], ["MESSAGE_REMOVED"]):
                continue
            error = await matrix.try_(client, f"Async.{message.name}", message)
            assert error == ["Fault", f"No async mode for this operation (rpc: {message.name})"]
    assert not matrix.reached
