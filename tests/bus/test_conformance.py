"""What the bus promises, on the bus in memory and over RabbitMQ alike."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator

import pytest

from shared import trace
from shared.bus.context import NO_TERM, CallContext, current
from shared.bus.contract import Empty
from shared.bus.interface import DeadlineExceeded, HostOffline, ResultUnknown, StaleTerm
from shared.contracts import task
from shared.errors import ApiError
from tests.bus.contract import Contract, Number, Text
from tests.bus.wire import QUICK, Wire, until

AT_ONCE = 5.0
"""Seconds, nearly all of them for a busy machine; what is waited for in vain takes longer."""


async def add(request: Number) -> Number:
    return Number(n=request.n + 1)


class Gate:
    """A handler that tells when it was entered and waits until it may go on."""

    def __init__(self) -> None:
        self.entered = asyncio.Event()
        self.open = asyncio.Event()
        self.cancelled = asyncio.Event()
        self.runs = 0

    async def __call__(self, request: Number) -> Number:
        self.runs += 1
        self.entered.set()
        try:
            await self.open.wait()
        except asyncio.CancelledError:
            self.cancelled.set()
            raise
        return Number(n=request.n + 1)


# ---- calls


async def test_a_call_returns_the_handlers_answer(wire: Wire, contract: Contract) -> None:
    client, server = await wire.connect("client"), await wire.connect("server")
    await server.serve(contract.add, add)
    await server.start_consuming(contract.service)
    assert await client.call(contract.add, Number(n=41)) == Number(n=42)


async def test_a_service_may_call_itself(wire: Wire, contract: Contract) -> None:
    bus = await wire.connect("both")
    await bus.serve(contract.add, add)
    await bus.start_consuming(contract.service)
    assert await bus.call(contract.add, Number(n=1)) == Number(n=2)


async def test_five_hundred_calls_at_once_get_their_own_answers(wire: Wire, contract: Contract) -> None:
    client, server = await wire.connect("client"), await wire.connect("server")
    await server.serve(contract.add, add)
    await server.start_consuming(contract.service)
    answers = await asyncio.gather(*(client.call(contract.add, Number(n=n)) for n in range(500)))
    assert [answer.n for answer in answers] == list(range(1, 501))


async def test_a_method_of_a_host_reaches_that_host(wire: Wire, contract: Contract) -> None:
    client, server = await wire.connect("client"), await wire.connect("server")
    for host, n in (("h1", 1), ("h2", 2)):

        async def answer(_: Number, n: int = n) -> Number:
            return Number(n=n)

        await server.serve(contract.on_host, answer, host=host)
        await server.start_consuming(contract.service, host=host)
    assert await client.call(contract.on_host, Number(n=0), host="h2") == Number(n=2)
    assert await client.call(contract.on_host, Number(n=0), host="h1") == Number(n=1)


async def test_a_megabyte_travels_both_ways(wire: Wire, contract: Contract) -> None:
    client, server = await wire.connect("client"), await wire.connect("server")

    async def echo(request: Text) -> Text:
        return request

    await server.serve(contract.echo, echo)
    await server.start_consuming(contract.service)
    text = "naïve – 日本 " * 90_000
    assert (await client.call(contract.echo, Text(text=text))).text == text


# ---- errors


async def test_an_api_error_reaches_the_caller_with_its_parameters(wire: Wire, contract: Contract) -> None:
    client, server = await wire.connect("client"), await wire.connect("server")

    async def fail(_: Number) -> Number:
        raise ApiError("VM_BAD_POWER_STATE", "OpaqueRef:1", "halted", "running")

    await server.serve(contract.add, fail)
    await server.start_consuming(contract.service)
    with pytest.raises(ApiError) as caught:
        await client.call(contract.add, Number(n=1))
    assert caught.value.description == ["VM_BAD_POWER_STATE", "OpaqueRef:1", "halted", "running"]


async def test_a_bus_error_that_a_handler_met_is_its_own_answer(wire: Wire, contract: Contract) -> None:
    """So that the caller does not take it for its own call's fate and tries again."""
    client, server = await wire.connect("client"), await wire.connect("server")

    async def call_nobody(request: Number) -> Number:
        return await server.call(contract.on_host, request, host="gone")

    await server.serve(contract.add, call_nobody)
    await server.start_consuming(contract.service)
    with pytest.raises(ApiError) as caught:
        await client.call(contract.add, Number(n=1))
    assert caught.value.description == ["HOST_OFFLINE", "gone"]
    assert type(caught.value) is ApiError


