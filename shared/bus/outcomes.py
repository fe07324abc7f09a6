"""What a server remembers of finished calls, so that a call that comes again is answered and not run again."""

from __future__ import annotations

from collections import OrderedDict, deque
from dataclasses import dataclass

MAX_OUTCOMES = 20_000
LARGE = 4096
"""Bytes. Larger answers are kept only within `MAX_LARGE_BYTES` in all; of others the id stays."""
MAX_LARGE_BYTES = 64 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Outcome:
    """`answer`: the encoded message; None when it was too large to keep. `at`: when the call finished."""

    answer: bytes | None
    at: float


class Outcomes:
    """Times are of one monotonic clock that the caller reads."""

    def __init__(self, keep: float) -> None:
        self._keep = keep
        self._outcomes: OrderedDict[str, Outcome] = OrderedDict()
        self._large: deque[str] = deque()
        self._large_bytes = 0
        self._forgotten = float("-inf")

    def __len__(self) -> int:
        return len(self._outcomes)

    def get(self, id: str) -> Outcome | None:
        return self._outcomes.get(id)

    def forget(self, id: str) -> None:
        """It will be run again under its id."""
        self._outcomes.pop(id, None)

    def complete_since(self, time: float) -> bool:
        """Whether every call that came after `time` is still remembered."""
        return time > self._forgotten

    def add(self, id: str, answer: bytes, now: float) -> None:
        self._outcomes[id] = Outcome(answer, now)
        if len(answer) > LARGE:
            self._large.append(id)
            self._large_bytes += len(answer)
            while self._large_bytes > MAX_LARGE_BYTES:
                self._drop_answer(self._large.popleft())
        while self._outcomes:
            oldest, outcome = next(iter(self._outcomes.items()))
            if len(self._outcomes) <= MAX_OUTCOMES and now - outcome.at <= self._keep:
                break
            self._forgotten = outcome.at
            if self._large and self._large[0] == oldest:
                self._drop_answer(self._large.popleft())
            del self._outcomes[oldest]

    def _drop_answer(self, id: str) -> None:
        outcome = self._outcomes.get(id)
        if outcome is not None and outcome.answer is not None:
            self._large_bytes -= len(outcome.answer)
            self._outcomes[id] = Outcome(None, outcome.at)
