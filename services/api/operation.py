"""How an explicit XenAPI message declares itself: what it locks, and the function that does the work."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any

from shared.contracts.db import Change
from shared.errors import ApiError

if TYPE_CHECKING:
    from services.api.call import Call
    from shared.store import Store


class Policy(Enum):
    """What to do while another operation is in the way: total seconds of waiting (`vm-lifecycle` 1.1)."""

    STANDARD = 7200.0
    FAIL_QUICKLY = 120.0
    FAIL_IMMEDIATELY = 0.0


Reserve = Callable[["Call", "Store", tuple[Any, ...]], Sequence[Change]]
"""Decides what else is taken together with the lock, on the same rows (a host, memory). It may raise to refuse."""


Refuse = Callable[["Store", tuple[Any, ...]], ApiError | None]
"""Gets the rows and the message's arguments; why the message is refused."""


Find = Callable[["Store", tuple[Any, ...]], str]
"""Gets the rows and the message's arguments; the reference of what is locked. Raises HANDLE_INVALID."""


@dataclass(frozen=True, slots=True)
class Lock:
    """The message puts `operation` into `current_operations` of its argument number `argument`, of class `cls`. None:
    of the pool, which no argument names. `find`: where it is an object that no argument names, such as a PBD's SR.

    It is allowed when the class's check says so (`services.api.decisions`), and before that, `refuse`. `sr`: of a disk,
    the operation that its SR shows meanwhile; the SR is asked before the disk. `interrupts`: operations in progress on
    the same object that are cancelled and waited for first.
    """

    cls: str
    operation: str
    argument: int | None = 0
    policy: Policy = Policy.STANDARD
    reserve: Reserve | None = None
    refuse: Refuse | None = None
    find: Find | None = None
    sr: str = ""
    interrupts: frozenset[str] = frozenset()


Body = Callable[..., Awaitable[Any] | Any]
"""Gets the call and the message's arguments; returns the result as a plain value (None for void)."""


@dataclass(frozen=True, slots=True)
class Operation:
    """`built` false: it only refuses what could not succeed anyway, then says NOT_IMPLEMENTED.

    `forwarded`: the host among its arguments answers it, so that this host is live before anything else is looked at;
    an unknown one is not. Messages whose first step is `on_host` need not say so.
    """

    message: str
    body: Body
    lock: Lock | None
    built: bool = True
    forwarded: bool = False


OPERATIONS: dict[str, Operation] = {}


def operation(
    message: str, lock: Lock | None = None, *, built: bool = True, forwarded: bool = False
) -> Callable[[Body], Body]:
    """Registers the function that carries out a message, such as `VM.start`. `built`, `forwarded`: see `Operation`."""

    def register(body: Body) -> Body:
        if message in OPERATIONS:
            raise ValueError(f"{message} is registered twice")
        OPERATIONS[message] = Operation(message, body, lock, built, forwarded)
        return body

    return register
