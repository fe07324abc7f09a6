"""Alerts: what people want to hear about. The alerts service stores them as XenAPI messages and delivers them."""

from __future__ import annotations

from shared.bus.contract import Empty, Method, Record, Scope, Topic


class Alert(Record, frozen=True):
    """`cls`: VM | Host | SR | Pool | ... as in `message.cls`. `priority`: 1 critical ... 5 informational.

    `id` makes delivery idempotent: the stored message's uuid. `time`: Unix time.
    """

    id: str
    name: str
    priority: int
    cls: str
    obj_uuid: str
    body: str
    time: float


class Consumer(Record, frozen=True):
    """`state`: "ok" | "failing: <why>"."""

    name: str
    kind: str
    delivered: int
    failed: int
    state: str


class Consumers(Record, frozen=True):
    consumers: list[Consumer]


ALERT: Topic[Alert] = Topic("alert.{cls}.{priority}.{name}", Alert, "Something worth a message.")
CONSUMERS = Method("alerts", "consumers", Empty, Consumers, "Who gets alerts and how that goes.", Scope.POOL)
