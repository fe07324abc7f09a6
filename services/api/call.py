"""One XenAPI call being carried out: for whom, under which task, and what is to be written when it ends."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

from services.api import clock
from services.api.edge.dispatcher import Caller
from shared.contracts.alerts import Alert
from shared.contracts.db import Change, Create, Precondition
from shared.datamodel.schema import Message
from shared.store import NULL, Store

if TYPE_CHECKING:
    from services.api.api import Api


INTERNAL: Final = "InternalAsync."
PREFIXES: Final = ("Async.", INTERNAL)

OWN: Final = "toolstack"
"""Originator of calls that no client has made."""

DUMMY: Final = "DummyRef:"
"""Tasks that are not in the database: nobody can look at them."""


@lru_cache(maxsize=4096)
def sync_name(method: str) -> str:
    """A method's name without the prefix that makes it asynchronous."""
    for prefix in PREFIXES:
        if method.startswith(prefix):
            return method[len(prefix) :]
    return method


def new_ref() -> str:
    return f"OpaqueRef:{uuid.uuid4()}"


@dataclass(slots=True, eq=False)
class Call:
    """`wire`: the name as sent, prefix included. `session`: reference, "" for session-less calls.

    `task`: its reference. The row of a synchronous call's task is created with the first thing the call writes, and
    removed with the last, so it costs no transaction of its own. `inside`: the task is another call's or a client's,
    which will complete it; this one only works for it. `work`: the asyncio task of its body.

    How it ends: `ending` is written in every case, `on_success` or `on_failure` with it, all in one transaction. When
    it fails, the steps of `undo` are taken first, the last one first. After a success `written` is told and `alerts`
    go out. `locks`: the object (class, reference) of its operation's lock; `locked`: it
    holds it.
    `in_doubt`: it has failed, and something it wrote may be there although it got no answer.
    `disks_made`: how many disks it has begun to make.
    `turn`: what it waits for before it begins (an asynchronous call that is delayed).
    """

    api: Api
    caller: Caller
    message: Message
    wire: str
    session: str
    task: str = ""
    task_exists: bool = False
    inside: bool = False
    work: asyncio.Task[Any] | None = None
    asynchronous: bool = False
    locks: tuple[str, str] = ("", "")
    locked: bool = False
    in_doubt: bool = False
    turn: Awaitable[None] | None = None
    disks_made: int = 0
    ending: list[Change] = field(default_factory=list)
    on_success: list[Change] = field(default_factory=list)
    on_failure: list[Change] = field(default_factory=list)
    undo: list[Callable[[], Awaitable[None]]] = field(default_factory=list)
    written: list[Callable[[], None]] = field(default_factory=list)
    alerts: list[Alert] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.inside = self._is_inside(self.caller.task)
        if self.inside:
            self.task, self.task_exists = self.caller.task, True
        elif not self.task:
            self.task = new_ref() if self.has_task else f"DummyRef:|{uuid.uuid4()}|{self.message.wire_name}"

    def _is_inside(self, task: str) -> bool:
        """Whether it runs in the task that its caller names: a pending one of the caller's own, or any if that is a
        host. `InternalAsync` calls have a task in any case.
        """
        if not task or not self.has_task or self.wire.startswith(INTERNAL):
            return False
        row, session = self.store.row("task", task), self.store.row("session", self.session)
        if row is None or row["status"] != "pending" or session is None:
            return False
        owner = self.store.row("session", row["session"])
        return bool(session["pool"]) or (owner is not None and _subject(owner) == _subject(session))

    @property
    def store(self) -> Store:
        return self.api.replica.store

    @property
    def has_task(self) -> bool:
        """Whether clients can see the call as a task (`wire-protocol` 5.1)."""
        return self.message.has_async and self.message.cls not in ("task", "event")

    @property
    def leaves_something(self) -> bool:
        """Whether there is anything to do when it ends."""
        return bool(
            (self.task_exists and not self.inside)
            or (self.in_doubt and self.has_task)
            or self.ending
            or self.on_success
            or self.on_failure
            or self.undo
            or self.written
            or self.alerts
        )

    def moves_disk(self, uuid: str) -> None:
        """It makes or removes that disk: scans leave it alone until the call has ended."""
        self.api.disks.move(self.task, uuid)

    def task_row(self) -> list[Change]:
        """The change that makes the task visible, unless it is already or never will be."""
        if self.task_exists or not self.has_task:
            return []
        fields = {
            "name_label": self.wire,
            "created": clock.now(),
            "finished": clock.EPOCH,
            "status": "pending",
            "session": self.session if self.store.row("session", self.session) is not None else NULL,
            "resident_on": self.api.host_ref,
            "progress": 0.0,
            "allowed_operations": ["cancel"],
            "type": "<none/>",
            "subtask_of": self.parent,
            "other_config": {f"http:{key}": value for key, value in self.caller.other_config.items()},
        }
        return [Create(cls="task", ref=self.task, fields=fields)]

    @property
    def parent(self) -> str:
        """The task that its task, or one that it makes, is part of; null if nobody can see that one."""
        caller = self.caller
        above = caller.subtask_of or (caller.task if self.wire.startswith(INTERNAL) else "")
        visible = above in self.api.running or self.store.row("task", above) is not None
        return above if visible and not above.startswith(DUMMY) else NULL

    async def transact(self, changes: Sequence[Change], given: Sequence[Precondition] = ()) -> None:
        """Writes, and makes the call's task visible with it."""
        await self.api.database.transact([*self.task_row(), *changes], given)
        self.task_exists = self.task_exists or self.has_task

    async def create_task(self) -> None:
        if self.has_task and not self.task_exists:
            await self.transact([])


def _subject(session: Mapping[str, Any]) -> tuple[bool, str]:
    """Sessions with the same one own the same tasks."""
    return session["is_local_superuser"], session["auth_user_sid"]
