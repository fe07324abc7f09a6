"""Reads alerts from a durable queue, one thread for each queue, and hands them to a sink, one after the other.

kombu, because a blocking consumer is the natural shape here: each sink is slow in its own way and must not hold up the
others. An alert is acknowledged when its sink is done with it, so a crash at any moment means that it comes again.

The queues are durable classic ones. Quorum queues would do more (they count deliveries), but on a broker of one node,
killed and started again, RabbitMQ 3.10 may leave one without a leader for ever (rabbitmq-server issue 10070).

Messages are taken out of kombu's callbacks before they are worked on: what is published inside a callback would wait
for an answer in there, and be called again.
"""

# mypy: allow-untyped-calls
# (kombu's functions have no annotations)

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections import deque
from dataclasses import dataclass
from typing import Any

import msgspec
from kombu.connection import Connection
from kombu.entity import Exchange, Queue
from kombu.message import Message
from kombu.messaging import Consumer, Producer
from prometheus_client import CollectorRegistry, Counter

from services.alerts.options import HEARTBEAT
from services.alerts.sink import Sink, Stopping, TryAgain, Undeliverable
from shared.bus.amqp_consumers import DEAD, EVENTS
from shared.bus.envelope import EnvelopeError, decode_event
from shared.bus.timing import backoff
from shared.contracts.alerts import Alert

log = logging.getLogger("alerts")

BINDING = "alert.#"
TICK = 0.5
"""Seconds after which a waiting thread looks whether it shall stop, and sends its heartbeat."""
PREFETCH = 1
"""Alerts that the broker gives before the earlier ones are acknowledged: order is kept and little comes twice."""
KEPT = 100_000
"""Alerts that wait for a slow consumer; beyond it the oldest go to `dead`."""
UNUSED = 14 * 24 * 3600 * 1000
"""Milliseconds after which the queue of a consumer that is no more goes by itself."""
ANSWER = 15
"""Seconds that the broker gets to answer a declaration or to take a message; then the connection is made anew."""
RECONNECT_FIRST, RECONNECT_LONGEST = 0.1, 5.0

EVENTS_EXCHANGE = Exchange(EVENTS, "topic", durable=True)
DEAD_EXCHANGE = Exchange(DEAD, "fanout", durable=True)


@dataclass(slots=True)
class Tally:
    """How it goes with one sink. Written by its reader's thread, read by anybody."""

    delivered: int = 0
    failed: int = 0
    dead: int = 0
    bus_problem: str = "not connected to the bus yet"
    sink_problem: str = ""

    @property
    def state(self) -> str:
        problem = self.bus_problem or self.sink_problem
        return f"failing: {problem}" if problem else "ok"


class Counters:
    """For Prometheus, by sink. `failed` counts attempts, `dead` alerts that were given up."""

    def __init__(self, registry: CollectorRegistry) -> None:
        def counter(name: str, text: str) -> Counter:
            return Counter(f"alerts_{name}", text, ["consumer"], registry=registry)

        self.delivered = counter("delivered", "Alerts delivered.")
        self.failed = counter("failed_attempts", "Attempts to deliver an alert that failed.")
        self.dead = counter("dead", "Alerts given up and kept in the dead queue.")
        self.skipped = counter("skipped", "Alerts below the consumer's priority.")