async def test_an_unexpected_exception_is_an_internal_error(wire: Wire, contract: Contract) -> None:
    client, server = await wire.connect("client"), await wire.connect("server")

    async def fail(_: Number) -> Number:
        raise ZeroDivisionError("division by zero")

    await server.serve(contract.add, fail)
    await server.start_consuming(contract.service)
    with pytest.raises(ApiError) as caught:
        await client.call(contract.add, Number(n=1))
    assert caught.value.description == ["INTERNAL_ERROR", "ZeroDivisionError: division by zero"]


async def test_a_method_that_is_not_served_is_an_error_at_once(wire: Wire, contract: Contract) -> None:
    client, server = await wire.connect("client"), await wire.connect("server")
    await server.serve(contract.add, add)
    await server.start_consuming(contract.service)
    with pytest.raises(ApiError, match="has no method slow"):
        await client.call(contract.slow, Number(n=1))


async def test_a_request_of_the_wrong_type_is_answered_and_kept_as_dead(wire: Wire, contract: Contract) -> None:
    client, server = await wire.connect("client"), await wire.connect("server")

    async def echo(request: Text) -> Text:
        return request

    await server.serve(contract.echo, echo)
    await server.start_consuming(contract.service)
    with pytest.raises(ApiError, match="not a request of") as caught:
        await client.call(contract.echo_number, Number(n=1))
    assert caught.value.code == "INTERNAL_ERROR"
    assert len(await wire.dead(contract.service)) == 1
    assert server.metrics()["dead"] == 1


async def test_a_reply_of_the_wrong_type_is_an_internal_error(wire: Wire, contract: Contract) -> None:
    client, server = await wire.connect("client"), await wire.connect("server")
    await server.serve(contract.add, add)
    await server.start_consuming(contract.service)
    with pytest.raises(ApiError, match="cannot be used"):
        await client.call(contract.wrong_reply, Number(n=1))


async def test_what_json_cannot_carry_is_an_error_on_either_side(wire: Wire, contract: Contract) -> None:
    client, server = await wire.connect("client"), await wire.connect("server")

    async def half_a_character(_: Text) -> Text:
        return Text(text="\ud800")

    await server.serve(contract.echo, half_a_character)
    await server.start_consuming(contract.service)
    with pytest.raises(ApiError, match=r"the request of .* cannot be sent"):
        await client.call(contract.echo, Text(text="\ud800"))
    with pytest.raises(ApiError, match=r"the answer of .* cannot be sent"):
        await client.call(contract.echo, Text(text="fine"))


# ---- who is there


async def test_a_host_without_consumer_is_offline_at_once(wire: Wire, contract: Contract) -> None:
    client = await wire.connect("client")
    begun = time.monotonic()
    with pytest.raises(HostOffline) as caught:
        await client.call(contract.on_host, Number(n=1), host="nobody")
    assert caught.value.description == ["HOST_OFFLINE", "nobody"]
    assert time.monotonic() - begun < AT_ONCE


async def test_a_method_that_waits_reaches_a_server_that_comes_later(wire: Wire, contract: Contract) -> None:
    client, server = await wire.connect("client"), await wire.connect("server")
    answer = asyncio.create_task(client.call(contract.patient, Number(n=1), timeout=10))
    await until(lambda: client.metrics()["returned"])
    await server.serve(contract.patient, add)
    await server.start_consuming(contract.service)
    assert await answer == Number(n=2)


async def test_a_method_that_waits_does_so_until_its_deadline(wire: Wire, contract: Contract) -> None:
    client = await wire.connect("client")
    with pytest.raises(DeadlineExceeded):
        await client.call(contract.patient, Number(n=1), timeout=0.4)


async def test_a_queue_has_one_consumer_and_the_next_takes_over(wire: Wire, contract: Contract) -> None:
    client, first, second = [await wire.connect(name) for name in ("client", "first", "second")]

    async def of_first(_: Number) -> Number:
        return Number(n=1)

    async def of_second(_: Number) -> Number:
        return Number(n=2)

    await first.serve(contract.patient, of_first)
    await second.serve(contract.patient, of_second)
    await first.start_consuming(contract.service)
    waiting = asyncio.create_task(second.start_consuming(contract.service))
    answers = {(await client.call(contract.patient, Number(n=0))).n for _ in range(10)}
    assert answers == {1}
    assert not waiting.done()
    await first.stop_consuming(contract.service)
    await waiting
    assert await client.call(contract.patient, Number(n=0)) == Number(n=2)


