"""What API processes ask each other while the pool gets another coordinator (`database-pool-ha` 3.6)."""

from __future__ import annotations

from typing import Final

from shared.bus.contract import Empty, Method, Record


class Proposal(Record, frozen=True):
    """`address`: of the host that wants to be coordinator. `manual`: an administrator wants it, not HA."""

    address: str
    manual: bool = True


class Coordinator(Record, frozen=True):
    address: str


class Held(Record, frozen=True):
    generation: int


_A: Final = "api"

PROPOSE = Method(
    _A,
    "propose_coordinator",
    Proposal,
    Empty,
    "Asks for the host's vote, which then counts for nobody else.",
    timeout=10.0,
    errors=("HA_ABORT_NEW_MASTER",),
)
COMMIT = Method(
    _A,
    "commit_coordinator",
    Coordinator,
    Empty,
    "The host that it has agreed to is coordinator now.",
    timeout=10.0,
    errors=("HA_ABORT_NEW_MASTER", "INTERNAL_ERROR"),
)
ABORT = Method(_A, "abort_coordinator", Empty, Empty, "Gives the host its vote back.", timeout=10.0)
RESET = Method(
    _A,
    "reset_coordinator",
    Coordinator,
    Empty,
    "The coordinator is there, whatever the host has heard.",
    timeout=10.0,
    errors=("INTERNAL_ERROR",),
)
TAKE_OVER = Method(
    _A,
    "take_over",
    Empty,
    Empty,
    "Makes the host coordinator in good order: all hosts agree, the present one hands over.",
    timeout=150.0,
    errors=("HA_ABORT_NEW_MASTER", "HOST_OFFLINE", "OPERATION_NOT_ALLOWED", "INTERNAL_ERROR"),
)
HOLD_DATABASE = Method(
    _A,
    "hold_database",
    Held,
    Empty,
    "Answers when the host holds the database up to that generation on stable storage, if it keeps one.",
    timeout=60.0,
    errors=("INTERNAL_ERROR",),
)
