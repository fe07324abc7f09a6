from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from services.alerts import options
from services.alerts.webhook import WebhookSink
from shared.config import BusConfig, Config, ConfigError, load
from shared.contracts.alerts import Alert


def config(*consumers: dict[str, Any], **more: Any) -> Config:
    bus = BusConfig(url="amqp://127.0.0.1/")
    return Config(service="alerts", state_dir="/x", bus=bus, options={"consumers": list(consumers), **more})


def hook(**settings: Any) -> dict[str, Any]:
    return {"kind": "webhook", "name": "pager", "url": "http://127.0.0.1:1/", **settings}


def test_consumers_are_tables_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "alerts.toml"
    path.write_text(
        """
        service = "alerts"
        state_dir = "/x"
        [bus]
        url = "amqp://127.0.0.1/"
        [[options.consumers]]
        kind = "webhook"
        name = "pager"
        url = "https://pager.example/hook"
        min_priority = 3
        [options.consumers.headers]
        Authorization = "Bearer x"
        """
    )
    (found,) = options.load(load(path, {})).consumers
    assert (found.name, found.min_priority, found.headers) == ("pager", 3, {"Authorization": "Bearer x"})


def test_no_consumers_is_fine() -> None:
    assert options.load(config()).consumers == []


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"kind": "pigeon"}, "pigeon"),
        ({"url": "ftp://example/"}, "is not http"),
        ({"url": "http://"}, "is not http"),
        ({"url": "http://example:99999/"}, "Port out of range"),
        ({"timeout": 60.0}, "timeout must be"),
        ({"timeout": 0.0}, "timeout must be"),
        ({"min_priority": 0}, "min_priority must be"),
        ({"attempts": 0}, "attempts must be"),
        ({"retry_longest": 0.5}, "retry_first <= retry_longest"),
        ({"name": "a b"}, "a name has"),
        ({"name": ""}, "a name has"),
        ({"colour": "red"}, "colour"),
    ],
)
def test_a_consumer_that_cannot_work_is_named_at_start(settings: dict[str, Any], text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        options.load(config(hook(**settings)))


def test_two_consumers_of_one_name_would_share_a_queue() -> None:
    with pytest.raises(ConfigError, match="another consumer has that name"):
        options.load(config(hook(), hook()))


def test_a_file_of_authorities_that_is_missing_is_named_at_start() -> None:
    (found,) = options.load(config(hook(url="https://x/", ca_file="/nowhere.pem"))).consumers
    with pytest.raises(ConfigError, match=r"nowhere\.pem"):
        WebhookSink(found, "pool")


@pytest.mark.parametrize(("least", "wanted"), [(1, {1}), (3, {1, 2, 3}), (5, {1, 2, 3, 4, 5})])
def test_priorities_up_to_the_given_one_are_wanted(least: int, wanted: set[int]) -> None:
    (found,) = options.load(config(hook(min_priority=least))).consumers
    sink = WebhookSink(found, "pool")
    alerts = [
        Alert(id="i", name="N", priority=priority, cls="VM", obj_uuid="", body="", time=0.0) for priority in range(1, 6)
    ]
    assert {one.priority for one in alerts if sink.wants(one)} == wanted
