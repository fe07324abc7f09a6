"""The calling side: every call gets its answer or a clear error within its deadline, whatever is lost on the way.

The caller drives. A call without an answer asks (`probe`) what became of it: after a while, then regularly, and at once
when the connection is back. The server says that it runs, or answers again, or does not have it; then the call is sent
again in full. The broker tells at once when nobody consumes the queue (`Owner.returned`).
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import os
import time
from collections import Counter, deque
from collections.abc import AsyncGenerator
from typing import Any

import msgspec

from shared import trace
from shared.bus import envelope
from shared.bus.context import NO_TERM, CallContext, current
from shared.bus.contract import Absent, Method, Reply, Request
from shared.bus.interface import BusError, DeadlineExceeded, HostOffline, ResultUnknown, Unsendable
from shared.bus.timing import Timing, backoff
from shared.bus.transport import Transport
from shared.errors import internal_error

log = logging.getLogger("bus")

STREAM_WINDOW = 256
"""Records that a server may send ahead of their consumer."""
MAX_EXPIRES = 4_294_967.0
"""Seconds; the longest expiration that RabbitMQ takes (2**32 - 1 ms)."""


class _Call:
    __slots__ = (
        "context",
        "deadline",
        "first_sent",
        "future",
        "host",
        "id",
        "items",
        "method",
        "queue",
        "request",
        "resent",
        "retries",
        "sent",
        "seq",
        "server",
        "timer",
        "unroutable_since",
    )

    def __init__(
        self, id: str, method: Method[Any, Any], queue: str, host: str | None, request: Any, context: CallContext
    ) -> None:
        self.id = id
        self.method = method
        self.queue = queue
        self.host = host
        self.request = request
        self.context = context
        self.future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self.deadline = 0.0
        """By the loop's clock."""
        self.timer: asyncio.TimerHandle | None = None
        self.sent = False
        """Written to a connection and not returned: the server may have it."""
        self.first_sent = 0.0
        self.resent = False
        self.server = ""
        self.retries = 0
        self.unroutable_since: float | None = None
        self.items: _Items | None = None
        self.seq = 0


class _Items:
    """Records of a stream that its consumer has not taken yet."""

    def __init__(self) -> None:
        self.waiting: deque[Any] = deque()
        self.arrived = asyncio.Event()
        self.taken = 0
        self.credit = STREAM_WINDOW

    def put(self, record: Any) -> None:
        self.waiting.append(record)
        self.arrived.set()


