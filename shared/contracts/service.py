"""What every service answers: `ping`, `status`, `metrics`. Served on the service's own queue(s)."""

from __future__ import annotations

from functools import cache

from shared.bus.contract import Empty, Method, Record, Scope


class Status(Record, frozen=True):
    """`started`: Unix time. `state`: "starting" | "ready" | "stopping". `details`: one line per fact, for people."""

    service: str
    version: str
    pid: int
    started: float
    state: str
    details: dict[str, str] = {}


class MetricsText(Record, frozen=True):
    """Prometheus exposition format, text version 0.0.4."""

    text: str


@cache
def ping(service: str, scope: Scope) -> Method[Empty, Empty]:
    return Method(service, "ping", Empty, Empty, "Answers, so the caller knows somebody is there.", scope, timeout=2.0)


@cache
def status(service: str, scope: Scope) -> Method[Empty, Status]:
    return Method(service, "status", Empty, Status, "What the service is doing.", scope, timeout=5.0)


@cache
def metrics(service: str, scope: Scope) -> Method[Empty, MetricsText]:
    return Method(service, "metrics", Empty, MetricsText, "The service's counters.", scope, timeout=5.0)
