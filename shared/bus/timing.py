"""How long the bus waits for what, in seconds. Tests of failures use shorter ones."""

from __future__ import annotations

import random
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Timing:
    """`probe_first`, `probe_every`: when a call without an answer asks whether the server still works on it.

    `grace`: how long a call that was accepted goes on when nobody consumes its queue any more.
    `settle`: for so long after this process's own reconnect a queue without a consumer is nobody's death: the others
    are reconnecting too.
    `drain`: what running handlers get to finish in when the bus is closed.
    `outcome`: how long a finished call's answer is kept for a caller that asks again.
    `heartbeat`: of the AMQP connection.
    """

    probe_first: float = 2.0
    probe_every: float = 5.0
    grace: float = 10.0
    settle: float = 3.0
    drain: float = 10.0
    outcome: float = 600.0
    heartbeat: int = 6


DEFAULT = Timing()


def backoff(attempt: int, first: float, longest: float) -> float:
    """The pause before attempt number `attempt` (from 0): doubled each time, with jitter so that crowds spread."""
    return min(longest, first * 2.0 ** min(attempt, 16)) * random.uniform(0.7, 1.3)