async def test_a_closed_queue_is_offline_but_running_calls_are_answered(wire: Wire, contract: Contract) -> None:
    client, server = await wire.connect("client"), await wire.connect("server")
    gate = Gate()
    await server.serve(contract.slow, gate)
    await server.start_consuming(contract.service)
    running = asyncio.create_task(client.call(contract.slow, Number(n=1)))
    await gate.entered.wait()
    await server.stop_consuming(contract.service)
    with pytest.raises(HostOffline):
        await client.call(contract.slow, Number(n=1))
    gate.open.set()
    assert await running == Number(n=2)


# ---- deadlines and cancellation


async def test_a_handler_past_its_deadline_is_cancelled(wire: Wire, contract: Contract) -> None:
    client, server = await wire.connect("client"), await wire.connect("server")
    gate = Gate()
    await server.serve(contract.slow, gate)
    await server.start_consuming(contract.service)
    begun = time.monotonic()
    with pytest.raises(DeadlineExceeded):
        await client.call(contract.slow, Number(n=1), timeout=0.3)
    assert time.monotonic() - begun < AT_ONCE
    await asyncio.wait_for(gate.cancelled.wait(), 30)
    assert client.metrics()["deadline_exceeded"] == 1


async def test_an_inherited_deadline_caps_the_timeout(wire: Wire, contract: Contract) -> None:
    client, server = await wire.connect("client"), await wire.connect("server")
    await server.serve(contract.slow, Gate())
    await server.start_consuming(contract.service)
    context = CallContext(deadline=time.time() + 0.3)
    begun = time.monotonic()
    with pytest.raises(DeadlineExceeded):
        await client.call(contract.slow, Number(n=1), timeout=60, context=context)
    assert time.monotonic() - begun < AT_ONCE


async def test_a_call_whose_deadline_has_passed_is_not_sent(wire: Wire, contract: Contract) -> None:
    client = await wire.connect("client")
    with pytest.raises(DeadlineExceeded):
        await client.call(contract.patient, Number(n=1), context=CallContext(deadline=time.time() - 1))


async def test_cancelling_the_caller_cancels_the_handler(wire: Wire, contract: Contract) -> None:
    client, server = await wire.connect("client"), await wire.connect("server")
    gate = Gate()
    await server.serve(contract.slow, gate)
    await server.start_consuming(contract.service)
    call = asyncio.create_task(client.call(contract.slow, Number(n=1)))
    await gate.entered.wait()
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    await asyncio.wait_for(gate.cancelled.wait(), 30)
    assert server.metrics()["running"] == 0


async def test_cancelling_a_task_cancels_every_handler_that_works_for_it(wire: Wire, contract: Contract) -> None:
    client, one, two = [await wire.connect(name) for name in ("client", "one", "two")]
    gates = {"h1": Gate(), "h2": Gate(), "h3": Gate()}
    for host, server in (("h1", one), ("h2", two), ("h3", two)):
        await server.serve(contract.on_host, gates[host], host=host)
        await server.start_consuming(contract.service, host=host)
    ours, other = f"OpaqueRef:{contract.service}", "OpaqueRef:other"
    calls = [
        asyncio.create_task(client.call(contract.on_host, Number(n=1), host=host, context=CallContext(task=reference)))
        for host, reference in (("h1", ours), ("h2", ours), ("h3", other))
    ]
    for gate in gates.values():
        await gate.entered.wait()
    await client.publish(task.CANCEL, task.Cancel(task=ours), task=ours)
    for call in calls[:2]:
        with pytest.raises(ApiError) as caught:
            await asyncio.wait_for(call, 30)
        assert caught.value.description == ["TASK_CANCELLED", ours]
    assert not gates["h3"].cancelled.is_set()
    gates["h3"].open.set()
    assert await calls[2] == Number(n=2)


async def test_a_handler_may_finish_in_spite_of_a_cancelled_task(wire: Wire, contract: Contract) -> None:
    client, server = await wire.connect("client"), await wire.connect("server")
    entered = asyncio.Event()

    async def too_late(request: Number) -> Number:
        entered.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            return Number(n=7)
        return request

    await server.serve(contract.slow, too_late)
    await server.start_consuming(contract.service)
    reference = f"OpaqueRef:{contract.service}"
    call = asyncio.create_task(client.call(contract.slow, Number(n=1), context=CallContext(task=reference)))
    await entered.wait()
    await client.publish(task.CANCEL, task.Cancel(task=reference), task=reference)
    assert await call == Number(n=7)


