"""Counters of the edge. Plain integers on the way of every call; Prometheus reads them when it asks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector


class Statistics(Collector):
    """`calls`: by codec. `pages`: replies that are not calls' answers, by status. `open`: connections now."""

    def __init__(self) -> None:
        self.accepted = 0
        self.refused = 0
        self.open = 0
        self.calls = {"xml": 0, "json": 0}
        self.abandoned = 0
        self.consoles = 0
        self.commands = 0
        self.pages: Counter[int] = Counter()

    def collect(self) -> Iterator[Metric]:
        yield GaugeMetricFamily("xapi_http_connections_open", "Connections now.", self.open)
        for name, value, doc in (
            ("connections", self.accepted, "Connections accepted."),
            (
                "connections_refused",
                self.refused,
                "Connections refused: too many, or too many TLS handshakes.",
            ),
            ("calls_abandoned", self.abandoned, "Waiting calls whose client went away."),
            ("consoles", self.consoles, "Console connections."),
            ("commands", self.commands, "Commands of the xe program."),
        ):
            yield CounterMetricFamily(f"xapi_http_{name}", doc, value)
        calls = CounterMetricFamily("xapi_http_calls", "XenAPI calls.", labels=["codec"])
        for codec, count in self.calls.items():
            calls.add_metric([codec], count)
        yield calls
        pages = CounterMetricFamily("xapi_http_errors", "Replies that are error pages.", labels=["status"])
        for status, count in self.pages.items():
            pages.add_metric([str(status)], count)
        yield pages
