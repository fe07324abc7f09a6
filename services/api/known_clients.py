"""Which programs have logged in, as their User-Agent says."""

from __future__ import annotations

from typing import Final

LIMIT: Final = 128
LONGEST: Final = 64
"""Characters of a User-Agent that count."""


class KnownClients:
    """The last that logged in, by name and version."""

    def __init__(self) -> None:
        self._seen: dict[tuple[str, str], None] = {}

    def note(self, user_agent: str) -> None:
        """`name/version ...`; others are not kept."""
        words = user_agent[:LONGEST].split(maxsplit=1)
        name, slash, version = (words[0] if words else "").partition("/")
        if not name or not slash:
            return
        self._seen.pop((name, version), None)
        self._seen[name, version] = None
        if len(self._seen) > LIMIT:
            del self._seen[next(iter(self._seen))]

    def versions(self) -> dict[str, str]:
        """Name to the version that logged in last."""
        return {name: version for name, version in self._seen}
