"""The counters of several services on one page."""

from __future__ import annotations

from prometheus_client.parser import text_string_to_metric_families

from services.api.exposition import merged

VM = '# HELP calls_total Calls\n# TYPE calls_total counter\ncalls_total{service="vm"} 2.0\n'
DB = (
    '# HELP calls_total Calls\n# TYPE calls_total counter\ncalls_total{service="db"} 3.0\n'
    "# HELP rows Rows\n# TYPE rows gauge\nrows 7.0\n"
)


def test_a_family_of_several_services_stands_once_with_all_its_samples() -> None:
    families = list(text_string_to_metric_families(merged([VM, DB, ""])))
    assert [family.name for family in families] == ["calls", "rows"]
    assert {sample.labels["service"]: sample.value for sample in families[0].samples} == {"vm": 2.0, "db": 3.0}


def test_the_same_sample_twice_counts_once() -> None:
    assert merged([VM, VM]) == VM


def test_nothing_makes_an_empty_page() -> None:
    assert merged(["", ""]) == ""
