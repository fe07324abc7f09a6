"""Who calls: rows of class Caller as patterns, and which of them a call's user agent and address match.

A field of a pattern is exact; a prefix, when it ends in `*`; anything, when it is empty.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from services.api.decisions.rows import NULL, Record

CACHED: Final = 1024
"""Origins whose matches are remembered."""


@dataclass(frozen=True, slots=True)
class Origin:
    """What a call says of where it comes from. A fully known one is worth a row of its own."""

    user_agent: str
    address: str

    @property
    def is_known(self) -> bool:
        """Neither part is missing, or would be a prefix if it were made a pattern."""
        return bool(self.user_agent and self.address) and not self.user_agent.endswith("*")


@dataclass(frozen=True, slots=True)
class Pattern:
    user_agent: str
    address: str

    @staticmethod
    def of(row: Record) -> Pattern:
        return Pattern(_canonical(row["user_agent"]), _canonical(row["client_ip"]))

    def matches(self, origin: Origin) -> bool:
        return _matches(self.user_agent, origin.user_agent) and _matches(self.address, origin.address)

    @property
    def is_anything(self) -> bool:
        return self.user_agent == self.address == ""

    @property
    def is_exact(self) -> bool:
        return _vagueness(self.user_agent) == _vagueness(self.address) == 0

    @property
    def rank(self) -> tuple[int, int, int, int, str, str]:
        """Sorts the more specific first: fewer wildcards, then longer texts."""
        vague = _vagueness(self.user_agent), _vagueness(self.address)
        return (sum(vague), *vague, -len(self.user_agent) - len(self.address), self.user_agent, self.address)


def _canonical(text: str) -> str:
    return "" if text == "*" else text


def _matches(pattern: str, text: str) -> bool:
    if pattern.endswith("*"):
        return text.startswith(pattern[:-1])
    return pattern in ("", text)


def _vagueness(pattern: str) -> int:
    if not pattern:
        return 2
    return 1 if pattern.endswith("*") else 0


@dataclass(slots=True, eq=False)
class Usage:
    """Since the service started. `last`: a number that rises with every call of anybody, 0 for none yet."""

    tokens: float = 0.0
    calls: int = 0
    last: int = 0


@dataclass(frozen=True, slots=True)
class Known:
    """A row, and how it was used. `limit`: reference of its Rate_limit, or null."""

    ref: str
    pattern: Pattern
    limit: str
    groups: frozenset[str]
    auto: bool
    usage: Usage


class Callers:
    """The rows of class Caller, by reference."""

    def __init__(self) -> None:
        self._known: dict[str, Known] = {}
        self._found: dict[Origin, tuple[Known, ...]] = {}
        self._clock = 0

    def __iter__(self) -> Iterator[Known]:
        return iter(self._known.values())

    def __getitem__(self, ref: str) -> Known:
        return self._known[ref]

    def get(self, ref: str) -> Known | None:
        return self._known.get(ref)

    def update(self, ref: str, row: Record | None, usage: Usage | None = None) -> None:
        """The row is so now (None: gone). Its usage goes on; a new one begins with `usage`."""
        before = self._known.get(ref)
        if row is None:
            self._known.pop(ref, None)
        else:
            kept = before.usage if before is not None else usage or Usage(last=self.tick())
            groups, limit = frozenset(row["groups"]), row["rate_limit"] or NULL
            known = Known(ref, Pattern.of(row), limit, groups, row["auto_registered"], kept)
            if known == before:
                return
            self._known[ref] = known
        self._found.clear()

    def tick(self) -> int:
        self._clock += 1
        return self._clock

    def matching(self, origin: Origin) -> tuple[Known, ...]:
        """All that match, the most specific first."""
        found = self._found.get(origin)
        if found is None:
            matches = [known for known in self._known.values() if known.pattern.matches(origin)]
            found = tuple(sorted(matches, key=lambda known: known.pattern.rank))
            if len(self._found) >= CACHED:
                self._found.clear()
            self._found[origin] = found
        return found

    def surplus(self, most: int) -> list[str]:
        """Which of those that registered themselves have to go so that `most` are left: the least recently used.
        Negative: there is no limit.
        """
        own = sorted((known for known in self._known.values() if known.auto), key=lambda known: known.usage.last)
        return [known.ref for known in own[: max(0, len(own) - most)]] if most >= 0 else []
