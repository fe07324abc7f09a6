"""What the bus's core needs of a transport: AMQP's exchanges and queues, no more.

`shared.bus.amqp` speaks to RabbitMQ, `shared.bus.memory` stays in the process. Everything that is a promise to users
(deadlines, retransmission, running once, cancellation, terms, streams) is above this line and written once.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Delivery:
    """A request as it left its queue. `reply_to`: the caller's address; "" if it gave none."""

    id: str
    reply_to: str
    body: bytes


@dataclass(frozen=True, slots=True)
class EventDelivery:
    """`settle`: tells the broker that it is done with; until then it comes again when the connection breaks."""

    key: str
    body: bytes
    settle: Callable[[], object]


class Subscribed(Protocol):
    async def cancel(self) -> None: ...


class Owner(Protocol):
    """Who is told what happens; calls come from the event loop and must not block."""

    def ready(self, again: bool) -> None:
        """Messages can be sent from now on. `again`: the connection had been lost (not merely held up)."""

    def lost(self) -> None:
        """Messages on their way may be lost. Sending is useless until `ready`."""

    def answered(self, id: str, body: bytes) -> None: ...

    def returned(self, id: str, kind: str) -> None:
        """The request of that kind reached no queue."""


class Transport(Protocol):
    """One connection. What is sent while it is not `ready` is lost. Queues and subscriptions survive reconnects."""

    owner: Owner

    @property
    def ready(self) -> bool: ...

    @property
    def congested(self) -> bool:
        """So much is waiting to be written that publishers should pause."""
        ...

    @property
    def reconnects(self) -> int: ...

    async def uncongested(self) -> None: ...

    def request(self, queue: str, id: str, kind: str, body: bytes, expires: float) -> None:
        """To the one queue, or back by `Owner.returned`. `expires`: seconds until the broker may drop it."""

    def reply(self, to: str, id: str, body: bytes) -> None: ...

    def event(self, key: str, also: tuple[str, ...], body: bytes) -> None: ...

    def bury(self, body: bytes, reason: str, source: str) -> None:
        """Keeps a message that could not be handled, for people to look at."""

    async def open_queue(
        self,
        queue: str,
        receive: Callable[[Delivery], None],
        again: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        """Returns when this process consumes the queue, alone. `again`: awaited before it is consumed anew."""

    async def delete_queue(self, queue: str) -> None:
        """Returns when it is gone, with its consumer. Raises `OSError` when that cannot be had of the broker."""

    async def close_queue(self, queue: str) -> None:
        """Takes in what the queue holds, then closes it."""

    async def subscribe(self, binding: str, durable: str, receive: Callable[[EventDelivery], None]) -> Subscribed:
        """Returns when events flow. `durable`: the name of a queue that outlives the connection, or ""."""
        ...

    async def close(self) -> None: ...
