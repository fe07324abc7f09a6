"""One client connection: finds requests in the bytes, answers calls, hands everything else to who serves it.

A call whose answer is there at once is answered within the callback that received it: no task, no queue. This loop is
where most of the edge's time goes, so the head of a request is parsed again only when it differs from the one before.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Coroutine, Iterable, Iterator, Sequence
from enum import Enum, auto
from typing import Any, Protocol, cast

from services.api.edge import head as http
from services.api.edge import pages
from services.api.edge.client_trust import ClientTrust
from services.api.edge.dispatcher import Answer, Caller, Dispatcher, HttpRefusal, Waiting
from services.api.edge.endpoint import Endpoint, Kind, Limits
from services.api.edge.handlers import METHODS, Handler, Router, Runs
from services.api.edge.peer import Network, Peer
from services.api.edge.statistics import Statistics
from services.api.edge.stream import ClientGone, Stream
from services.api.wire import jsonrpc, xmlrpc
from services.api.wire.codec import Call, Codec
from services.api.wire.raw import Malformed, RawParams
from shared.errors import ApiError

log = logging.getLogger("edge")

HIGH_WATER = 64 * 1024
"""Bytes that a client may send ahead while its call is being answered."""
SLICE = 256 * 1024
"""Bytes of a long answer that are joined and written at once: they fit the processor's cache."""
TURN = 0.005
"""Seconds of answering what came together, or of sending, after which others get their turn."""
OTHER_CONFIG = "x-http-other-config-"


