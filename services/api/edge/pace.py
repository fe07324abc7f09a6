"""Making a client of TLS wait, without losing what it has sent.

A transport of TLS that is told to pause goes on reading the socket until its own buffer is full, and throws that away
when it finds that the client has closed: the end of an upload is lost where the client closes when it has sent all, as
`xe` does. So the socket below is paused, by limits of that buffer: what was received has always been passed on.
"""

from __future__ import annotations

import asyncio


class TlsPace(asyncio.ReadTransport):
    """What a StreamReader pauses and resumes, for a transport of TLS."""

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__()
        self._transport = transport
        self._loop = loop
        self._soon: asyncio.Handle | None = None
        self._paused = False

    def pause_reading(self) -> None:
        """A StreamReader calls this within the transport's own reading, at whose end the limits count once more."""
        if self._soon is None and not self._paused:
            self._soon = self._loop.call_soon(self._pause)

    def resume_reading(self) -> None:
        if self._soon is not None:
            self._soon.cancel()
            self._soon = None
        if self._paused:
            self._paused = False
            self._limit(None)

    def is_reading(self) -> bool:
        return not self._paused

    def _pause(self) -> None:
        self._soon = None
        self._paused = True
        self._limit(0)

    def _limit(self, high: int | None) -> None:
        if not self._transport.is_closing():
            # of asyncio's and uvloop's transports of TLS alone
            self._transport.set_read_buffer_limits(high)  # type: ignore[attr-defined]
