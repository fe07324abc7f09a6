"""All rows as messages: a child publishes them in pieces, then one message says that they count."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Callable, Iterable
from typing import Protocol

from services.db.redo.interface import CheckpointHeader, RedoLogError
from services.db.redo.quorum import messages
from services.db.redo.quorum.link import Link, LinkError, Outgoing
from services.db.redo.quorum.messages import Finish, Message, Rows, Turn
from services.db.redo.quorum.replay import replaced
from shared.contracts.db import SnapshotRow

log = logging.getLogger("db.redo_log")


class Owner(Protocol):
    """What it needs of its log."""

    def now(self) -> tuple[Turn, int]: ...

    def open_link(self) -> Link: ...

    def checkpoint_begins(self, checkpoint: QuorumCheckpoint) -> None: ...

    def checkpoint_counts(self, checkpoint: QuorumCheckpoint) -> Finish: ...

    def forget_unconfirmed(self) -> None: ...

    def trim(self, unneeded: Callable[[Message], bool]) -> None: ...


class Idle(Protocol):
    def replaced(self) -> None: ...


class QuorumCheckpoint:
    """`cut`: the last number that it replaces, in `turn`. `missed`: a commit failed meanwhile that it may not have.

    `unknown`: whether it counts depends on a message that was not confirmed.
    """

    def __init__(self, owner: Owner, queue: str) -> None:
        self.name = uuid.uuid4().hex
        self.header = CheckpointHeader(generation=0, term=0, rows=0)
        self.turn: Turn | None = None
        self.cut = 0
        self.missed = False
        self.unknown = False
        self._owner = owner
        self._queue = queue
        self._begun = False
        self._finish: Finish | None = None

    def begin(self) -> None:
        self.turn, self.cut = self._owner.now()
        self._begun = True
        self._owner.checkpoint_begins(self)

    def hold(self, header: CheckpointHeader) -> None:
        self.header = header
        if not self._begun:
            self.turn, self.cut = self._owner.now()

    def write(self, rows: Iterable[SnapshotRow]) -> None:
        """On a connection of its own: the parent's is not the child's to use."""
        if self.turn is None:
            raise RedoLogError("a checkpoint that was not begun")
        try:
            link = self._owner.open_link()
            try:
                for body in messages.rows(self.turn, self.name, self.cut, rows):
                    link.publish([Outgoing("", self._queue, body)])
            finally:
                link.close()
        except LinkError as error:
            raise RedoLogError(f"the checkpoint cannot be written: {error}") from error

    def finish(self) -> None:
        self._finish = self._owner.checkpoint_counts(self)

    def abandon(self) -> None:
        if self.unknown:
            self._owner.forget_unconfirmed()
        try:
            self._owner.trim(lambda head: isinstance(head, Rows) and head.checkpoint == self.name)
        except RedoLogError as error:
            log.warning("the rows of a checkpoint that does not count stay until the next one: %s", error)

    def tidy(self) -> None:
        finish = self._finish
        if finish is None:
            return
        try:
            self._owner.trim(lambda head: replaced(head, finish.by, finish))
        except RedoLogError as error:
            log.warning("what a checkpoint replaces is not removed: %s", error)


class Postponed:
    """Of a process that does not write the log. Where other rows take the place of all, the log hears of it."""

    def __init__(self, owner: Idle) -> None:
        self._owner = owner
        self._begun = False

    def begin(self) -> None:
        self._begun = True

    def hold(self, header: CheckpointHeader) -> None:
        """Nothing to note."""

    def write(self, rows: Iterable[SnapshotRow]) -> None:
        """Nothing to keep."""

    def finish(self) -> None:
        if not self._begun:
            self._owner.replaced()

    def abandon(self) -> None:
        """Nothing to remove."""

    def tidy(self) -> None:
        """Nothing to replace."""
