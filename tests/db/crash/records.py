"""What is recorded of a run: times in seconds of one clock, values as registers (`registers.py`)."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum

from tests.db.crash.registers import Register, Value, Values


class Outcome(Enum):
    OK = "ok"
    FAILED = "refused"
    UNKNOWN = "no answer"


@dataclass(frozen=True, slots=True)
class Operation:
    """`number`: its name in the history. `invoked`, `returned`: seconds; never returned: infinity.

    `generation`, `term`: as it was answered (0: it was not). `why`: the error's text.
    """

    number: int
    client: str
    invoked: float
    returned: float
    outcome: Outcome
    writes: Mapping[Register, Value]
    reads: Mapping[Register, Value] = field(default_factory=dict)
    generation: int = 0
    term: int = 0
    why: str = ""

    def __str__(self) -> str:
        end = f"{self.returned:.3f}" if self.returned < math.inf else "..."
        at = f", generation {self.generation}" if self.generation else ""
        return f"#{self.number} ({self.client}, {self.invoked:.3f}-{end} s, {self.outcome.value}{at})"


@dataclass(frozen=True, slots=True)
class State:
    """`values`: every present register, or (not `complete`) some registers. `text`: of all rows, or its digest."""

    observer: str
    term: int
    generation: int
    invoked: float
    returned: float
    values: Mapping[Register, Value] = field(default_factory=dict)
    complete: bool = False
    at_once: bool = False
    text: str = ""

    def __str__(self) -> str:
        return f"the rows at generation {self.generation} that {self.observer} saw at {self.returned:.3f} s"


@dataclass(frozen=True, slots=True)
class Published:
    """`operation`: number of the one that it came from; 0: the database's own. `values`: as in `registers.of_delta`."""

    follower: str
    at: float
    term: int
    generation: int
    previous: int
    operation: int
    values: Mapping[Register, Value] = field(default_factory=dict)

    def __str__(self) -> str:
        name = f"the delta {self.previous}->{self.generation} of term {self.term}"
        return f"{name} that {self.follower} got at {self.at:.3f} s"


@dataclass(frozen=True, slots=True)
class PowerLoss:
    """`generation`: one that the restart has skipped: all that was lost is below, all that came later above."""

    invoked: float
    returned: float
    generation: int


@dataclass(frozen=True, slots=True)
class Interruption:
    at: float
    what: str


@dataclass(frozen=True, slots=True)
class Violation:
    rule: str
    text: str

    def __str__(self) -> str:
        return f"{self.rule}: {self.text}"


@dataclass
class History:
    """`initial`: what was there before. `volatile`: whether a register is lost with the machine's power."""

    initial: Values = field(default_factory=dict)
    operations: list[Operation] = field(default_factory=list)
    states: list[State] = field(default_factory=list)
    published: list[Published] = field(default_factory=list)
    losses: list[PowerLoss] = field(default_factory=list)
    interruptions: list[Interruption] = field(default_factory=list)
    volatile: Callable[[Register], bool] = lambda _: False


def shown(register: Register) -> str:
    """A register's name in a sentence."""
    cls, ref, path = register
    return f"{cls} {ref[-8:]}" + (f" {path}" if path else "'s being there")
