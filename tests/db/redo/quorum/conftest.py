"""Logs on a broker that other tests share: each test has a queue of its own, and leaves nothing behind."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Iterator

import pika
import pytest

from services.db.redo.interface import Checkpoint, CheckpointHeader, Entry, LogRecord, entry
from services.db.redo.quorum.log import QuorumRedoLog
from shared.contracts.db import RowCreated, SnapshotRow
from tests.db.redo.quorum.proxy import Proxy

PATIENCE = 3.0


class Queue:
    """A log's queue on a broker, and everybody who uses it."""

    def __init__(self, url: str, name: str = "") -> None:
        self.url = url
        self.name = name or f"redo-log-{uuid.uuid4().hex[:8]}"
        self._logs: list[QuorumRedoLog] = []
        self._proxies: list[Proxy] = []

    def log(
        self, *, url: str = "", patience: float = PATIENCE, decision: float = 10.0, full: int = 60_000
    ) -> QuorumRedoLog:
        """Of a process of its own."""
        made = QuorumRedoLog(
            url or self.url, queue=self.name, patience=patience, decision=decision, settle=0, full=full
        )
        self._logs.append(made)
        return made

    def begun(self, log: QuorumRedoLog | None = None) -> QuorumRedoLog:
        """One that took over, as a database process does when it starts."""
        log = log or self.log()
        found = log.recover()
        log.begin(found.generation, found.term + 1)
        return log

    def proxy(self) -> Proxy:
        made = Proxy(self.url)
        self._proxies.append(made)
        return made

    def found(self) -> list[int]:
        """Generations of the commits that a new process would find; it does not take over."""
        log = self.log()
        try:
            return [record.generation for record in log.recover().records]
        finally:
            log.close()

    def channel(self) -> pika.adapters.blocking_connection.BlockingChannel:
        """For what an operator does. The caller closes its connection."""
        return pika.BlockingConnection(pika.URLParameters(self.url)).channel()

    def close(self) -> None:
        """What is still held up must not keep the others waiting."""
        for proxy in self._proxies:
            proxy.cut()
        for log in self._logs:
            log.close()
        for proxy in self._proxies:
            proxy.close()
        channel = self.channel()
        channel.queue_delete(self.name)
        channel.connection.close()


def commit(generation: int, *, durable: bool = True, size: int = 10) -> Entry:
    change = RowCreated(cls="network", ref=f"r{generation}", fields={"name_label": "x" * size})
    return entry(LogRecord(generation=generation, term=1, changes=[change], durable=durable), generation - 1)


def append(log: QuorumRedoLog, *generations: int) -> None:
    log.append([commit(generation) for generation in generations], sync=True)


def rows(*refs: str) -> list[SnapshotRow]:
    return [SnapshotRow(cls="network", ref=ref, created=1, modified=1, fields={"name_label": ref}) for ref in refs]


def checkpoint(log: QuorumRedoLog, generation: int, refs: Iterable[str]) -> Checkpoint:
    """One that has all rows and does not count yet."""
    made = log.checkpoint()
    made.begin()
    content = rows(*refs)
    made.hold(CheckpointHeader(generation=generation, term=1, rows=len(content)))
    made.write(content)
    return made


@pytest.fixture
def queue(broker_url: str) -> Iterator[Queue]:
    made = Queue(broker_url)
    yield made
    made.close()
