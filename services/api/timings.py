"""How long calls take, by message."""

from __future__ import annotations

import math


class Timings:
    """Since the process started. Look-ups that are answered at once are not counted."""

    def __init__(self) -> None:
        self._sums: dict[str, tuple[int, float, float]] = {}

    def note(self, message: str, seconds: float) -> None:
        calls, total, squares = self._sums.get(message, (0, 0.0, 0.0))
        self._sums[message] = (calls + 1, total + seconds, squares + seconds * seconds)

    def summary(self) -> dict[str, tuple[int, float, float]]:
        """Message to its calls, their mean and its standard deviation, in seconds."""
        found = {}
        for message, (calls, total, squares) in self._sums.items():
            mean = total / calls
            found[message] = (calls, mean, math.sqrt(max(squares / calls - mean * mean, 0.0)))
        return found