class Caller:
    def __init__(self, transport: Transport, timing: Timing, counters: Counter[str]) -> None:
        self._transport = transport
        self._timing = timing
        self._counters = counters
        self._calls: dict[str, _Call] = {}
        self._servers: dict[str, str] = {}
        """By queue: the instance that answered last."""
        self._unsent_cancels: list[tuple[str, str]] = []
        self._settled = 0.0
        self._prefix = os.urandom(12).hex()
        self._numbers = itertools.count(1)
        self._closed = False
        self.term = 0

    # ---- for users

    async def call(
        self,
        method: Method[Request, Reply],
        request: Request,
        host: str | None,
        timeout: float | None,
        context: CallContext | None,
    ) -> Reply:
        context = current.get() if context is None else context
        if not trace.sampled(context.traceparent):
            return await self._call(method, request, host, timeout, context)  # type: ignore[no-any-return]
        token = current.set(context)
        try:
            with trace.span(method.key, "client", **({"to": host} if host else {})):
                return await self._call(method, request, host, timeout, current.get())  # type: ignore[no-any-return]
        finally:
            current.reset(token)

    async def _call(
        self,
        method: Method[Any, Any],
        request: Any,
        host: str | None,
        timeout: float | None,
        context: CallContext,
    ) -> Any:
        call = self._start(method, request, host, timeout, context, streams=False)
        try:
            return await call.future
        finally:
            self._forget(call)

    async def stream(
        self,
        method: Method[Request, Reply],
        request: Request,
        host: str | None,
        timeout: float | None,
        context: CallContext | None,
    ) -> AsyncGenerator[Reply, None]:
        call = self._start(method, request, host, timeout, current.get() if context is None else context, streams=True)
        items = call.items
        assert items is not None
        call.future.add_done_callback(lambda _: items.arrived.set())
        try:
            while True:
                while items.waiting:
                    yield items.waiting.popleft()
                    self._give_credit(call, items)
                if call.future.done():
                    call.future.result()
                    return
                items.arrived.clear()
                await items.arrived.wait()
        finally:
            self._forget(call)

    def metrics(self) -> dict[str, int]:
        return {"calls_waiting": len(self._calls)}

    def close(self) -> None:
        """Ends what is still waiting."""
        self._closed = True
        for call in list(self._calls.values()):
            self._fail(call, BusError("INTERNAL_ERROR", f"no answer from {call.method.key}: the bus was closed"))

    # ---- the life of a call

    def _start(
        self,
        method: Method[Any, Any],
        request: Any,
        host: str | None,
        timeout: float | None,
        context: CallContext,
        *,
        streams: bool,
    ) -> _Call:
        if self._closed:
            raise BusError("INTERNAL_ERROR", f"cannot call {method.key}: the bus is closed")
        if method.streams is not streams:
            raise TypeError(f"{method.key} {'streams' if method.streams else 'does not stream'}")
        seconds = method.timeout if timeout is None else timeout
        if context.deadline is not None:
            seconds = min(seconds, context.deadline - time.time())
        if seconds <= 0:
            self._counters["deadline_exceeded"] += 1
            raise DeadlineExceeded(method.key)
        queue = method.queue(host)
        call = _Call(f"{self._prefix}{next(self._numbers):x}", method, queue, host, request, context)
        call.deadline = asyncio.get_running_loop().time() + seconds
        call.server = self._servers.get(queue, "")
        if streams:
            call.items = _Items()
        self._counters["calls"] += 1
        self._calls[call.id] = call
        try:
            if self._transport.ready:
                self._send(call)
            else:
                self._again_at(call, call.deadline)
        except BaseException:
            self._forget(call)
            raise
        return call

    def _forget(self, call: _Call) -> None:
        """Ends the caller's side. A call that has no outcome yet was given up by its caller: so must the handler."""
        self._calls.pop(call.id, None)
        if call.timer is not None:
            call.timer.cancel()
            call.timer = None
        if call.future.done() and not call.future.cancelled():
            call.future.exception()  # marks it as seen: who was cancelled or left a stream early does not raise it
            return
        call.future.cancel()
        if call.sent:
            if self._transport.ready:
                self._send_cancel(call.queue, call.id)
            else:
                self._unsent_cancels.append((call.queue, call.id))

    def _fail(self, call: _Call, error: Exception) -> None:
        self._calls.pop(call.id, None)
        if not call.future.done():
            call.future.set_exception(error)

    def _send(self, call: _Call) -> None:
        """The call in full. Raises `ApiError` for a request that cannot be encoded."""
        now = asyncio.get_running_loop().time()
        left = call.deadline - now
        if left <= 0:
            self._expired(call)
            return
        call.first_sent = call.first_sent or now
        context = call.context
        try:
            body = envelope.encode(
                envelope.Call(
                    id=call.id,
                    method=call.method.name,
                    body=call.request,
                    timeout=left,
                    task=context.task,
                    session=context.session,
                    user=context.user,
                    call=context.call,
                    origin=context.origin,
                    term=0 if context.term == NO_TERM else context.term or self.term,
                    trace=context.traceparent,
                    observed=context.observed,
                    resent=call.resent,
                    server=call.server,
                    age=now - call.first_sent,
                    credit=call.items.credit if call.items is not None else 0,
                )
            )
        except envelope.EnvelopeError as error:
            raise Unsendable(f"the request of {call.method.key} {error}") from error
        if call.resent:
            self._counters["retransmits"] += 1
        call.sent = True
        self._transport.request(call.queue, call.id, "call", body, min(left, MAX_EXPIRES))
        self._again_in(call, self._timing.probe_first)

    def _send_probe(self, call: _Call) -> None:
        self._counters["probes"] += 1
        credit = call.items.credit if call.items is not None else 0
        body = envelope.encode(envelope.Probe(id=call.id, credit=credit))
        left = call.deadline - asyncio.get_running_loop().time()
        self._transport.request(call.queue, call.id, "probe", body, min(max(left, 0.001), self._timing.probe_every * 2))
        self._again_in(call, self._timing.probe_every)

    def _send_cancel(self, queue: str, id: str) -> None:
        self._transport.request(queue, id, "cancel", envelope.encode(envelope.Cancel(id=id)), self._timing.grace)

    def _give_credit(self, call: _Call, items: _Items) -> None:
        items.taken += 1
        if items.credit - items.taken > STREAM_WINDOW // 2 or call.future.done():
            return
        items.credit = items.taken + STREAM_WINDOW
        if self._transport.ready:
            body = envelope.encode(envelope.Credit(id=call.id, credit=items.credit))
            self._transport.request(call.queue, call.id, "credit", body, self._timing.grace)

    def _again_in(self, call: _Call, seconds: float) -> None:
        self._again_at(call, asyncio.get_running_loop().time() + seconds)

    def _again_at(self, call: _Call, when: float) -> None:
        if call.timer is not None:
            call.timer.cancel()
        call.timer = asyncio.get_running_loop().call_at(min(when, call.deadline), self._tick, call)

    def _tick(self, call: _Call) -> None:
        """Deadline, retry or probe, whichever is due."""
        if call.future.done():
            return
        if asyncio.get_running_loop().time() >= call.deadline - 0.001:
            self._expired(call)
        elif not self._transport.ready:
            self._again_at(call, call.deadline)
        elif not call.sent:
            self._send_again(call)
        else:
            self._send_probe(call)

    def _send_again(self, call: _Call) -> None:
        try:
            self._send(call)
        except Exception as error:
            self._fail(call, error)

    def _expired(self, call: _Call) -> None:
        self._counters["deadline_exceeded"] += 1
        self._fail(call, DeadlineExceeded(call.method.key))

    # ---- what the transport tells

    def ready(self, again: bool) -> None:
        if again:
            self._settled = asyncio.get_running_loop().time() + self._timing.settle
        cancels, self._unsent_cancels = self._unsent_cancels, []
        for queue, id in cancels:
            self._send_cancel(queue, id)
        for call in list(self._calls.values()):
            if not call.sent:
                self._send_again(call)
            else:
                call.unroutable_since, call.retries = None, 0
                self._send_probe(call)

    def returned(self, id: str, kind: str) -> None:
        """Nobody consumes the queue. How long the call puts up with that depends on what is known of it."""
        call = self._calls.get(id)
        if call is None or call.future.done() or kind not in ("call", "probe"):
            return
        self._counters["returned"] += 1
        now = asyncio.get_running_loop().time()
        if call.unroutable_since is None:
            call.unroutable_since, call.retries = now, 0
        if kind == "call":
            call.sent = False
        if call.method.absent is Absent.FAIL:
            accepted = kind == "probe" or call.resent
            until = call.unroutable_since + self._timing.grace if accepted else self._settled
            if now >= until:
                self._fail(call, HostOffline(call.host or call.queue))
                return
        self._again_in(call, backoff(call.retries, 0.05, 1.0))
        call.retries += 1

    def answered(self, id: str, body: bytes) -> None:
        call = self._calls.get(id)
        if call is None or call.future.done():
            return
        try:
            self._take(call, envelope.decode_to_caller(body))
        except (envelope.EnvelopeError, msgspec.ValidationError) as error:
            self._counters["undecodable"] += 1
            log.error("the answer of %s cannot be used: %s", call.method.key, error)
            self._fail(call, internal_error(f"the answer of {call.method.key} cannot be used: {error}"))

    def _take(self, call: _Call, answer: envelope.ToCaller) -> None:
        if self._servers.get(call.queue) != answer.server:
            self._servers[call.queue] = answer.server
        call.unroutable_since = None
        match answer:
            case envelope.Result():
                call.future.set_result(msgspec.convert(answer.body, call.method.reply, str_keys=True))
                self._calls.pop(call.id, None)
            case envelope.Failure():
                if call.items is not None and answer.seq != call.seq:
                    self._fail(call, ResultUnknown(call.method.key))
                else:
                    self._fail(call, envelope.exception(answer))
            case envelope.Running():
                if answer.seq != call.seq:
                    self._gap(call)
            case envelope.Absent():
                if call.seq:
                    self._fail(call, ResultUnknown(call.method.key))
                else:
                    call.resent = True
                    self._send_again(call)
            case envelope.Item():
                if call.items is None or answer.seq != call.seq + 1:
                    self._gap(call)
                else:
                    call.seq = answer.seq
                    call.items.put(msgspec.convert(answer.body, call.method.reply, str_keys=True))
            case envelope.End():
                if answer.seq != call.seq:
                    self._fail(call, ResultUnknown(call.method.key))
                else:
                    call.future.set_result(None)
                    self._calls.pop(call.id, None)

    def _gap(self, call: _Call) -> None:
        """Records of a stream were lost: it cannot be continued, and its server need not go on."""
        self._send_cancel(call.queue, call.id)
        self._fail(call, ResultUnknown(call.method.key))