# ---- context and terms


async def test_a_handlers_calls_are_made_for_the_same_task_and_deadline(wire: Wire, contract: Contract) -> None:
    client, front, back = [await wire.connect(name) for name in ("client", "front", "back")]
    other = Contract(contract.service + "-back")
    seen: list[CallContext] = []

    async def pass_on(_: Empty) -> Text:
        return await front.call(other.where, Empty(), timeout=300)

    async def where(_: Empty) -> Text:
        seen.append(current.get())
        return Text(text=current.get().task)

    await front.serve(contract.where, pass_on)
    await front.start_consuming(contract.service)
    await back.serve(other.where, where)
    await back.start_consuming(other.service)
    parent = trace.new_traceparent(sampled=False)
    context = CallContext(task="OpaqueRef:t", session="OpaqueRef:s", user="root", term=3, traceparent=parent)
    assert await client.call(contract.where, Empty(), timeout=20, context=context) == Text(text="OpaqueRef:t")
    (got,) = seen
    assert (got.task, got.session, got.user, got.term) == ("OpaqueRef:t", "OpaqueRef:s", "root", 3)
    assert got.traceparent == parent
    left = got.remaining()
    assert left is not None
    assert left <= 20


async def test_a_sampled_call_passes_its_span_on(
    wire: Wire, contract: Contract, monkeypatch: pytest.MonkeyPatch
) -> None:
    client, server = await wire.connect("client"), await wire.connect("server")
    spans: list[dict[str, object]] = []
    monkeypatch.setattr(trace.exporter, "write", spans.append)
    await server.serve(contract.add, add)
    await server.start_consuming(contract.service)
    root = trace.new_traceparent()
    await client.call(contract.add, Number(n=1), context=CallContext(traceparent=root))
    kinds = {span["kind"]: span for span in spans}
    assert {span["trace_id"] for span in spans} == {root[3:35]}
    assert kinds["server"]["parent_id"] == kinds["client"]["span_id"]
    assert kinds["client"]["parent_id"] == root[36:52]


async def test_a_request_of_an_older_term_is_refused(wire: Wire, contract: Contract) -> None:
    client, server = await wire.connect("client"), await wire.connect("server")
    await server.serve(contract.add, add)
    await server.start_consuming(contract.service)
    await client.call(contract.add, Number(n=1), context=CallContext(term=5))
    with pytest.raises(StaleTerm):
        await client.call(contract.add, Number(n=1), context=CallContext(term=4))
    await client.call(contract.add, Number(n=1))  # of no term: not for a coordinator
    server.observe_term(6)
    with pytest.raises(StaleTerm):
        await client.call(contract.add, Number(n=1), context=CallContext(term=5))


async def test_calls_between_those_that_find_out_the_term_are_not_refused(wire: Wire, contract: Contract) -> None:
    client, server = await wire.connect("client"), await wire.connect("server")
    await server.serve(contract.add, add)
    await server.start_consuming(contract.service)
    client.observe_term(4)
    server.observe_term(6)
    with pytest.raises(StaleTerm):
        await client.call(contract.add, Number(n=1))
    await client.call(contract.add, Number(n=1), context=CallContext(term=NO_TERM))


async def test_calls_carry_the_highest_term_that_is_known(wire: Wire, contract: Contract) -> None:
    client, server = await wire.connect("client"), await wire.connect("server")
    terms: list[int] = []

    async def note(request: Number) -> Number:
        terms.append(current.get().term)
        return request

    await server.serve(contract.add, note)
    await server.start_consuming(contract.service)
    client.observe_term(7)
    client.observe_term(3)
    await client.call(contract.add, Number(n=1))
    assert terms == [7]
    assert server.term == 7


# ---- streams


async def count(request: Number) -> AsyncIterator[Number]:
    for n in range(request.n):
        yield Number(n=n)


async def test_a_stream_gives_every_record_in_order(wire: Wire, contract: Contract) -> None:
    client, server = await wire.connect("client"), await wire.connect("server")
    await server.serve(contract.count, count)
    await server.start_consuming(contract.service)
    assert [record.n async for record in client.stream(contract.count, Number(n=1000))] == list(range(1000))
    assert [record.n async for record in client.stream(contract.count, Number(n=0))] == []


