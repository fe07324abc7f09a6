"""Prints the pool's alerts as they come:  AMQP_URL=amqp://user:password@host/vhost python alert_consumer.py [pattern]

`pattern` chooses what to see, such as `alert.VM.#` or `alert.*.1.*`. Copies with the same pattern share the work.
"""

import json
import os
import sys

from kombu import Connection, Exchange, Queue
from kombu.mixins import ConsumerMixin


class AlertPrinter(ConsumerMixin):
    def __init__(self, connection: Connection, pattern: str) -> None:
        self.connection = connection  # ConsumerMixin connects, and connects again when the broker was away
        self.queue = Queue(
            f"alert-printer {pattern}",  # durable: alerts wait here while this program is not running
            Exchange("events", "topic", durable=True),
            routing_key=pattern,
            queue_arguments={"x-expires": 3_600_000},  # an hour without it: forgotten
        )

    def get_consumers(self, Consumer, channel):
        return [Consumer([self.queue], on_message=self.on_alert, prefetch_count=10)]

    def on_alert(self, message) -> None:
        alert = json.loads(message.body)["body"]
        print("[{priority}] {name} {cls} {obj_uuid}: {body}".format(**alert), flush=True)
        message.ack()  # only now: an alert that was not printed comes again


if __name__ == "__main__":
    with Connection(os.environ["AMQP_URL"], heartbeat=30) as connection:
        AlertPrinter(connection, sys.argv[1] if len(sys.argv) > 1 else "alert.#").run()
