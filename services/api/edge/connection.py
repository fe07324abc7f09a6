"""One client connection: the states of a request, from its first byte to its answer's last.

A call whose answer is there at once is answered within the callback that received it: no task, no queue. This loop is
where most of the edge's time goes. What is not a call goes to who serves it (`exchange`).
"""

from __future__ import annotations

import asyncio
import functools
import logging
import time
from collections.abc import Coroutine, Sequence
from enum import Enum, auto
from typing import Any, Protocol, cast

from services.api.edge import answers, pages
from services.api.edge import head as http
from services.api.edge.client_trust import ClientTrust
from services.api.edge.clock import TURN, Clock
from services.api.edge.dispatcher import Answer, Dispatcher, HttpRefusal, Waiting
from services.api.edge.endpoint import Endpoint, Kind, Limits
from services.api.edge.exchange import Exchange
from services.api.edge.handlers import Router, Runs
from services.api.edge.handshakes import Handshakes
from services.api.edge.pace import TlsPace
from services.api.edge.peer import Network, Peer
from services.api.edge.reader import Reader
from services.api.edge.statistics import Statistics
from services.api.edge.stream import ClientGone
from services.api.edge.writer import Writer
from services.api.wire import jsonrpc, xmlrpc
from services.api.wire.codec import Call, Codec
from services.api.wire.raw import Malformed, RawParams
from shared.errors import ApiError

log = logging.getLogger("edge")

HIGH_WATER = 64 * 1024
"""Bytes that a client may send ahead while its call is being answered."""


