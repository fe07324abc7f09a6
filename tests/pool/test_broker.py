"""A broker that is not the pool's own. (Its own node: tests/bus.)"""

from __future__ import annotations

import http.server
import threading
from collections.abc import Iterator
from pathlib import Path

import pika
import pytest
from pika.exceptions import ChannelClosedByBroker

from pool import broker, rabbitmq
from pool.rabbitmq import BrokerError, Node

pytestmark = pytest.mark.broker


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    """Stands for a broker of somebody else's."""
    started = rabbitmq.start(tmp_path_factory.mktemp("elsewhere"))
    yield started
    rabbitmq.stop(started)


def use(url: str, exchange: str) -> None:
    """What the services would do."""
    connection = pika.BlockingConnection(pika.URLParameters(url))
    channel = connection.channel()
    channel.exchange_declare(exchange, "direct", durable=True)
    channel.queue_declare("db", durable=True)
    connection.close()


def exists(url: str, exchange: str) -> bool:
    connection = pika.BlockingConnection(pika.URLParameters(url))
    try:
        connection.channel().exchange_declare(exchange, passive=True)
        return True
    except ChannelClosedByBroker:
        return False
    finally:
        connection.close()


def test_where_no_vhost_can_be_made_the_urls_own_is_used_and_cleaned(node: Node, tmp_path: Path) -> None:
    url = broker.start(tmp_path, "a-pool", node.url)
    assert url == node.url
    assert not broker.private(tmp_path)
    use(url, "rpc")
    assert broker.start(tmp_path, "a-pool", node.url) == url  # the second start of the same pool

    broker.remove(tmp_path, ["db", "api.never-there"])
    assert not exists(url, "rpc")
    broker.start(tmp_path, "a-pool", node.url)


def test_nobody_there_is_told_without_the_password(tmp_path: Path) -> None:
    with pytest.raises(BrokerError, match=r"amqp://me:\*\*\*@127\.0\.0\.1:1/pool: no broker to use"):
        broker.start(tmp_path, "a-pool", "amqp://me:secret@127.0.0.1:1/pool")


class Management(http.server.BaseHTTPRequestHandler):
    """As much of RabbitMQ's management API as making a vhost takes."""

    seen: list[tuple[str, str]] = []

    def _answer(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.seen.append((self.command, self.path))
        self.send_response(204)
        self.end_headers()

    do_PUT = do_DELETE = _answer

    def log_message(self, format: str, *args: object) -> None:
        """Quiet."""


@pytest.fixture
def management(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[tuple[str, str]]]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Management)
    monkeypatch.setattr(broker, "MANAGEMENT_PORT", server.server_port)
    Management.seen = []
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield Management.seen
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_vhost_of_its_own_is_asked_for_by_the_management_api(
    node: Node, tmp_path: Path, management: list[tuple[str, str]]
) -> None:
    with pytest.raises(BrokerError, match="xapi-a-pool"):  # the fake made none, so there is nothing to connect to
        broker.start(tmp_path, "a-pool", node.url)
    assert management == [
        ("PUT", "/api/vhosts/xapi-a-pool"),
        ("PUT", "/api/permissions/xapi-a-pool/xapi"),
        ("DELETE", "/api/vhosts/xapi-a-pool"),
    ]


def test_a_vhost_with_another_pool_in_it_is_refused(node: Node, tmp_path: Path) -> None:
    use(node.url, "rpc")
    with pytest.raises(BrokerError, match="another pool uses this vhost"):
        broker.start(tmp_path, "a-pool", node.url)
