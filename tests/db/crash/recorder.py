"""Writes down what clients and followers see of the database, at the seam where they meet it: their bus."""

from __future__ import annotations

import asyncio
import dataclasses
import math
import re
import time
from collections.abc import Callable
from typing import Any, cast

import msgspec

from shared.bus.context import CallContext, current
from shared.bus.contract import Method, Reply, Request
from shared.bus.interface import Bus, BusError
from shared.contracts.db import (
    DELTA,
    HOST_SNAPSHOT,
    SNAPSHOT,
    TRANSACT,
    Committed,
    Delta,
    Deltas,
    SnapshotPage,
    SnapshotRequest,
    Transact,
)
from shared.errors import ApiError
from shared.replica import Replica
from shared.store import Store, Touched
from tests.db.crash import registers
from tests.db.crash.canonical import Lines
from tests.db.crash.records import History, Interruption, Operation, Outcome, PowerLoss, Published, State

TASK = "crash-"
"""Task of a recorded transaction, with its number: the database tells it with the delta."""

EVERY = 16
"""Generations between two states that a follower writes down as text."""


RECOVERY = 30.0
"""Seconds after an interruption in which a call may meet its deadline: it may have been begun anew several times, and a
killed RabbitMQ takes 12 to 18 s to be back where others are at work.
"""


class Recorder:
    """One history. `numbers` go on over several of them."""

    def __init__(self) -> None:
        self._begun = time.monotonic()
        self._numbers = 0
        self.history = History(volatile=registers.volatile)
        self.bodies: dict[str, str] = {}
        self.transactions = 0
        self.refusals: dict[str, int] = {}
        """By error code and text: what clients were refused."""
        self.unanswered: list[str] = []
        """Calls that the bus gave up, not their clients, although nothing had been interrupted for a while."""

    @property
    def now(self) -> float:
        return time.monotonic() - self._begun

    def begin_anew(self, initial: registers.Values) -> None:
        """A new history that goes on from rows that were just seen; nothing may be under way."""
        self.history = History(initial=initial, volatile=registers.volatile)
        self.bodies.clear()

    def interrupted(self, what: str) -> None:
        self.history.interruptions.append(Interruption(self.now, what))

    def power_lost(self, since: float, generation: int) -> None:
        self.history.losses.append(PowerLoss(since, self.now, generation))

    def bus(self, bus: Bus, client: str, replica: Replica) -> Bus:
        """The same bus for one client, whose transactions are written down."""
        return cast("Bus", _RecordingBus(self, bus, client, replica))

    def number(self) -> int:
        self._numbers += 1
        return self._numbers

    def done(self, operation: Operation, error: BaseException | None, made: Committed | None) -> None:
        now = self.now
        self.transactions += 1
        if made is not None:
            operation = dataclasses.replace(
                operation, returned=now, outcome=Outcome.OK, generation=made.generation, term=made.term
            )
        elif isinstance(error, ApiError) and not isinstance(error, BusError):
            operation = dataclasses.replace(operation, returned=now, outcome=Outcome.FAILED, why=str(error))
            told = error.code if error.code != "INTERNAL_ERROR" else _without_numbers(str(error.params[0]))
            self.refusals[told] = self.refusals.get(told, 0) + 1
        else:
            operation = dataclasses.replace(operation, why=repr(error))
            if isinstance(error, BusError) and not any(item.at > now - RECOVERY for item in self.history.interruptions):
                self.unanswered.append(f"{operation}: {error}")
        self.history.operations.append(operation)

    async def read_all(self, bus: Bus, observer: str) -> tuple[State, Store]:
        """Every row, as the primary gives them away. Raises `ApiError`."""
        invoked = self.now
        store, page, returned = await fetch(bus, lambda: self.now)
        state = State(
            observer=observer,
            term=page.term,
            generation=page.generation,
            invoked=invoked,
            returned=returned,
            values=registers.of_store(store),
            complete=True,
            at_once=True,
        )
        text = dataclasses.replace(state, values={}, complete=False, at_once=False, text=Lines(self.bodies).text(store))
        self.history.states += [state, text]
        return state, store

    async def read_host(self, bus: Bus, observer: str, host: str) -> None:
        """Every row that the process of that host holds. Raises `ApiError`."""
        store, _, _ = await fetch(bus, lambda: self.now, host)
        self.saw(observer, store, Lines(self.bodies))
        self.read(observer, store)

    def saw(self, observer: str, store: Store, lines: Lines) -> None:
        """All rows of a replica as they are now: their text."""
        now = self.now
        self.history.states.append(
            State(
                observer=observer,
                term=store.term,
                generation=store.generation,
                invoked=now,
                returned=now,
                text=lines.text(store),
            )
        )

    def read(self, observer: str, store: Store) -> None:
        """All rows of a replica as they are now: their registers."""
        now = self.now
        self.history.states.append(
            State(observer, store.term, store.generation, now, now, registers.of_store(store), complete=True)
        )