class Exchange:
    """A request that is not a call, and the connection it came on."""

    def __init__(self, connection: Connection, head: http.Head, row: Handler, caller: Caller, body: bytes) -> None:
        self.head = head
        self.row = row
        self.caller = caller
        self.body = body
        self._connection = connection
        self._stream: Stream | None = None

    @property
    def stream(self) -> Stream:
        """The rest of the request's body and the reply to it, for what is too large to be held."""
        if self._stream is None:
            limits = self._connection.limits
            self._stream = Stream(self, limits.stream, limits.linger)
        return self._stream

    @property
    def time_limit(self) -> float:
        """Seconds for which a client may take nothing of what is sent."""
        return self._connection.limits.stream

    @property
    def secure(self) -> bool:
        """Whether nobody between the client and this host can read it."""
        return self.caller.secure or self.caller.trusted

    def take_over(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """The connection as a pair of streams; no HTTP from here on. What the client sent ahead is read first."""
        return self._connection.take_over()

    def hand_over(self, protocol: asyncio.Protocol) -> None:
        """Gives the connection to another protocol, which sees the request from its beginning, and tells the end."""
        self._connection.hand_over(protocol)

    def lost(self, error: Exception | None) -> None:
        """The connection that was handed over has ended."""
        self._connection.connection_lost(error)


class Owner(Protocol):
    """The edge, as its connections see it."""

    limits: Limits
    statistics: Statistics
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
    """Invariants: `_head`, `_row`, `_caller` belong to `_head_bytes`, if there are any. The timer runs only while a
    request is incomplete, or while the client gets time to read an error."""

    def __init__(self, owner: Owner, endpoint: Endpoint) -> None:
        self.endpoint = endpoint
        self._owner = owner
        self._loop = asyncio.get_running_loop()
        self._state = _State.HEAD
        self._buffer = bytearray()
        self._first = True
        self._reading = True
        self._writable = True
        self._eof = False
        self._last = False
        self._resting = False
        self._timer: asyncio.TimerHandle | None = None
        self._task: asyncio.Task[None] | None = None
        self._unread: asyncio.TimerHandle | None = None
        self._resumed: asyncio.Future[None] | None = None
        self._abandonable = False
        self._head_bytes = b""
        self._transport: asyncio.Transport
        self._head: http.Head
        self._row: Handler
        self._caller: Caller
        self.limits = limits = owner.limits
        self._header_limit = {
            Kind.PLAIN: limits.header_plain,
            Kind.TLS: limits.header_tls,
            Kind.UNIX: limits.header_unix,
        }[endpoint.kind]

    # ---- callbacks of the transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport = cast(asyncio.Transport, transport)  # uvloop's is none by inheritance
        self._transport = transport
        owner = self._owner
        self.peer = Peer(transport, self.endpoint, owner.proxies, owner.trust)
        owner.statistics.accepted += 1
        owner.statistics.open += 1
        self._opened = self._received = self._loop.time()
        too_many = len(owner.connections) >= owner.limits.connections and self.endpoint.kind is not Kind.UNIX
        refused = too_many and not owner.make_room()
        owner.connections.add(self)
        if refused:
            owner.statistics.refused += 1
            self.fail(503, "There are too many connections.")
            return
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_watching()
        self._stop_waiting()
        self._state = _State.CLOSING
        self._owner.statistics.open -= 1
        self._owner.connections.discard(self)
        self._wake()
        self._abandon()

    def eof_received(self) -> bool:
        self._eof = True
        unanswered = self._resting or bool(self._buffer and not self._writable)
        if (self._state is not _State.BUSY or self._abandonable) and not unanswered:
            return False
        # A client may close its sending half and still read the answer. TLS has no halves.
        return self.endpoint.kind is not Kind.TLS

    def pause_writing(self) -> None:
        self._writable = False
        self._unread = self._loop.call_later(self.limits.stream, self._transport.abort)

    def resume_writing(self) -> None:
        self._writable = True
        self._stop_waiting()
        self._wake()
        self._progress()

    def _stop_waiting(self) -> None:
        """The client has taken what was sent, or is gone."""
        if self._unread is not None:
            self._unread.cancel()
            self._unread = None

    def _wake(self) -> None:
        """Whoever waits for the client to take what was sent goes on."""
        if self._resumed is not None and not self._resumed.done():
            self._resumed.set_result(None)

    def data_received(self, data: bytes) -> None:
        if self._state is _State.CLOSING:
            return
        self._buffer += data
        if self._state is _State.BUSY or not self._writable or self._resting:
            if len(self._buffer) > HIGH_WATER and self._reading:
                self._reading = False
                self._transport.pause_reading()
            return
        self._progress()

    # ---- finding requests

    def _progress(self) -> None:
        """Serves all that is complete, or as much as fits into a turn."""
        begun = 0.0
        while self._writable and self._is_complete():
            self._serve()
            if self._buffer:
                now = time.perf_counter()
                begun = begun or now
                if now - begun > TURN:
                    self._rest()
                    return
        if self._state in (_State.HEAD, _State.BODY):
            if self._eof and self._writable:
                self._state = _State.CLOSING
                self._transport.close()
                return
            if not self._reading:
                self._reading = True
                self._transport.resume_reading()
            if self._first or self._buffer or self._state is _State.BODY:
                self._received = self._loop.time()
                self._watch()

    def _rest(self) -> None:
        self._resting = True
        self._loop.call_soon(self._go_on)

    def _go_on(self) -> None:
        self._resting = False
        self._progress()

    def _is_complete(self) -> bool:
        """Whether a request is there, with as much of its body as its row wants to have read."""
        if self._state is _State.HEAD and self._buffer and self._take_head():
            self._state = _State.BODY
        if self._state is not _State.BODY:
            return False
        return not self._row.body or len(self._buffer) >= (self._head.length or 0)

    def _take_head(self) -> bool:
        """Whether a head was complete and acceptable."""
        buffer = self._buffer
        if self.peer.undecided and not self._take_preamble():
            return False
        if buffer[:2] == b"\r\n":
            del buffer[: http.blank_lines(buffer)]
        end = buffer.find(http.END)
        if (len(buffer) if end < 0 else end + len(http.END)) > self._header_limit:
            self.fail(431)
            return False
        if end < 0:
            return False
        raw = bytes(buffer[:end])
        if raw != self._head_bytes:
            try:
                self._read_head(raw)
            except http.Unfinished:
                return False
            except http.HeadError as error:
                self.fail(500, f"The HTTP headers could not be parsed: {error}.")
                return False
            except HttpRefusal as refusal:
                self._refuse(refusal)
                return False
        del buffer[: end + len(http.END)]
        return True

    def _take_preamble(self) -> bool:
        """Whether what follows is a request: nothing, or all that a proxy says first, has been taken away."""
        try:
            taken = self.peer.take_preamble(self._buffer)
        except http.HeadError as error:
            self.fail(500, f"The HTTP headers could not be parsed: {error}.")
            return False
        if self.peer.secure:
            self._header_limit = self._owner.limits.header_tls
        return taken

    def _read_head(self, raw: bytes) -> None:
        self._head_bytes = b""
        self._head = head = http.parse(raw)
        if head.method not in METHODS:
            raise HttpRefusal(501, f"The method {head.method} is not supported.")
        row = self._owner.router(self.endpoint.host).find(head.method, head.path)
        if row is None:
            raise HttpRefusal(403)
        if row.body:
            if head.chunked:
                raise HttpRefusal(500, "Chunked bodies are not supported here.")
            if head.length is None:
                raise HttpRefusal(500, "Content-Length is missing.")
            if head.length > row.body:
                raise HttpRefusal(500, f"The body is larger than {row.body} bytes.")
        elif row.runs is Runs.PREFLIGHT:
            head.keep_alive = head.keep_alive and not head.length and not head.chunked
        self._row, self._caller, self._head_bytes = row, self._describe(head), raw

    def _describe(self, head: http.Head) -> Caller:
        get = head.headers.get
        extra = {n[len(OTHER_CONFIG) :]: v for n, v in head.headers.items() if n.startswith(OTHER_CONFIG)}
        return Caller(
            host=self.endpoint.host,
            address=self.peer.address,
            trusted=self.endpoint.kind is Kind.UNIX,
            secure=self.peer.secure,
            certificate=self.peer.certificate,
            user_agent=get("user-agent", ""),
            originator=get("originator", ""),
            traceparent=get("traceparent", ""),
            baggage=get("baggage", ""),
            task=get("task-id", ""),
            subtask_of=get("subtask-of", ""),
            thumbprint=get("x-xenapi-request-host-certificate-thumbprint", ""),
            host_header=get("host", ""),
            other_config=extra,
        )

    def _serve(self) -> None:
        """Serves the request that is complete."""
        self._stop_watching()
        self._received = self._loop.time()
        self._first = False
        row, head = self._row, self._head
        body = b""
        if row.body:
            length = head.length or 0
            body = bytes(self._buffer[:length])
            del self._buffer[:length]
        if row.runs is Runs.XMLRPC:
            self._call(body, xmlrpc.XML)
        elif row.runs is Runs.JSONRPC:
            self._call(body, jsonrpc.JSON)
        elif row.runs is Runs.PREFLIGHT:
            requested = head.headers.get("access-control-request-headers", "")
            self._send(pages.preflight(requested, http10=head.http10, keep_alive=head.keep_alive))
        else:
            self._state = _State.BUSY
            self._task = self._owner.start(self._exchange(Exchange(self, head, row, self._caller, body)))

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
            outcome = self._owner.dispatcher.call(self._caller, call.method, RawParams(call.params), codec)
        except Exception as error:
            self._answer_failure(call, error)
            return
        if isinstance(outcome, Answer):
            if not _is_long(outcome):
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
            if _is_long(answer):
                await self._answer_in_pieces(call, answer)
            else:
                self._answer(call, answer)
        self._abandonable = False
        self._progress()

    def _answer_failure(self, call: Call, error: Exception) -> None:
        if isinstance(error, HttpRefusal):
            self._refuse(error)
            return
        if isinstance(error, ApiError):
            description = error.description
        else:
            log.error("%s failed", call.method, exc_info=error)
            description = ["INTERNAL_ERROR", f"{type(error).__name__}: {error}"]
        self._answer(call, Answer(error=description))

    def _answer(self, call: Call, answer: Answer) -> None:
        if answer.error is not None:
            body = call.early_failure(answer.error) if answer.early else call.failure(answer.error)
        else:
            body = call.bare(answer.value) if answer.bare else call.success(answer.value)
        self._send(self._reply_head(len(body), answer) + body)

    def _reply_head(self, length: int, answer: Answer) -> bytes:
        head = self._head
        content_type = xmlrpc.CONTENT_TYPE if self._row.runs is Runs.XMLRPC else jsonrpc.CONTENT_TYPE
        thumbprint = answer.thumbprint if self._caller.thumbprint else ""
        return pages.call_head(
            length, content_type, http10=head.http10, keep_alive=head.keep_alive, thumbprint=thumbprint
        )

    async def _answer_in_pieces(self, call: Call, answer: Answer) -> None:
        """Sends a long result at the pace of its client, a slice at a time: at tens of megabytes every copy counts, and
        others get their turn in between.
        """
        before, after = call.envelope()
        pieces = answer.pieces or [answer.value]
        length = len(before) + sum(map(len, pieces)) + len(after)
        slices = _slices([self._reply_head(length, answer), before, *pieces, after])
        begun = time.perf_counter()
        for data in slices:
            if self._state is _State.CLOSING or self._transport.is_closing():
                return
            self._transport.write(data)
            if not self._writable:
                await self._until_writable()
            elif time.perf_counter() - begun > TURN:
                await asyncio.sleep(0)
            else:
                continue
            begun = time.perf_counter()
        self._sent()

    async def _until_writable(self) -> None:
        """Until the client has taken what was sent, or is gone."""
        self._resumed = self._loop.create_future()
        await self._resumed

    def _send(self, reply: bytes) -> None:
        """Sends a whole reply and gets ready for the next request, or closes."""
        if self._state is _State.CLOSING or self._transport.is_closing():
            return
        self._transport.write(reply)
        self._sent()

    def _sent(self) -> None:
        if self._head.keep_alive and not self._last:
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
        refusal = _as_refusal(error)
        self._owner.statistics.pages[refusal.status] += 1
        head = getattr(self, "_head", None)
        http10 = head is not None and head.http10
        if refusal.location:
            return pages.redirect(refusal.status, refusal.location)
        if refusal.bare:
            return pages.refusal(refusal.status, refusal.text, http10=refusal.http10)
        realm = (refusal.realm or realm) if refusal.status == 401 else ""
        return pages.error(refusal.status, refusal.text, http10=http10, realm=realm)

    def take_over(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader = asyncio.StreamReader(limit=HIGH_WATER, loop=self._loop)
        protocol = _Taken(reader, self)
        writer = asyncio.StreamWriter(self._transport, protocol, reader, self._loop)
        gone = self._transport.is_closing()
        if gone:
            self._state = _State.GONE
        else:
            self._pass_on(protocol)
        if self._buffer:
            reader.feed_data(bytes(self._buffer))
        if self._eof or gone:
            reader.feed_eof()
        return reader, writer

    def hand_over(self, protocol: asyncio.Protocol) -> None:
        request = self._head_bytes + http.END + bytes(self._buffer)
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
        all_read = self._state is not _State.HEAD and not self._buffer and (self._row.body or self._head.bodiless)
        self._stop_watching()
        self._state = _State.CLOSING
        if all_read or self._eof:
            self._transport.close()
            return
        if self._transport.can_write_eof():
            self._transport.write_eof()
        if not self._reading:
            self._transport.resume_reading()
        self._timer = self._loop.call_later(self._owner.limits.linger, self._transport.close)

    @property
    def idle_since(self) -> float | None:
        """When a connection that nobody works for was last heard of; None for one that is busy."""
        return self._received if self._state in (_State.HEAD, _State.BODY) and not self._resting else None

    def give_way(self) -> None:
        """An idle connection closes; what its client did not read yet is lost if it does not read."""
        self._state = _State.CLOSING
        self._stop_watching()
        if self._writable:
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

    # ---- time

    def _watch(self) -> None:
        if self._timer is None:
            self._timer = self._loop.call_at(self._due(), self._time_is_up)

    def _stop_watching(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _due(self) -> float:
        limits = self._owner.limits
        if self._first:
            return min(self._received + limits.first_read, self._opened + limits.first_total)
        return self._received + limits.stall

    def _time_is_up(self) -> None:
        self._timer = None
        if self._loop.time() < self._due():
            self._watch()
        else:
            self.fail(408)


class _Taken(asyncio.StreamReaderProtocol):
    """The stream pair's protocol; tells the connection it came from when the client has gone."""

    def __init__(self, reader: asyncio.StreamReader, connection: Connection) -> None:
        super().__init__(reader, loop=asyncio.get_running_loop())
        self._connection = connection

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._connection.connection_lost(exc)


def _is_long(answer: Answer) -> bool:
    return bool(answer.pieces) or (len(answer.value) > SLICE and answer.error is None and not answer.bare)


def _slices(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """The pieces joined to about `SLICE` bytes each."""
    joined: list[bytes] = []
    size = 0
    for piece in pieces:
        joined.append(piece)
        size += len(piece)
        if size >= SLICE:
            yield b"".join(joined)
            joined.clear()
            size = 0
    if joined:
        yield b"".join(joined)


async def _ready(answer: Answer) -> Answer:
    return answer


def _as_refusal(error: Exception) -> HttpRefusal:
    """What went wrong, in HTTP's terms."""
    if isinstance(error, HttpRefusal):
        return error
    if isinstance(error, ApiError):
        status = _STATUS.get(error.code, 500)
        return HttpRefusal(status, "" if status == 401 else pages.api_error(error.description))
    return HttpRefusal(500, f"{type(error).__name__}: {error}")


_STATUS = {
    "SESSION_INVALID": 401,
    "SESSION_AUTHENTICATION_FAILED": 401,
    "SESSION_AUTHORIZATION_FAILED": 401,
    "RBAC_PERMISSION_DENIED": 403,
}