async def test_a_stream_that_fails_gives_its_records_first(wire: Wire, contract: Contract) -> None:
    client, server = await wire.connect("client"), await wire.connect("server")

    async def fail(request: Number) -> AsyncIterator[Number]:
        yield request
        raise ApiError("SR_FULL", "1", "2")

    await server.serve(contract.count, fail)
    await server.start_consuming(contract.service)
    records = client.stream(contract.count, Number(n=9))
    assert await anext(records) == Number(n=9)
    with pytest.raises(ApiError, match="SR_FULL"):
        await anext(records)


async def test_leaving_a_stream_stops_its_generator(wire: Wire, contract: Contract) -> None:
    client, server = await wire.connect("client"), await wire.connect("server")
    stopped = asyncio.Event()

    async def forever(_: Number) -> AsyncIterator[Number]:
        try:
            n = 0
            while True:
                yield Number(n=n)
                n += 1
                await asyncio.sleep(0)
        finally:
            stopped.set()

    await server.serve(contract.count, forever)
    await server.start_consuming(contract.service)
    records = client.stream(contract.count, Number(n=0))
    async for record in records:
        if record.n == 10:
            break
    await records.aclose()  # type: ignore[attr-defined]
    await asyncio.wait_for(stopped.wait(), 30)


async def test_a_server_does_not_run_far_ahead_of_a_slow_consumer(wire: Wire, contract: Contract) -> None:
    client, server = await wire.connect("client"), await wire.connect("server")
    made: list[int] = []

    async def eager(request: Number) -> AsyncIterator[Number]:
        for n in range(request.n):
            made.append(n)
            yield Number(n=n)

    await server.serve(contract.count, eager)
    await server.start_consuming(contract.service)
    records = client.stream(contract.count, Number(n=5000))
    await anext(records)
    with pytest.raises(TimeoutError):
        await until(lambda: len(made) >= 1000, timeout=0.3)
    assert [record.n async for record in records] == list(range(1, 5000))


async def test_a_stream_ends_at_its_deadline(wire: Wire, contract: Contract) -> None:
    client, server = await wire.connect("client"), await wire.connect("server")

    async def stuck(request: Number) -> AsyncIterator[Number]:
        yield request
        await asyncio.Event().wait()

    await server.serve(contract.count, stuck)
    await server.start_consuming(contract.service)
    records = client.stream(contract.count, Number(n=1), timeout=0.4)
    await anext(records)
    with pytest.raises(DeadlineExceeded):
        await anext(records)


# ---- lost connections


async def test_a_caller_that_loses_its_connection_still_gets_its_answer(wire: Wire, contract: Contract) -> None:
    client, server = await wire.connect("client"), await wire.connect("server")
    gate = Gate()
    await server.serve(contract.once, gate)
    await server.start_consuming(contract.service)
    call = asyncio.create_task(client.call(contract.once, Number(n=1)))
    await gate.entered.wait()
    await wire.lose(client)
    gate.open.set()
    assert await asyncio.wait_for(call, 30) == Number(n=2)
    assert gate.runs == 1
    assert client.metrics()["reconnects"] == 1


async def test_a_server_that_loses_its_connection_still_answers(wire: Wire, contract: Contract) -> None:
    client, server = await wire.connect("client"), await wire.connect("server")
    gate = Gate()
    await server.serve(contract.once, gate)
    await server.start_consuming(contract.service)
    call = asyncio.create_task(client.call(contract.once, Number(n=1)))
    await gate.entered.wait()
    await wire.lose(server)
    gate.open.set()
    assert await asyncio.wait_for(call, 30) == Number(n=2)
    assert gate.runs == 1


async def test_calls_made_without_a_connection_are_sent_when_it_is_back(wire: Wire, contract: Contract) -> None:
    client, server = await wire.connect("client"), await wire.connect("server")
    await server.serve(contract.add, add)
    await server.start_consuming(contract.service)
    await wire.lose(client)
    assert not client.connected
    assert await client.call(contract.add, Number(n=1), timeout=5) == Number(n=2)


async def test_calls_survive_connections_that_break_all_the_time(wire: Wire, contract: Contract) -> None:
    client, server = await wire.connect("client"), await wire.connect("server")
    ran: dict[int, int] = {}

    async def note(request: Number) -> Number:
        ran[request.n] = ran.get(request.n, 0) + 1
        await asyncio.sleep(0.02)
        return Number(n=request.n + 1)

    await server.serve(contract.patient, note)
    await server.start_consuming(contract.service)

    async def one_after_the_other(first: int) -> None:
        for n in range(first, first + 8):
            assert await client.call(contract.patient, Number(n=n), timeout=20) == Number(n=n + 1)

    work = asyncio.gather(*(one_after_the_other(first) for first in range(0, 160, 8)))
    for bus in (client, server, client, server):
        await asyncio.sleep(0.05)
        await wire.lose(bus)
    await work
    assert ran == dict.fromkeys(range(160), 1)