class Reader(threading.Thread):
    """`opened` is set once the queue exists: from then on no alert is missed, whether this process runs or not."""

    def __init__(self, url: str, queue: str, sink: Sink, counters: Counters) -> None:
        super().__init__(name=f"alerts {sink.name}", daemon=True)
        self.sink = sink
        self.tally = Tally()
        self.opened = threading.Event()
        self._url = url
        self._counters = counters
        self._stop_asked = threading.Event()
        self._arrived: deque[Message] = deque()
        self._queue = Queue(
            queue,
            EVENTS_EXCHANGE,
            routing_key=BINDING,
            durable=True,
            queue_arguments={
                "x-queue-type": "classic",
                "x-max-length": KEPT,
                "x-expires": UNUSED,
                "x-dead-letter-exchange": DEAD,
            },
        )

    def stop(self) -> None:
        """Returns at once; `join` waits for the end. An alert that is not done with stays in the queue."""
        self._stop_asked.set()

    def run(self) -> None:
        attempt, told = 0, ""
        while not self._stop_asked.is_set():
            connection = Connection(
                self._url,
                heartbeat=HEARTBEAT,
                connect_timeout=5,
                transport_options={"confirm_publish": True, "read_timeout": ANSWER, "write_timeout": ANSWER},
            )
            try:
                with connection:
                    self._consume(connection)
            except (*connection.connection_errors, *connection.channel_errors, OSError) as error:
                problem = f"no connection to the bus: {type(error).__name__}: {error}"
                if problem != told:
                    log.warning("%s: %s; trying again", self.sink.name, problem)
            except Exception as error:  # a thread that ended would leave its queue to grow without a word
                problem = f"{type(error).__name__}: {error}"
                log.exception("%s: reading alerts failed; trying again", self.sink.name)
            else:
                return
            attempt = 0 if not self.tally.bus_problem else attempt + 1
            self.tally.bus_problem = told = problem
            self._stop_asked.wait(backoff(attempt, RECONNECT_FIRST, RECONNECT_LONGEST))

    def _consume(self, connection: Connection) -> None:
        """Returns when the reader shall stop. Raises what ends the connection."""
        self._arrived.clear()
        channel = connection.channel()
        DEAD_EXCHANGE(channel).declare()
        queue = self._queue(channel)
        queue.declare()
        self.opened.set()
        consumer = Consumer(channel, [queue], on_message=self._arrived.append, prefetch_count=PREFETCH)
        consumer.consume()
        self.tally.bus_problem = ""
        while not self._stop_asked.is_set():
            self._wait(connection, TICK)
            while self._arrived:
                try:
                    self._handle(connection, self._arrived.popleft())
                except Stopping:
                    return

    def _wait(self, connection: Connection, seconds: float) -> None:
        """Lets messages arrive for so long, or until the first one, and keeps the connection alive."""
        with contextlib.suppress(TimeoutError):
            connection.drain_events(timeout=seconds)
        connection.heartbeat_check()

    def _handle(self, connection: Connection, message: Message) -> None:
        try:
            alert = msgspec.convert(decode_event(_bytes(message.body)).body, Alert)
        except (EnvelopeError, msgspec.ValidationError) as error:
            self._bury(connection, message, f"not an alert: {error}")
            return
        if not self.sink.wants(alert):
            self._counters.skipped.labels(self.sink.name).inc()
            message.ack()
            return
        failures = 0
        while True:
            try:
                self._deliver(alert)
            except Undeliverable as error:
                self._bury(connection, message, str(error))
                return
            except TryAgain as error:
                failures += error.counts
                self._failed(alert, str(error))
                if failures >= self.sink.attempts:
                    self._bury(connection, message, f"{failures} attempts failed, the last one: {error}")
                    return
                self._pause(connection, backoff(max(0, failures - 1), self.sink.retry_first, self.sink.retry_longest))
            else:
                message.ack()
                self.tally.delivered += 1
                self.tally.sink_problem = ""
                self._counters.delivered.labels(self.sink.name).inc()
                return

    def _deliver(self, alert: Alert) -> None:
        """Raises `TryAgain`, `Undeliverable`, `Stopping`."""
        try:
            self.sink.deliver(alert, self._stop_asked)
        except (TryAgain, Undeliverable, Stopping):
            raise
        except Exception as error:  # a fault in the sink must not make one alert come again for ever
            log.exception("%s: alert %s", self.sink.name, alert.id)
            raise TryAgain(f"{type(error).__name__}: {error}") from error

    def _failed(self, alert: Alert, problem: str) -> None:
        self.tally.failed += 1
        self._counters.failed.labels(self.sink.name).inc()
        if problem != self.tally.sink_problem:
            log.warning("%s: alert %s %s not delivered: %s", self.sink.name, alert.name, alert.id, problem)
        self.tally.sink_problem = problem

    def _pause(self, connection: Connection, seconds: float) -> None:
        """Raises `Stopping`."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            if self._stop_asked.is_set():
                raise Stopping
            self._wait(connection, min(left, TICK))

    def _bury(self, connection: Connection, message: Message, reason: str) -> None:
        """To the `dead` exchange, and out of the queue once the broker has taken it."""
        log.error("%s: alert given up: %s", self.sink.name, reason)
        with connection.channel() as channel:
            Producer(channel, DEAD_EXCHANGE, auto_declare=False).publish(
                _bytes(message.body),
                content_type="application/json",
                content_encoding="binary",
                headers={"reason": reason[:2000], "source": self._queue.name},
                delivery_mode=2,
            )
        message.ack()
        self.tally.dead += 1
        self._counters.dead.labels(self.sink.name).inc()


def _bytes(body: Any) -> bytes:
    """A message's body as it was sent: kombu decodes it when the sender named an encoding."""
    return body.encode() if isinstance(body, str) else bytes(body)
