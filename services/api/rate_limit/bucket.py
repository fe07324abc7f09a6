"""The token bucket: how much may be done now. Pure; times are seconds of any clock that only goes forward."""

from __future__ import annotations


class TokenBucket:
    """Holds up to `burst` tokens, `fill` more come every second; it begins full.

    What costs more than the bucket holds is let through when it is full, and leaves it in debt.
    """

    def __init__(self, burst: float, fill: float, now: float) -> None:
        self.burst = burst
        self.fill = fill
        self._tokens = burst
        self._at = now

    def tokens(self, now: float) -> float:
        """What is there; less than nothing while a debt is being paid back."""
        return min(self.burst, self._tokens + self.fill * (now - self._at))

    def take(self, cost: float, now: float) -> bool:
        """Takes the tokens if there are enough."""
        present = self.tokens(now)
        if present < min(cost, self.burst):
            return False
        self._tokens, self._at = present - cost, now
        return True

    def wait(self, cost: float, now: float) -> float:
        """Seconds until `take` will succeed, if nobody else takes anything."""
        return max(0.0, (min(cost, self.burst) - self.tokens(now)) / self.fill)