async def test_a_stream_is_whole_or_says_that_it_is_not(wire: Wire, contract: Contract) -> None:
    client, server = await wire.connect("client"), await wire.connect("server")
    halfway = asyncio.Event()

    async def steady(request: Number) -> AsyncIterator[Number]:
        for n in range(request.n):
            if n == 20:
                halfway.set()
            await asyncio.sleep(0.001)
            yield Number(n=n)

    await server.serve(contract.count, steady)
    await server.start_consuming(contract.service)
    got: list[int] = []

    async def read() -> None:
        async for record in client.stream(contract.count, Number(n=500), timeout=10):
            got.append(record.n)

    reading = asyncio.create_task(read())
    await halfway.wait()
    await wire.lose(client)
    with pytest.raises(ResultUnknown):
        await reading
    assert got == list(range(len(got)))


async def test_who_was_disconnected_is_told(wire: Wire, contract: Contract) -> None:
    bus = await wire.connect("bus")
    told = asyncio.Event()

    async def reconnected() -> None:
        assert bus.connected
        told.set()

    bus.on_reconnect(reconnected)
    await wire.lose(bus)
    await asyncio.wait_for(told.wait(), 30)


# ---- servers that are replaced


async def test_a_call_that_may_run_twice_is_run_by_the_successor(wire: Wire, contract: Contract) -> None:
    client, old, new = [await wire.connect(name) for name in ("client", "old", "new")]
    gate = Gate()
    await old.serve(contract.patient, gate)
    await old.start_consuming(contract.service)
    await new.serve(contract.patient, add)
    call = asyncio.create_task(client.call(contract.patient, Number(n=1)))
    await gate.entered.wait()
    await old.abandon()
    await new.start_consuming(contract.service)
    assert await asyncio.wait_for(call, 30) == Number(n=2)
    assert client.metrics()["retransmits"] == 1


async def test_a_call_that_must_not_run_twice_is_unknown_to_the_successor(wire: Wire, contract: Contract) -> None:
    client, old, new = [await wire.connect(name) for name in ("client", "old", "new")]
    gate, second = Gate(), Gate()
    await old.serve(contract.once, gate)
    await old.start_consuming(contract.service)
    await new.serve(contract.once, second)
    call = asyncio.create_task(client.call(contract.once, Number(n=1)))
    await gate.entered.wait()
    await old.abandon()
    await new.start_consuming(contract.service)
    with pytest.raises(ResultUnknown):
        await asyncio.wait_for(call, 30)
    assert second.runs == 0


async def test_a_call_to_a_server_that_died_ends_after_the_grace(wire: Wire, contract: Contract) -> None:
    client, server = await wire.connect("client"), await wire.connect("server")
    gate = Gate()
    await server.serve(contract.slow, gate)
    await server.start_consuming(contract.service)
    call = asyncio.create_task(client.call(contract.slow, Number(n=1)))
    await gate.entered.wait()
    begun = time.monotonic()
    await server.abandon()
    with pytest.raises(HostOffline):
        await asyncio.wait_for(call, 10)
    assert QUICK.grace < time.monotonic() - begun < QUICK.probe_every + QUICK.grace + 2


async def test_a_service_that_stops_finishes_what_it_runs(wire: Wire, contract: Contract) -> None:
    client, server = await wire.connect("client"), await wire.connect("server")
    gate = Gate()
    await server.serve(contract.slow, gate)
    await server.start_consuming(contract.service)
    call = asyncio.create_task(client.call(contract.slow, Number(n=1)))
    await gate.entered.wait()
    closing = asyncio.create_task(server.close())
    gate.open.set()
    assert await call == Number(n=2)
    await closing


async def test_a_service_that_stops_hands_unfinished_calls_to_its_successor(wire: Wire, contract: Contract) -> None:
    client, old, new = [await wire.connect(name) for name in ("client", "old", "new")]
    gate = Gate()
    await old.serve(contract.patient, gate)
    await old.start_consuming(contract.service)
    await new.serve(contract.patient, add)
    call = asyncio.create_task(client.call(contract.patient, Number(n=1)))
    await gate.entered.wait()
    await old.close()
    assert gate.cancelled.is_set()
    await new.start_consuming(contract.service)
    assert await asyncio.wait_for(call, 30) == Number(n=2)