class Owner(Protocol):
    """The edge, as its connections see it."""

    limits: Limits
    statistics: Statistics
    handshakes: Handshakes
    dispatcher: Dispatcher
    connections: set[Connection]
    proxies: Sequence[Network]
    trust: ClientTrust | None

    def router(self, host: str) -> Router: ...

    def make_room(self) -> bool:
        """There are too many connections: some that nobody works for end. False: all are busy."""
        ...

    def start(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Runs it as a task that ends with the edge."""
        ...

    async def serve(self, exchange: Exchange) -> None:
        """Serves what is not a call. Raises `HttpRefusal` or `ApiError` as long as the connection is not taken over."""
        ...


class _State(Enum):
    HEAD = auto()  # waiting for the head of a request
    BODY = auto()  # waiting for its body
    BUSY = auto()  # somebody works on the answer
    CLOSING = auto()  # nothing is read any more
    GONE = auto()  # somebody else has the connection


class Connection(asyncio.Protocol):
    """`peer`, `reader`, `writer` are there once the connection is made. The clock runs only in HEAD and BODY, and in
    CLOSING while the client gets time to read an error.
    """

    def __init__(self, owner: Owner, endpoint: Endpoint) -> None:
        self.endpoint = endpoint
        self.limits = owner.limits
        self.peer: Peer
        self.reader: Reader
        self.writer: Writer
        self._owner = owner
        self._loop = asyncio.get_running_loop()
        self._state = _State.HEAD
        self._reading = True
        self._eof = False
        self._last = False
        self._resting = False
        self._abandonable = False
        self._task: asyncio.Task[None] | None = None
        self._clock: Clock
        self._transport: asyncio.Transport

    # ---- callbacks of the transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport = cast(asyncio.Transport, transport)  # uvloop's is none by inheritance
        owner = self._owner
        self._transport = transport
        owner.handshakes.finish(transport.get_extra_info("ssl_object"))
        self.peer = Peer(transport, self.endpoint, owner.proxies, owner.trust)
        router = functools.partial(owner.router, self.endpoint.host)
        self.reader = Reader(self.peer, self.endpoint, owner.limits, router)
        self.writer = Writer(transport, owner.limits.stream)
        self._clock = Clock(owner.limits)
        owner.statistics.accepted += 1
        owner.statistics.open += 1
        too_many = len(owner.connections) >= owner.limits.connections and self.endpoint.kind is not Kind.UNIX
        refused = too_many and not owner.make_room()
        owner.connections.add(self)
        if refused:
            owner.statistics.refused += 1
            self.fail(503, "There are too many connections.")
            return
        self._clock.await_request(self._too_late)

    def connection_lost(self, exc: Exception | None) -> None:
        self._clock.stop()
        self._state = _State.CLOSING
        self._owner.statistics.open -= 1
        self._owner.connections.discard(self)
        self.writer.lost()
        self._abandon()

    def eof_received(self) -> bool:
        self._eof = True
        unanswered = self._resting or bool(self.reader.buffer and not self.writer.writable)
        if (self._state is not _State.BUSY or self._abandonable) and not unanswered:
            return False
        # A client may close its sending half and still read the answer. TLS has no halves.
        return self.endpoint.kind is not Kind.TLS

    def pause_writing(self) -> None:
        self.writer.pause()

    def resume_writing(self) -> None:
        self.writer.resume()
        self._progress()

    def data_received(self, data: bytes) -> None:
        if self._state is _State.CLOSING:
            return
        buffer = self.reader.buffer
        buffer += data
        if self._state is _State.BUSY or not self.writer.writable or self._resting:
            if len(buffer) > HIGH_WATER and self._reading:
                self._reading = False
                self._transport.pause_reading()
            return
        self._progress()

    # ---- finding requests

    def _progress(self) -> None:
        """Serves all that is complete, or as much as fits into a turn."""
        begun = 0.0
        while self.writer.writable and self._is_complete():
            self._serve()
            if self.reader.buffer:
                now = time.perf_counter()
                begun = begun or now
                if now - begun > TURN:
                    self._rest()
                    return
        if self._state in (_State.HEAD, _State.BODY):
            if self._eof and self.writer.writable:
                self._state = _State.CLOSING
                self._transport.close()
                return
            if not self._reading:
                self._reading = True
                self._transport.resume_reading()
            if self._clock.first or self.reader.buffer or self._state is _State.BODY:
                self._clock.hear()
                self._clock.await_request(self._too_late)

    def _rest(self) -> None:
        self._resting = True
        self._loop.call_soon(self._go_on)

    def _go_on(self) -> None:
        self._resting = False
        self._progress()

    def _is_complete(self) -> bool:
        """Whether a request is there, with as much of its body as its row wants to have read."""
        reader = self.reader
        if self._state is _State.HEAD and reader.buffer:
            try:
                if reader.take_head():
                    self._state = _State.BODY
            except HttpRefusal as refusal:
                self._refuse(refusal)
        return self._state is _State.BODY and reader.has_body()

    def _serve(self) -> None:
        """Serves the request that is complete."""
        self._clock.complete()
        request = self.reader.request
        body = self.reader.take_body()
        runs = request.row.runs
        if runs is Runs.XMLRPC:
            self._call(body, xmlrpc.XML)
        elif runs is Runs.JSONRPC:
            self._call(body, jsonrpc.JSON)
        elif runs is Runs.PREFLIGHT:
            head = request.head
            requested = head.headers.get("access-control-request-headers", "")
            self._send(pages.preflight(requested, http10=head.http10, keep_alive=head.keep_alive))
        else:
            self._state = _State.BUSY
            self._task = self._owner.start(self._exchange(Exchange(self, request, body)))

    # ---- calls

    def _call(self, body: bytes, codec: Codec) -> None:
        self._owner.statistics.calls[codec.name] += 1
        try:
            call: Call = xmlrpc.parse(body) if codec is xmlrpc.XML else jsonrpc.parse(body)
        except Malformed as error:
            self.fail(500, f"The call could not be parsed: {error}.")
            return
        except jsonrpc.InvalidText as found:
            self._answer(found.call, Answer(error=found.description, early=True))
            return
        try:
            outcome = self._owner.dispatcher.call(
                self.reader.request.caller, call.method, RawParams(call.params), codec
            )
        except Exception as error:
            self._answer_failure(call, error)
            return
        if isinstance(outcome, Answer):
            if not answers.is_long(outcome):
                self._answer(call, outcome)
                return
            outcome = _ready(outcome)
        self._state = _State.BUSY
        if isinstance(outcome, Waiting):
            self._abandonable = True
            outcome = outcome.answer
        self._task = self._owner.start(self._finish(call, outcome))

    async def _finish(self, call: Call, work: Coroutine[Any, Any, Answer]) -> None:
        try:
            answer = await work
        except asyncio.CancelledError:
            self._transport.abort()
            raise
        except Exception as error:
            self._answer_failure(call, error)
        else:
            self._abandonable = False
            if answers.is_long(answer):
                await self._answer_in_slices(call, answer)
            else:
                self._answer(call, answer)
        self._abandonable = False
        self._progress()

    def _answer_failure(self, call: Call, error: Exception) -> None:
        if isinstance(error, HttpRefusal):
            self._refuse(error)
        else:
            self._answer(call, answers.of_error(call, error))

    def _answer(self, call: Call, answer: Answer) -> None:
        self._send(answers.whole(self.reader.request, call, answer))

    async def _answer_in_slices(self, call: Call, answer: Answer) -> None:
        if await self.writer.write_all(answers.in_slices(self.reader.request, call, answer)):
            self._sent()

    def _send(self, reply: bytes) -> None:
        """Sends a whole reply and gets ready for the next request, or closes."""
        if self._state is not _State.CLOSING and self.writer.write(reply):
            self._sent()

    def _sent(self) -> None:
        if self.reader.request.head.keep_alive and not self._last:
            self._state = _State.HEAD
        else:
            self._state = _State.CLOSING
            self._transport.close()

    def _abandon(self) -> None:
        """The client has gone: a call that only waits is cancelled, others run to their end."""
        if self._task is not None and self._abandonable:
            self._owner.statistics.abandoned += 1
            self._task.cancel()

    # ---- everything else

    async def _exchange(self, exchange: Exchange) -> None:
        failure: Exception | None = None
        try:
            await self._owner.serve(exchange)
        except ClientGone as gone:
            log.info("%s: %s", exchange.row.name, gone)
            exchange.stream.abort()
        except Exception as error:
            failure = error
            if not isinstance(error, HttpRefusal | ApiError):
                log.exception("%s failed", exchange.row.name)
        stream = exchange.stream
        if stream.taken:
            if failure is not None and stream.started:
                await stream.fail()
            else:
                await stream.end(self._failure(failure, exchange.row.name) if failure is not None else b"")
        elif self._state is _State.BUSY:
            self._refuse(failure or HttpRefusal(500, f"{exchange.row.name} gave no answer."), exchange.row.name)

    def _failure(self, error: Exception, realm: str) -> bytes:
        """The whole reply that tells of an error. `realm`: of a 401."""
        refusal = pages.as_refusal(error)
        self._owner.statistics.pages[refusal.status] += 1
        return pages.of_refusal(refusal, http10=self.reader.http10, realm=realm)

    def take_over(self, *, unread: bool = False) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """`unread`: nothing is read from the client until its transport is told to; `early` is not in the stream."""
        over_tls = self.endpoint.kind is Kind.TLS
        reader = (_TlsReader if over_tls else asyncio.StreamReader)(limit=HIGH_WATER, loop=self._loop)
        protocol = _Taken(reader, self)
        writer = asyncio.StreamWriter(self._transport, protocol, reader, self._loop)
        gone = self._transport.is_closing()
        if gone:
            self._state = _State.GONE
        else:
            self._pass_on(protocol)
            if unread:
                self._transport.pause_reading()
        if self.reader.buffer and not unread:
            reader.feed_data(bytes(self.reader.buffer))
        if self._eof or gone:
            reader.feed_eof()
        return reader, writer

    @property
    def early(self) -> bytes:
        """What the client has sent behind the request's head, as far as it was read."""
        return bytes(self.reader.buffer)

    def hand_over(self, protocol: asyncio.Protocol) -> None:
        request = self.reader.request.raw + http.END + bytes(self.reader.buffer)
        self._pass_on(protocol)
        protocol.data_received(request)

    def _pass_on(self, protocol: asyncio.Protocol) -> None:
        self._state = _State.GONE
        self._transport.set_protocol(protocol)
        protocol.connection_made(self._transport)
        if not self._reading:
            self._transport.resume_reading()

    # ---- ends

    def fail(self, status: int, text: str = "") -> None:
        """Sends an error page and closes."""
        self._refuse(HttpRefusal(status, text))

    def _refuse(self, error: Exception, realm: str = "") -> None:
        """Sends an error and closes; in a while if the client may still be sending, as closing at once would reset."""
        if self._state in (_State.CLOSING, _State.GONE) or self._transport.is_closing():
            return
        self._transport.write(self._failure(error, realm))
        all_read = self._state is not _State.HEAD and self.reader.all_read
        self._clock.stop()
        self._state = _State.CLOSING
        if all_read or self._eof:
            self._transport.close()
            return
        if self._transport.can_write_eof():
            self._transport.write_eof()
        if not self._reading:
            self._transport.resume_reading()
        self._clock.linger(self._transport.close)

    @property
    def idle_since(self) -> float | None:
        """When a connection that nobody works for was last heard of; None for one that is busy."""
        return self._clock.heard if self._state in (_State.HEAD, _State.BODY) and not self._resting else None

    def give_way(self) -> None:
        """An idle connection closes; what its client did not read yet is lost if it does not read."""
        self._state = _State.CLOSING
        self._clock.stop()
        if self.writer.writable:
            self._transport.close()
        else:
            self._transport.abort()

    def stop(self) -> None:
        """The edge stops: an idle connection closes now, one with a call in progress after its answer."""
        if self._state in (_State.HEAD, _State.BODY):
            self._state = _State.CLOSING
            self._transport.close()
        self._last = True

    def abort(self) -> None:
        self._transport.abort()

    def _too_late(self) -> None:
        self.fail(408)


class _TlsReader(asyncio.StreamReader):
    """Makes its client wait by `TlsPace`."""

    def set_transport(self, transport: asyncio.BaseTransport) -> None:
        super().set_transport(TlsPace(cast(asyncio.Transport, transport), asyncio.get_running_loop()))


class _Taken(asyncio.StreamReaderProtocol):
    """The stream pair's protocol; tells the connection it came from when the client has gone."""

    def __init__(self, reader: asyncio.StreamReader, connection: Connection) -> None:
        super().__init__(reader, loop=asyncio.get_running_loop())
        self._connection = connection

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._connection.connection_lost(exc)


async def _ready(answer: Answer) -> Answer:
    return answer
