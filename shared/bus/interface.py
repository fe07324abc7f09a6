"""What a service may ask of the bus. `amqp` is the real one, `memory` its twin in one process."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Protocol

from shared.bus.context import CallContext
from shared.bus.contract import Method, Payload, Reply, Request, Topic
from shared.errors import ApiError


class BusError(ApiError):
    """A call that got no answer of its handler."""


class HostOffline(BusError):
    """Nobody consumes that host's queue: HOST_OFFLINE [host]."""

    def __init__(self, host: object) -> None:
        super().__init__("HOST_OFFLINE", host)


class DeadlineExceeded(BusError):
    """The deadline passed without an answer. What was asked for may still happen."""

    def __init__(self, method: object) -> None:
        super().__init__("INTERNAL_ERROR", f"no answer from {method} before its deadline")


class ResultUnknown(BusError):
    """The server was restarted while it worked on the request and cannot tell how far it came: reconcile."""

    def __init__(self, method: object) -> None:
        super().__init__(
            "INTERNAL_ERROR", f"{method} was interrupted by a restart of its service; its result is unknown"
        )


class StaleTerm(BusError):
    """The caller acts for a coordinator that has been replaced."""

    def __init__(self, term: object, current: object) -> None:
        super().__init__("INTERNAL_ERROR", f"request of term {term} refused: the pool is at term {current}")


class NotHere(Exception):
    """Raised by a handler whose queue another process takes over: the caller sends the request there, under its id."""


class Unsendable(ApiError):
    """The request cannot be put into a message (a number of more than 64 bits, too long): trying again is no use."""

    def __init__(self, why: object) -> None:
        super().__init__("INTERNAL_ERROR", why)


class Subscription(Protocol):
    async def cancel(self) -> None: ...


Handler = Callable[[Request], Awaitable[Reply]]
StreamHandler = Callable[[Request], AsyncIterator[Reply]]
Listener = Callable[[Payload, str], Awaitable[None] | None]
"""Called with the payload and the routing key it came with, one after the other for each subscription."""


class Bus(Protocol):
    """One connection to the bus. Safe to use from any task of its event loop, never from another thread.

    Calls made inside a handler inherit its `context.current` (task, session, trace, deadline) unless one is given.
    An asyncio task that is cancelled while it awaits `call` cancels the handler too. `task.<ref>.cancel` does so
    for every handler that works for that task, on whichever host.
    """

    async def call(
        self,
        method: Method[Request, Reply],
        request: Request,
        *,
        host: str | None = None,
        timeout: float | None = None,
        context: CallContext | None = None,
    ) -> Reply:
        """The handler's answer, or its `ApiError`, or a `BusError`; within the deadline in every case."""
        ...

    def stream(
        self,
        method: Method[Request, Reply],
        request: Request,
        *,
        host: str | None = None,
        timeout: float | None = None,
        context: CallContext | None = None,
    ) -> AsyncIterator[Reply]:
        """Records of a method that `streams`. A gap (connection lost half-way) raises `ResultUnknown`."""
        ...

    async def serve(
        self,
        method: Method[Request, Reply],
        handler: Handler[Request, Reply] | StreamHandler[Request, Reply],
        *,
        host: str | None = None,
    ) -> None:
        """Adds the method to the queue's handlers. The queue is consumed from the first `start_consuming` on."""
        ...

    async def start_consuming(
        self, service: str, *, host: str | None = None, again: Callable[[], Awaitable[None]] | None = None
    ) -> None:
        """Opens the queue once all its methods are served. Exclusive: a second consumer waits for the first to go.

        `again`: awaited before each time that the queue is consumed anew, after the connection was lost or the queue
        was deleted (`evict`). Somebody else may have it by then: as long as it has not returned, no request is taken.
        """
        ...

    async def stop_consuming(self, service: str, *, host: str | None = None) -> None:
        """Closes the queue: later calls get HOST_OFFLINE; those running go on."""
        ...

    async def evict(self, service: str, *, host: str | None = None) -> None:
        """Deletes the queue with what is in it. Whoever consumes it is told, and stands behind its `again` then.

        Returns when nobody consumes it any more. Raises `BusError` when the broker does not say so.
        """
        ...

    async def publish(
        self, topic: Topic[Payload], payload: Payload, *, also: tuple[str, ...] = (), **words: str
    ) -> None:
        """Sends an event. `also`: further routing keys; a queue that matches several gets it once."""
        ...

    async def subscribe(
        self, topic: Topic[Payload], listener: Listener[Payload], *, durable: str = "", **words: str
    ) -> Subscription:
        """`durable`: the name of a queue that outlives the process; its events are settled after the listener returns.

        One whose listener raises comes again; after five attempts it goes to the `dead` exchange.
        """
        ...

    def on_reconnect(self, callback: Callable[[], Awaitable[None]]) -> None:
        """Called after the connection was lost and is back: events may have been missed."""
        ...

    def observe_term(self, term: int) -> None:
        """From now on requests of lower terms are refused, and calls made for nobody carry this one."""
        ...

    @property
    def connected(self) -> bool: ...

    def metrics(self) -> dict[str, Any]: ...

    async def close(self) -> None: ...