def _without_numbers(text: str) -> str:
    return re.sub(r"\d+", "*", text)


async def fetch(bus: Bus, clock: Callable[[], float], host: str | None = None) -> tuple[Store, SnapshotPage, float]:
    """A snapshot, its first page, and when that came: all rows are as they were then. Raises `ApiError`.

    `host`: of the process that has them; None: the primary.
    """
    method = SNAPSHOT if host is None else HOST_SNAPSHOT
    page = first = await bus.call(method, SnapshotRequest(), host=host, timeout=60)
    returned = clock()
    store = Store()
    store.add(page.rows)
    while page.page + 1 < page.pages:
        request = SnapshotRequest(snapshot=page.snapshot, page=page.page + 1)
        page = await bus.call(method, request, host=host, timeout=60)
        store.add(page.rows)
    store.complete(first.generation, first.term)
    return store, first, returned


class _RecordingBus:
    """Only `call`: that is all that `shared.database.Database` needs."""

    def __init__(self, recorder: Recorder, bus: Bus, client: str, replica: Replica) -> None:
        self._recorder = recorder
        self._bus = bus
        self._client = client
        self._replica = replica

    async def call(
        self, method: Method[Request, Reply], request: Request, *, context: CallContext | None = None, **given: Any
    ) -> Reply:
        if method.key != TRANSACT.key:
            return await self._bus.call(method, request, context=context, **given)
        asked = cast("Transact", request)
        recorder = self._recorder
        operation = Operation(
            number=recorder.number(),
            client=self._client,
            invoked=recorder.now,
            returned=math.inf,
            outcome=Outcome.UNKNOWN,
            writes=registers.written(asked.changes),
            reads=registers.read(asked.preconditions, self._replica.store),
        )
        context = msgspec.structs.replace(context or current.get(), task=f"{TASK}{operation.number}")
        try:
            answer = await self._bus.call(method, request, context=context, **given)
        except (ApiError, asyncio.CancelledError) as error:
            recorder.done(operation, error, None)
            raise
        recorder.done(operation, None, cast("Committed", answer))
        return answer


class Follower:
    """A replica on a connection of its own, and the deltas that came there."""

    def __init__(self, recorder: Recorder, bus: Bus, name: str) -> None:
        self.name = name
        self.bus = bus
        self.replica = Replica(bus)
        self._recorder = recorder
        self._lines = Lines(recorder.bodies)
        self._last = 0
        self._task: asyncio.Task[None] | None = None
        self.replica.watch(self._changed)

    async def start(self) -> None:
        await self.bus.subscribe(DELTA, self._received)
        self.bus.on_reconnect(self._reconnected)
        self._task = asyncio.create_task(self.replica.run(), name=self.name)
        await self.replica.wait_ready()

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        await self.bus.close()

    async def _reconnected(self) -> None:
        self._recorder.interrupted(f"{self.name} lost its connection")

    def _received(self, deltas: Deltas, _: str) -> None:
        for delta in deltas.each():
            self._publish(delta)

    def _publish(self, delta: Delta) -> None:
        number = delta.task.removeprefix(TASK)
        self._recorder.history.published.append(
            Published(
                follower=self.name,
                at=self._recorder.now,
                term=delta.term,
                generation=delta.generation,
                previous=delta.previous,
                operation=int(number) if number != delta.task else 0,
                values=registers.of_delta(delta.changes),
            )
        )

    def _changed(self, _: list[Touched], delta: Delta | None) -> None:
        generation = self.replica.store.generation
        if delta is None or generation - self._last >= EVERY:
            self.write_down()

    def write_down(self) -> None:
        self._last = self.replica.store.generation
        self._recorder.saw(self.name, self.replica.store, self._lines)
