"""TLS handshakes in progress. A connection counts only after its handshake, and one costs memory before it."""

from __future__ import annotations

import ssl
import weakref

from services.api.edge.statistics import Statistics


class TooManyHandshakes(ConnectionAbortedError):
    """The connection is closed without a word. As an `OSError` it is no news for the loop's log."""


class Handshakes:
    """At most `most` at once, of all listeners together.

    Loops do not tell which have failed, but let go of them: only weak references count.
    """

    def __init__(self, most: int, statistics: Statistics) -> None:
        self._most = most
        self._statistics = statistics
        self._open: weakref.WeakSet[ssl.SSLObject] = weakref.WeakSet()

    def __len__(self) -> int:
        return len(self._open)

    def check(self) -> None:
        """Raises `TooManyHandshakes` when another one would be too many."""
        if len(self._open) >= self._most:
            self._statistics.refused += 1
            raise TooManyHandshakes("too many TLS handshakes are in progress")

    def begin(self, connection: ssl.SSLObject) -> None:
        self._open.add(connection)

    def finish(self, connection: ssl.SSLObject | None) -> None:
        """It has succeeded. None: the connection had none."""
        if connection is not None:
            self._open.discard(connection)