async def test_closing_the_callers_bus_ends_its_calls(wire: Wire, contract: Contract) -> None:
    client, server = await wire.connect("client"), await wire.connect("server")
    gate = Gate()
    await server.serve(contract.slow, gate)
    await server.start_consuming(contract.service)
    call = asyncio.create_task(client.call(contract.slow, Number(n=1)))
    await gate.entered.wait()
    await client.close()
    with pytest.raises(ApiError, match="the bus was closed"):
        await call


# ---- events


async def test_events_reach_every_subscriber_in_order(wire: Wire, contract: Contract) -> None:
    publisher, one, two = [await wire.connect(name) for name in ("publisher", "one", "two")]
    got: dict[str, list[tuple[int, str]]] = {"one": [], "two": []}
    done = asyncio.Event()

    def listen(name: str, payload: Number, key: str) -> None:
        got[name].append((payload.n, key))
        if all(len(list_) == 100 for list_ in got.values()):
            done.set()

    async def listen_two(payload: Number, key: str) -> None:
        await asyncio.sleep(0)
        listen("two", payload, key)

    await one.subscribe(contract.event, lambda payload, key: listen("one", payload, key))
    await two.subscribe(contract.event, listen_two)
    for n in range(100):
        await publisher.publish(contract.event, Number(n=n), what="thing", which=str(n % 3))
    await asyncio.wait_for(done.wait(), 30)
    expected = [(n, f"{contract.service}.thing.{n % 3}") for n in range(100)]
    assert got == {"one": expected, "two": expected}


async def test_words_of_a_topic_select_events(wire: Wire, contract: Contract) -> None:
    bus = await wire.connect("bus")
    got: list[int] = []
    done = asyncio.Event()
    await bus.subscribe(contract.event, lambda payload, _: got.append(payload.n), what="vm")
    await bus.subscribe(contract.event, lambda *_: done.set(), what="last")
    for n, what in enumerate(("vm", "host", "vm", "vm2", "last")):
        await bus.publish(contract.event, Number(n=n), what=what, which="x")
    await asyncio.wait_for(done.wait(), 30)
    assert got == [0, 2]


async def test_an_event_of_several_keys_comes_once(wire: Wire, contract: Contract) -> None:
    bus = await wire.connect("bus")
    got: list[tuple[int, str]] = []
    done = asyncio.Event()

    def listen(payload: Number, key: str) -> None:
        got.append((payload.n, key))
        if payload.n == 9:
            done.set()

    await bus.subscribe(contract.event, listen)
    also = tuple(contract.event.key(what="also", which=which) for which in ("a", "b"))
    await bus.publish(contract.event, Number(n=1), also=also, what="first", which="x")
    await bus.publish(contract.event, Number(n=9), what="last", which="x")
    await asyncio.wait_for(done.wait(), 30)
    assert [n for n, _ in got] == [1, 9]
    assert got[0][1] == f"{contract.service}.first.x"


async def test_a_further_key_reaches_those_who_asked_for_it(wire: Wire, contract: Contract) -> None:
    bus = await wire.connect("bus")
    got = asyncio.Event()
    await bus.subscribe(contract.event, lambda *_: got.set(), what="also")
    await bus.publish(
        contract.event,
        Number(n=1),
        also=(contract.event.key(what="also", which="a"),),
        what="first",
        which="x",
    )
    await asyncio.wait_for(got.wait(), 30)


async def test_a_listener_that_fails_misses_one_event_only(wire: Wire, contract: Contract) -> None:
    bus = await wire.connect("bus")
    got: list[int] = []
    done = asyncio.Event()

    def listen(payload: Number, _: str) -> None:
        if payload.n == 1:
            raise ValueError("not this one")
        got.append(payload.n)
        if payload.n == 2:
            done.set()

    await bus.subscribe(contract.event, listen)
    for n in range(3):
        await bus.publish(contract.event, Number(n=n), what="a", which="b")
    await asyncio.wait_for(done.wait(), 30)
    assert got == [0, 2]


async def test_an_event_of_the_wrong_type_is_kept_as_dead(wire: Wire, contract: Contract) -> None:
    bus = await wire.connect("bus")
    got = asyncio.Event()
    await bus.subscribe(contract.event, lambda *_: got.set())
    await bus.publish(contract.wrong_event, Text(text="?"), what="a", which="b")
    await bus.publish(contract.event, Number(n=1), what="a", which="b")
    await asyncio.wait_for(got.wait(), 30)
    assert len(await wire.dead(contract.event.binding())) == 1


