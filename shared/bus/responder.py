"""The serving side: each call runs at most once in this process; who asks again is told how it goes or how it ended."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable
from enum import StrEnum
from typing import Any, cast

import msgspec

from shared import trace
from shared.bus import envelope
from shared.bus.context import CANCELLED_STATUS, CallContext, current
from shared.bus.contract import Method, Replay
from shared.bus.interface import DeadlineExceeded, Handler, NotHere, ResultUnknown, StaleTerm, StreamHandler
from shared.bus.outcomes import Outcomes
from shared.bus.timing import Timing
from shared.bus.transport import Delivery, Transport
from shared.errors import ApiError, internal_error

log = logging.getLogger("bus")

STUBBORN = 3.0
"""Seconds that cancelled handlers get to clean up when the bus is closed."""


class _Stop(StrEnum):
    """Why a handler is cancelled."""

    CALLER = "its caller gave up"
    TASK = "its task was cancelled"
    DEADLINE = "its deadline passed"
    CLOSING = "its service stops"


class _Served:
    def __init__(self, method: Method[Any, Any], handler: Handler[Any, Any] | StreamHandler[Any, Any]) -> None:
        self.method = method
        self.handler = handler


class _Execution:
    """A call that runs now. `reply_to` follows the caller to its newest connection."""

    __slots__ = ("context", "credit", "credited", "id", "method", "reply_to", "seq", "started", "stop", "task")

    def __init__(self, id: str, reply_to: str, method: Method[Any, Any], context: CallContext, credit: int) -> None:
        self.id = id
        self.reply_to = reply_to
        self.method = method
        self.context = context
        self.credit = credit
        self.credited = asyncio.Event() if method.streams else None
        self.seq = 0
        self.started = False
        self.stop: _Stop | None = None
        self.task: asyncio.Task[None] | None = None


class Responder:
    def __init__(self, transport: Transport, timing: Timing, counters: Counter[str]) -> None:
        self.instance = os.urandom(6).hex()
        self._transport = transport
        self._timing = timing
        self._counters = counters
        self._queues: dict[str, dict[str, _Served]] = {}
        self._running: dict[str, _Execution] = {}
        self._outcomes = Outcomes(timing.outcome)
        self._unsent: dict[str, str] = {}
        """Answers that could not be sent: id to reply address."""
        self._idle = asyncio.Event()
        self._idle.set()
        self.term = 0

    # ---- for the bus

    def add(self, queue: str, method: Method[Any, Any], handler: Handler[Any, Any] | StreamHandler[Any, Any]) -> None:
        self._queues.setdefault(queue, {})[method.name] = _Served(method, handler)

    def queues(self) -> list[str]:
        return list(self._queues)

    def receive(self, queue: str, delivery: Delivery) -> None:
        try:
            self._dispatch(queue, delivery, envelope.decode_to_server(delivery.body))
        except envelope.EnvelopeError as error:
            self._bury(queue, delivery, f"not a request: {error}")
        except Exception as error:  # one message must not take down the connection of all
            log.exception("a message on queue %s broke its receiver", queue)
            self._bury(queue, delivery, f"{type(error).__name__}: {error}")

    def _dispatch(self, queue: str, delivery: Delivery, message: envelope.ToServer) -> None:
        match message:
            case envelope.Call():
                self._accept(queue, delivery, message)
            case envelope.Probe():
                self._answer_probe(delivery.reply_to, message)
            case envelope.Cancel():
                execution = self._running.get(message.id)
                if execution is not None:
                    self._stop(execution, _Stop.CALLER)
            case envelope.Credit():
                execution = self._running.get(message.id)
                if execution is not None:
                    self._give_credit(execution, message.credit)

    def cancel_task(self, task: str) -> None:
        """Stops every handler that works for that task of the API."""
        for execution in list(self._running.values()):
            if execution.context.task == task:
                self._stop(execution, _Stop.TASK)

    def ready(self) -> None:
        """Sends what was finished meanwhile; a caller that has reconnected too asks by itself."""
        unsent, self._unsent = self._unsent, {}
        for id, reply_to in unsent.items():
            outcome = self._outcomes.get(id)
            if outcome is not None and outcome.answer is not None:
                self._transport.reply(reply_to, id, outcome.answer)

    def metrics(self) -> dict[str, int]:
        return {"running": len(self._running), "outcomes": len(self._outcomes)}

    async def close(self) -> None:
        """Lets running handlers finish, then hands back what has not: callers send it again or learn it is unknown."""
        try:
            async with asyncio.timeout(self._timing.drain):
                await self._idle.wait()
        except TimeoutError:
            log.warning("%d calls are still running; they are cancelled", len(self._running))
        await self._stop_all()

    async def abandon(self) -> None:
        """As if the process died: no answers."""
        for execution in self._running.values():
            execution.reply_to = ""
        await self._stop_all()

    async def _stop_all(self) -> None:
        tasks = [execution.task for execution in self._running.values() if execution.task is not None]
        for execution in list(self._running.values()):
            self._stop(execution, _Stop.CLOSING)
        if tasks:
            _, stubborn = await asyncio.wait(tasks, timeout=STUBBORN)
            if stubborn:
                log.error("%d handlers do not end although they were cancelled", len(stubborn))

    # ---- a request

    def _accept(self, queue: str, delivery: Delivery, call: envelope.Call) -> None:
        execution = self._running.get(call.id)
        if execution is not None:
            self._counters["duplicates"] += 1
            execution.reply_to = delivery.reply_to
            return
        served = self._queues.get(queue, {}).get(call.method)
        if served is None:
            self._refuse(
                delivery, envelope.failure(self.instance, internal_error(f"{queue} has no method {call.method}"))
            )
            return
        method = served.method
        remembered = self._outcomes.get(call.id)
        if remembered is not None:
            self._counters["duplicates"] += 1
            if remembered.answer is not None:
                self._send(delivery.reply_to, call.id, remembered.answer)
                return
        if method.replay is Replay.ONCE and (remembered is not None or not self._is_new(call)):
            self._refuse(delivery, self._result_unknown(method))
            return
        if call.term and call.term < self.term:
            self._refuse(
                delivery,
                envelope.refusal(self.instance, envelope.STALE_TERM, StaleTerm(call.term, self.term)),
            )
            return
        self.term = max(self.term, call.term)
        try:
            request = msgspec.convert(call.body, method.request, str_keys=True)
        except msgspec.ValidationError as error:
            self._bury(queue, delivery, f"not a request of {method.key}: {error}")
            return
        if remembered is not None:
            self._outcomes.forget(call.id)
        self._run(delivery, call, served, request)

    def _is_new(self, call: envelope.Call) -> bool:
        """Whether the call surely has not run: this process was there when it was first sent, and would know."""
        if not call.resent:
            return True
        first_sent = asyncio.get_running_loop().time() - call.age
        return call.server == self.instance and self._outcomes.complete_since(first_sent)

    def _run(self, delivery: Delivery, call: envelope.Call, served: _Served, request: Any) -> None:
        context = CallContext(
            request=call.id,
            task=call.task,
            session=call.session,
            user=call.user,
            call=call.call,
            origin=call.origin,
            term=call.term,
            traceparent=call.trace,
            observed=call.observed,
            deadline=time.time() + call.timeout,
        )
        execution = _Execution(call.id, delivery.reply_to, served.method, context, call.credit)
        self._running[call.id] = execution
        self._idle.clear()
        self._counters["served"] += 1
        loop = asyncio.get_running_loop()
        execution.task = loop.create_task(self._execute(execution, served, request, call.timeout))

    async def _execute(self, execution: _Execution, served: _Served, request: Any, timeout: float) -> None:
        execution.started = True
        current.set(execution.context)
        timer = asyncio.get_running_loop().call_later(timeout, self._stop, execution, _Stop.DEADLINE)
        try:
            if trace.sampled(execution.context.traceparent):
                with trace.span(execution.method.key, "server"):
                    answer = await self._handle(execution, served, request)
            else:
                answer = await self._handle(execution, served, request)
        except asyncio.CancelledError:
            answer = self._stopped(execution)
        except ApiError as error:
            answer = envelope.failure(self.instance, error, execution.seq)
        except NotHere:
            answer = envelope.Absent(server=self.instance)
        except Exception as error:
            log.exception("%s failed", execution.method.key)
            answer = envelope.failure(self.instance, internal_error(f"{type(error).__name__}: {error}"), execution.seq)
        finally:
            timer.cancel()
        self._finish(execution, answer)

    async def _handle(self, execution: _Execution, served: _Served, request: Any) -> Any:
        if served.method.streams:
            return await self._stream(execution, cast(AsyncIterator[Any], served.handler(request)))
        return envelope.Result(server=self.instance, body=await cast(Awaitable[Any], served.handler(request)))

    async def _stream(self, execution: _Execution, records: AsyncIterator[Any]) -> envelope.End:
        assert execution.credited is not None
        try:
            async for record in records:
                while execution.seq >= execution.credit:
                    execution.credited.clear()
                    await execution.credited.wait()
                body = envelope.encode(envelope.Item(server=self.instance, seq=execution.seq + 1, body=record))
                execution.seq += 1
                self._transport.reply(execution.reply_to, execution.id, body)
        finally:
            if isinstance(records, AsyncGenerator):
                await records.aclose()
        return envelope.End(server=self.instance, seq=execution.seq)

    def _stop(self, execution: _Execution, why: _Stop) -> None:
        if execution.stop is not None or execution.task is None:
            return
        execution.stop = why
        execution.task.cancel()
        if not execution.started:  # its coroutine will never run
            self._finish(execution, self._stopped(execution))

    def _stopped(self, execution: _Execution) -> Any:
        """The answer of a handler that was cancelled."""
        method, seq = execution.method, execution.seq
        match execution.stop:
            case _Stop.CALLER | _Stop.TASK:
                return envelope.failure(self.instance, ApiError(CANCELLED_STATUS, execution.context.task), seq)
            case _Stop.DEADLINE:
                return envelope.refusal(self.instance, envelope.DEADLINE, DeadlineExceeded(method.key), seq)
            case _Stop.CLOSING if method.replay is Replay.SAFE and not seq:
                return envelope.Absent(server=self.instance)
            case _Stop.CLOSING:
                return self._result_unknown(method, seq)
            case None:
                return envelope.failure(self.instance, internal_error(f"{method.key} cancelled itself"), seq)

    def _finish(self, execution: _Execution, answer: Any) -> None:
        del self._running[execution.id]
        if not self._running:
            self._idle.set()
        try:
            body = envelope.encode(answer)
        except envelope.EnvelopeError as error:
            log.error("the answer of %s %s", execution.method.key, error)
            wrong = internal_error(f"the answer of {execution.method.key} {error}")
            body = envelope.encode(envelope.failure(self.instance, wrong, execution.seq))
        if not isinstance(answer, envelope.Absent):
            self._outcomes.add(execution.id, body, asyncio.get_running_loop().time())
        self._send(execution.reply_to, execution.id, body)

    # ---- answers

    def _answer_probe(self, reply_to: str, probe: envelope.Probe) -> None:
        execution = self._running.get(probe.id)
        answer: envelope.Running | envelope.Absent
        if execution is not None:
            execution.reply_to = reply_to
            self._give_credit(execution, probe.credit)
            answer = envelope.Running(server=self.instance, seq=execution.seq)
        else:
            outcome = self._outcomes.get(probe.id)
            if outcome is not None and outcome.answer is not None:
                self._send(reply_to, probe.id, outcome.answer)
                return
            answer = envelope.Absent(server=self.instance)
        self._send(reply_to, probe.id, envelope.encode(answer))

    def _give_credit(self, execution: _Execution, credit: int) -> None:
        if execution.credited is not None and credit > execution.credit:
            execution.credit = credit
            execution.credited.set()

    def _result_unknown(self, method: Method[Any, Any], seq: int = 0) -> envelope.Failure:
        return envelope.refusal(self.instance, envelope.RESULT_UNKNOWN, ResultUnknown(method.key), seq)

    def _refuse(self, delivery: Delivery, answer: envelope.Failure) -> None:
        """Says no without running it; not recorded: whoever asks again gets the same answer."""
        self._send(delivery.reply_to, delivery.id, envelope.encode(answer))

    def _send(self, reply_to: str, id: str, body: bytes) -> None:
        if not reply_to:
            return
        if self._transport.ready:
            self._transport.reply(reply_to, id, body)
        else:
            self._unsent[id] = reply_to

    def _bury(self, queue: str, delivery: Delivery, reason: str) -> None:
        self._counters["dead"] += 1
        log.error("a message on queue %s cannot be handled: %s", queue, reason)
        self._transport.bury(delivery.body, reason, queue)
        if delivery.reply_to and delivery.id:
            self._refuse(delivery, envelope.failure(self.instance, internal_error(reason)))
