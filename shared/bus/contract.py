"""How a queue's contract is declared: methods (request/reply) and topics, over typed records.

Each service's contract is one module of `shared/contracts`. Both sides import it; documentation is made from it.
Records are `msgspec.Struct`s, so what arrives is checked against the declaration before a handler sees it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Generic, TypeVar

import msgspec


class Record(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Base of every record that crosses a process boundary."""


class Empty(Record, frozen=True):
    """For methods that take or return nothing."""


Request = TypeVar("Request", bound=msgspec.Struct)
Reply = TypeVar("Reply", bound=msgspec.Struct)
Payload = TypeVar("Payload", bound=msgspec.Struct)


class Scope(StrEnum):
    """POOL: one consumer in the pool, queue `<service>`. HOST: one per host, queue `<service>.<host uuid>`."""

    POOL = "pool"
    HOST = "host"


class Absent(StrEnum):
    """What a first send does when nobody consumes the queue.

    FAIL: HOST_OFFLINE at once. WAIT: retry with backoff until the deadline (a service that is restarted in a second).
    """

    FAIL = "fail"
    WAIT = "wait"


class Replay(StrEnum):
    """What a server does with a request it may have run before it was restarted.

    SAFE: run it (again): the handler brings about a state, so twice is the same as once.
    ONCE: answer RESULT_UNKNOWN, unless the handler finds the recorded outcome itself: the caller reconciles.
    """

    SAFE = "safe"
    ONCE = "once"


@dataclass(frozen=True, slots=True)
class Method(Generic[Request, Reply]):
    """One request/reply of a service. `timeout` in seconds is the default deadline of a call.

    `streams`: the handler is an async generator; every record it yields reaches the caller of `Bus.stream` in order.
    `errors`: codes that the handler raises on purpose, for the documentation.
    """

    service: str
    name: str
    request: type[Request]
    reply: type[Reply]
    summary: str
    scope: Scope = Scope.HOST
    timeout: float = 30.0
    absent: Absent = Absent.FAIL
    replay: Replay = Replay.SAFE
    streams: bool = False
    errors: tuple[str, ...] = field(default=())

    @property
    def key(self) -> str:
        return f"{self.service}.{self.name}"

    def queue(self, host: str | None) -> str:
        """The routing key on the `rpc` exchange, equal to the queue's name."""
        if self.scope is Scope.POOL:
            return self.service
        if not host:
            raise ValueError(f"{self.key} is a method of a host; which one?")
        return f"{self.service}.{host}"


@dataclass(frozen=True, slots=True)
class Topic(Generic[Payload]):
    """One kind of event on the `events` exchange. `pattern` names its variable words: `host.{uuid}.heartbeat`."""

    pattern: str
    payload: type[Payload]
    summary: str

    def key(self, **words: str) -> str:
        """The routing key with every word given (publish)."""
        return self.pattern.format(**{name: _word(value) for name, value in words.items()})

    def binding(self, **words: str) -> str:
        """The binding key; words left out match anything (subscribe)."""
        return self.pattern.format_map(_Wild({name: _word(value) for name, value in words.items()}))


class _Wild(dict[str, str]):
    def __missing__(self, key: str) -> str:
        return "*"


def _word(value: str) -> str:
    """A routing key word must not hold a dot; nothing else is special in a value that is published."""
    return value.replace(".", "_")