async def test_a_cancelled_subscription_gets_nothing_more(wire: Wire, contract: Contract) -> None:
    bus = await wire.connect("bus")
    got: list[int] = []
    done = asyncio.Event()
    subscription = await bus.subscribe(contract.event, lambda payload, _: got.append(payload.n))
    await subscription.cancel()
    await bus.subscribe(contract.event, lambda *_: done.set())
    await bus.publish(contract.event, Number(n=1), what="a", which="b")
    await asyncio.wait_for(done.wait(), 30)
    assert got == []


async def test_events_published_without_a_connection_are_sent_when_it_is_back(wire: Wire, contract: Contract) -> None:
    publisher, subscriber = await wire.connect("publisher"), await wire.connect("subscriber")
    got: list[int] = []
    done = asyncio.Event()

    def listen(payload: Number, _: str) -> None:
        got.append(payload.n)
        if payload.n == 49:
            done.set()

    await subscriber.subscribe(contract.event, listen)
    await wire.lose(publisher)
    for n in range(50):
        await publisher.publish(contract.event, Number(n=n), what="a", which="b")
    await asyncio.wait_for(done.wait(), 30)
    assert got == list(range(50))


async def test_a_subscription_survives_a_lost_connection(wire: Wire, contract: Contract) -> None:
    publisher, subscriber = await wire.connect("publisher"), await wire.connect("subscriber")
    got, back = asyncio.Event(), asyncio.Event()

    async def reconnected() -> None:
        back.set()

    subscriber.on_reconnect(reconnected)
    await subscriber.subscribe(contract.event, lambda *_: got.set())
    await wire.lose(subscriber)
    await asyncio.wait_for(back.wait(), 30)
    await publisher.publish(contract.event, Number(n=1), what="a", which="b")
    await asyncio.wait_for(got.wait(), 30)


async def test_a_durable_subscription_keeps_events_for_an_absent_listener(wire: Wire, contract: Contract) -> None:
    publisher, first, second = [await wire.connect(name) for name in ("publisher", "first", "second")]
    subscription = await first.subscribe(contract.event, lambda *_: None, durable=contract.service)
    await subscription.cancel()
    for n in range(3):
        await publisher.publish(contract.event, Number(n=n), what="a", which="b")
    got: list[int] = []
    done = asyncio.Event()

    def listen(payload: Number, _: str) -> None:
        got.append(payload.n)
        if len(got) == 3:
            done.set()

    await second.subscribe(contract.event, listen, durable=contract.service)
    await asyncio.wait_for(done.wait(), 10)
    assert got == [0, 1, 2]
    await wire.remove_queue(contract.service)


async def test_a_durable_event_is_tried_again_and_then_kept_as_dead(wire: Wire, contract: Contract) -> None:
    bus = await wire.connect("bus")
    tried: list[int] = []
    done = asyncio.Event()

    def listen(payload: Number, _: str) -> None:
        tried.append(payload.n)
        if payload.n == 0 or (payload.n == 1 and tried.count(1) < 3):
            raise ValueError("not now")
        if payload.n == 2:
            done.set()

    await bus.subscribe(contract.event, listen, durable=contract.service)
    for n in range(3):
        await bus.publish(contract.event, Number(n=n), what="a", which="b")
    await asyncio.wait_for(done.wait(), 20)
    assert tried == [0] * 5 + [1] * 3 + [2]
    assert len(await wire.dead(contract.service)) == 1
    await wire.remove_queue(contract.service)


async def test_a_durable_event_that_was_not_settled_comes_again(wire: Wire, contract: Contract) -> None:
    publisher, first, second = [await wire.connect(name) for name in ("publisher", "first", "second")]
    entered = asyncio.Event()

    async def die(*_: object) -> None:
        entered.set()
        await asyncio.Event().wait()

    await first.subscribe(contract.event, die, durable=contract.service)
    await publisher.publish(contract.event, Number(n=5), what="a", which="b")
    await asyncio.wait_for(entered.wait(), 10)
    await first.abandon()
    got: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    await second.subscribe(contract.event, lambda payload, _: got.set_result(payload.n), durable=contract.service)
    assert await asyncio.wait_for(got, 10) == 5
    await wire.remove_queue(contract.service)
