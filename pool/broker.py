"""The pool's broker: a private RabbitMQ node (`pool.rabbitmq`), or the one that AMQP_URL names.

On a foreign broker the pool takes a vhost of its own where the management API allows to make one, else the vhost in
the URL, as long as no other pool is in it. What was made there is removed by `remove`.
"""

from __future__ import annotations

import base64
import json
import os
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path

import msgspec
import pika
from pika.exceptions import AMQPError, ChannelClosedByBroker

from pool import rabbitmq
from pool.processes import Process
from pool.rabbitmq import BrokerError

MANAGEMENT_PORT = 15672
EXCHANGES = ("rpc", "events", "dead")
QUEUES = ("dead", "alerts.xenapi.messages")
"""Those that outlive their consumers, beside the services' own."""
TIMEOUT = 5.0
"""Seconds for one answer of a broker elsewhere."""


class External(msgspec.Struct, frozen=True, kw_only=True):
    """A broker that is not ours. `given`: the URL as in AMQP_URL. `own_vhost`: "" when the URL's own is used."""

    given: str
    url: str
    own_vhost: str = ""


def start(directory: Path, pool: str, given: str) -> str:
    """The URL for the services. `given`: AMQP_URL or "". `pool`: its uuid. Raises `BrokerError`."""
    kept = _external(directory)
    if given:
        external = _take(given, pool, kept)
        _save(directory, external)
        return external.url
    if kept is not None:
        _file(directory).unlink()
    return restart(directory)


def restart(directory: Path) -> str:
    """Starts the private node, with the data it had. Raises `BrokerError`."""
    return rabbitmq.start(_node(directory)).url


def private(directory: Path) -> bool:
    """Whether the pool has a node of its own, running or not."""
    return _external(directory) is None and rabbitmq.read(_node(directory)) is not None


def process(directory: Path) -> Process | None:
    """The private node's process while it runs."""
    node = rabbitmq.load(_node(directory))
    return Process.open(node.pid) if node is not None else None


def stop(directory: Path) -> None:
    """Stops the private node, and what a killed one left running; a foreign broker goes on. Raises `BrokerError`."""
    node = rabbitmq.read(_node(directory))
    if node is not None:
        rabbitmq.stop(node)


def remove(directory: Path, queues: list[str]) -> None:
    """Leaves nothing on a foreign broker: our vhost, or our exchanges and `queues`. Raises `BrokerError`."""
    external = _external(directory)
    if external is None:
        return
    if external.own_vhost:
        _management(external.given, "DELETE", f"/api/vhosts/{_quoted(external.own_vhost)}")
    else:
        _delete(external.url, queues)
    _file(directory).unlink()


# ---- a broker elsewhere


def _take(given: str, pool: str, kept: External | None) -> External:
    if kept is not None and kept.given == given:
        _check(kept.url, ours=True)
        return kept
    _check(given, ours=True)
    vhost = f"xapi-{pool}"
    parts = urllib.parse.urlsplit(given)
    try:
        _management(given, "PUT", f"/api/vhosts/{_quoted(vhost)}")
        permissions = f"/api/permissions/{_quoted(vhost)}/{_quoted(urllib.parse.unquote(parts.username or 'guest'))}"
        _management(given, "PUT", permissions, {"configure": ".*", "write": ".*", "read": ".*"})
    except BrokerError:
        _check(given, ours=False)
        return External(given=given, url=given)
    url = urllib.parse.urlunsplit(parts._replace(path=f"/{_quoted(vhost)}"))
    try:
        _check(url, ours=True)
    except BrokerError:
        _management(given, "DELETE", f"/api/vhosts/{_quoted(vhost)}")
        raise
    return External(given=given, url=url, own_vhost=vhost)


def _check(url: str, *, ours: bool) -> None:
    """Whether the broker answers, and unless the vhost is `ours`, that no other pool is in it."""
    connection = _connect(url)
    try:
        if ours:
            return
        try:
            connection.channel().exchange_declare("rpc", passive=True)
        except ChannelClosedByBroker as error:
            if error.reply_code == 404:
                return
            raise BrokerError(f"{_public(url)}: {error.reply_text}") from error
        raise BrokerError(
            f"{_public(url)}: another pool uses this vhost. Name another one in AMQP_URL (the user may not make one)"
        )
    finally:
        connection.close()


def _delete(url: str, queues: list[str]) -> None:
    connection = _connect(url)
    try:
        channel = connection.channel()
        for queue in (*queues, *QUEUES):
            channel.queue_delete(queue)  # one that is gone is not an error to the broker
        for exchange in EXCHANGES:
            channel.exchange_delete(exchange)
    except AMQPError as error:
        raise BrokerError(f"{_public(url)}: cannot remove the pool's queues: {error!r}") from error
    finally:
        connection.close()


def _connect(url: str) -> pika.BlockingConnection:
    try:
        parameters = pika.URLParameters(url)
        parameters.socket_timeout = parameters.blocked_connection_timeout = TIMEOUT
        parameters.stack_timeout = 2 * TIMEOUT
        return pika.BlockingConnection(parameters)
    except (AMQPError, OSError, ValueError) as error:
        raise BrokerError(f"AMQP_URL {_public(url)}: no broker to use there: {error!r}") from error


def _management(url: str, method: str, path: str, body: dict[str, str] | None = None) -> None:
    parts = urllib.parse.urlsplit(url)
    user = urllib.parse.unquote(parts.username or "guest")
    password = urllib.parse.unquote(parts.password or "guest")
    request = urllib.request.Request(
        f"http://{parts.hostname}:{MANAGEMENT_PORT}{path}",
        method=method,
        data=json.dumps(body).encode() if body is not None else None,
        headers={
            "Content-Type": "application/json",
            "Authorization": "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode(),
        },
    )
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT) as response:
            response.read()
    except (urllib.error.URLError, OSError) as error:
        raise BrokerError(f"management API of {parts.hostname}: {error}") from error


def _public(url: str) -> str:
    """The URL without its password."""
    parts = urllib.parse.urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    return urllib.parse.urlunsplit(parts._replace(netloc=f"{parts.username}:***@{host}" if parts.username else host))


def _quoted(text: str) -> str:
    return urllib.parse.quote(text, safe="")


# ---- what is kept


def _node(directory: Path) -> Path:
    return directory / "rabbitmq"


def _file(directory: Path) -> Path:
    return directory / "broker.json"


def _external(directory: Path) -> External | None:
    try:
        return msgspec.json.decode(_file(directory).read_bytes(), type=External)
    except FileNotFoundError:
        return None


def _save(directory: Path, external: External) -> None:
    descriptor = os.open(_file(directory), os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(msgspec.json.encode(external))
