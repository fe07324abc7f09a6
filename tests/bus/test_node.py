"""The private RabbitMQ node: comes back with its data, touches nobody else, says why it cannot start."""

from __future__ import annotations

import dataclasses
import os
import socket
import time
from pathlib import Path

import pika
import psutil
import pytest

from pool import rabbitmq

pytestmark = pytest.mark.broker

SETTLED = 3.0
"""Seconds until a node has written down that a queue exists: a node killed earlier may forget a new one, however
durable. What uses a queue declares it whenever it connects.
"""


def listening(pid: int) -> set[str]:
    """The addresses that the process listens on."""
    connections = psutil.Process(pid).net_connections("inet")
    return {connection.laddr.ip for connection in connections if connection.status == psutil.CONN_LISTEN}


def test_a_node_listens_on_loopback_keeps_its_data_and_leaves_no_process(tmp_path: Path) -> None:
    node = rabbitmq.start(tmp_path)
    try:
        assert rabbitmq.start(tmp_path) == node
        assert rabbitmq.load(tmp_path) == node
        assert listening(node.pid) == {"127.0.0.1"}
        assert node.epmd is not None
        assert listening(node.epmd.pid) <= {"127.0.0.1", "::1"}
        assert (tmp_path / "node.json").stat().st_mode & 0o077 == 0
        with pytest.raises(pika.exceptions.AMQPError):
            pika.BlockingConnection(pika.URLParameters(f"amqp://guest:guest@127.0.0.1:{node.port}/pool"))
        with pika.BlockingConnection(pika.URLParameters(node.url)) as connection:
            channel = connection.channel()
            channel.confirm_delivery()
            channel.queue_declare("kept", durable=True)
            channel.basic_publish("", "kept", b"news", pika.BasicProperties(delivery_mode=2), mandatory=True)
        time.sleep(SETTLED)
        rabbitmq.kill9(node)
        assert rabbitmq.load(tmp_path) is None
        again = rabbitmq.start(tmp_path)
        assert again.url == node.url
        with pika.BlockingConnection(pika.URLParameters(again.url)) as connection:
            _, _, body = connection.channel().basic_get("kept", auto_ack=True)
            assert body == b"news"
    finally:
        last = rabbitmq.read(tmp_path)
        assert last is not None
        rabbitmq.stop(last)
    assert rabbitmq.load(tmp_path) is None
    for process in (node.server, node.epmd, last.server, last.epmd):
        assert process is not None
        assert not dataclasses.replace(node, server=process).running  # a zombie that nobody has reaped yet has ended


def test_a_port_that_is_taken_is_named(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(rabbitmq.BrokerError, match=f"port {port} on 127.0.0.1 is taken"):
            rabbitmq.start(tmp_path, port=port)


def test_a_missing_package_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rabbitmq, "SERVER", tmp_path / "nowhere")
    with pytest.raises(rabbitmq.BrokerError, match="apt-get install rabbitmq-server"):
        rabbitmq.start(tmp_path)


def test_a_node_that_ends_while_it_starts_shows_its_log(tmp_path: Path) -> None:
    (tmp_path / "advanced.config").write_text("this is no Erlang term")
    with pytest.raises(rabbitmq.BrokerError, match="failed_to_read_advanced_configuration_file") as caught:
        rabbitmq.start(tmp_path)
    assert "while it started" in str(caught.value)
    assert rabbitmq.load(tmp_path) is None


def test_an_unreadable_record_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "node.json").write_text("{}")
    with pytest.raises(rabbitmq.BrokerError, match=r"node\.json cannot be used"):
        rabbitmq.load(tmp_path)


def test_a_pid_that_was_given_to_another_process_is_not_the_node(tmp_path: Path) -> None:
    process = rabbitmq.Process(os.getpid(), started=1)
    node = rabbitmq.Node(tmp_path, "x@localhost", 1, 2, 3, "u", "p", server=process, epmd=process)
    assert not node.running
    rabbitmq.stop(node)  # must not end this very process
