"""A TCP proxy in front of the broker that holds back what either side says, for clients that block."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from urllib.parse import urlsplit, urlunsplit


class Proxy:
    """`url` reaches the broker through it. Used from any thread.

    What is held is kept for later. A client that ends its connection ends the broker's with it only where nothing that
    it said is kept.
    """

    def __init__(self, url: str) -> None:
        self._target = urlsplit(url)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._pairs: set[_Pair] = set()
        self.holding = (False, False)
        self.connections = 0
        self.heard = threading.Semaphore(0)
        """Released for each piece that a client has said."""
        self.held = threading.Event()
        """Set when the first piece was kept back."""
        self._server = asyncio.run_coroutine_threadsafe(self._serve(), self._loop).result(5)

    @property
    def url(self) -> str:
        port = self._server.sockets[0].getsockname()[1]
        account = self._target.netloc.rpartition("@")[0]
        return urlunsplit(self._target._replace(netloc=f"{account}@127.0.0.1:{port}"))

    def hold(self, *, requests: bool = False, answers: bool = False, new: bool = False) -> None:
        """What clients, what the broker says on the connections that there are; `new`: on later ones too."""
        self.held.clear()
        if new:
            self.holding = (requests, answers)
        self._each(lambda pair: pair.hold(requests, answers))

    def release(self) -> None:
        """What was kept goes on, also when the client that said it has gone."""
        self.holding = (False, False)
        self._each(lambda pair: pair.hold(False, False))

    def cut(self) -> None:
        """Resets the clients' connections. What they said and was kept is kept on."""
        self._each(lambda pair: pair.client.abort() if pair.client is not None else None)

    def inject(self, data: bytes) -> None:
        """Says something to every client in the broker's name. Only while nothing else is said."""
        self._each(lambda pair: pair.client.write(data) if pair.client is not None else None)

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._server.close)
        self._each(lambda pair: pair.end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5)
        self._loop.close()

    def _each(self, work: Callable[[_Pair], None]) -> None:
        async def run() -> None:
            for pair in list(self._pairs):
                work(pair)

        asyncio.run_coroutine_threadsafe(run(), self._loop).result(5)

    # ---- in the loop

    async def _serve(self) -> asyncio.Server:
        return await self._loop.create_server(lambda: _Client(self), "127.0.0.1", 0)

    async def connect(self, pair: _Pair) -> None:
        self.connections += 1
        self._pairs.add(pair)
        host, port = self._target.hostname or "", self._target.port or 5672
        try:
            await self._loop.create_connection(lambda: _Broker(pair), host, port)
        except OSError:
            pair.end()

    def forget(self, pair: _Pair) -> None:
        self._pairs.discard(pair)


class _Pair:
    """A client's connection and the one to the broker for it, with what is kept of either."""

    def __init__(self, proxy: Proxy) -> None:
        self.proxy = proxy
        self.client: asyncio.Transport | None = None
        self.broker: asyncio.Transport | None = None
        self.said = bytearray()
        self.answered = bytearray()
        self._requests, self._answers = proxy.holding

    def hold(self, requests: bool, answers: bool) -> None:
        self._requests, self._answers = requests, answers
        self.flush()

    def flush(self) -> None:
        if self.broker is not None and self.said and not self._requests:
            self.broker.write(bytes(self.said))
            self.said.clear()
            if self.client is None:
                self.broker.write_eof()
        if self.client is not None and self.answered and not self._answers:
            self.client.write(bytes(self.answered))
            self.answered.clear()
        if (self.said and self._requests) or (self.answered and self._answers):
            self.proxy.held.set()

    def end(self) -> None:
        for transport in (self.client, self.broker):
            if transport is not None:
                transport.abort()
        self.proxy.forget(self)


class _Client(asyncio.Protocol):
    def __init__(self, proxy: Proxy) -> None:
        self._pair = _Pair(proxy)
        self._proxy = proxy

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._pair.client = transport
        self._task = asyncio.ensure_future(self._proxy.connect(self._pair))

    def data_received(self, data: bytes) -> None:
        self._pair.said += data
        self._proxy.heard.release()
        self._pair.flush()

    def connection_lost(self, exc: Exception | None) -> None:
        self._pair.client = None
        if not self._pair.said:
            self._pair.end()


class _Broker(asyncio.Protocol):
    def __init__(self, pair: _Pair) -> None:
        self._pair = pair

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._pair.broker = transport
        self._pair.flush()

    def data_received(self, data: bytes) -> None:
        self._pair.answered += data
        self._pair.flush()

    def connection_lost(self, exc: Exception | None) -> None:
        self._pair.broker = None
        self._pair.end()
