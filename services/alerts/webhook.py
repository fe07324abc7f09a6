"""Delivers alerts by HTTP POST. `docs/alerts.md` says what the receiver gets."""

from __future__ import annotations

import http.client
import socket
import ssl
import time
from contextlib import suppress
from threading import Event, Timer
from urllib.parse import urlsplit

import orjson

from services.alerts.options import Webhook
from services.alerts.sink import TryAgain
from shared.config import ConfigError
from shared.contracts.alerts import Alert

FORMAT = 1
"""Of the body; rises when a member changes its meaning or goes."""


def body(alert: Alert, pool: str) -> bytes:
    return orjson.dumps(
        {
            "format": FORMAT,
            "pool": pool,
            "id": alert.id,
            "name": alert.name,
            "priority": alert.priority,
            "cls": alert.cls,
            "obj_uuid": alert.obj_uuid,
            "body": alert.body,
            "time": alert.time,
            "timestamp": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(alert.time)),
        }
    )


class WebhookSink:
    """Any 2xx answer is a delivery; redirects are not followed."""

    kind = "webhook"

    def __init__(self, hook: Webhook, pool: str) -> None:
        self.name = hook.name
        self.attempts = hook.attempts
        self.retry_first = hook.retry_first
        self.retry_longest = hook.retry_longest
        self._hook = hook
        self._pool = pool
        url = urlsplit(hook.url)
        self._host, self._port = url.hostname or "", url.port
        self._target = (url.path or "/") + (f"?{url.query}" if url.query else "")
        self._tls = _tls(hook) if url.scheme == "https" else None

    def wants(self, alert: Alert) -> bool:
        return alert.priority <= self._hook.min_priority

    def deliver(self, alert: Alert, stop: Event) -> None:
        connection, expired = self._connection(), Event()
        deadline = Timer(self._hook.timeout, _cut, (connection, expired))
        deadline.daemon = True
        deadline.start()
        try:
            connection.connect()
            if not expired.is_set():  # while there was no socket yet that could be cut
                connection.request("POST", self._target, body(alert, self._pool), self._headers(alert))
                status = connection.getresponse().status
        except (OSError, http.client.HTTPException) as error:
            if not expired.is_set():
                raise TryAgain(f"{type(error).__name__}: {error}") from error
        finally:
            deadline.cancel()
            connection.close()
        if expired.is_set():  # even if what had come so far could pass for an answer
            raise TryAgain(f"no answer within {self._hook.timeout:g} seconds")
        if not 200 <= status < 300:
            raise TryAgain(f"it answered with status {status}")

    def _connection(self) -> http.client.HTTPConnection:
        if self._tls is None:
            return http.client.HTTPConnection(self._host, self._port, timeout=self._hook.timeout)
        return http.client.HTTPSConnection(self._host, self._port, timeout=self._hook.timeout, context=self._tls)

    def _headers(self, alert: Alert) -> dict[str, str]:
        return {
            "Content-Type": "application/json",
            "User-Agent": "xapi-alerts",
            "Idempotency-Key": alert.id,
            "Connection": "close",
            **self._hook.headers,
        }


def _tls(hook: Webhook) -> ssl.SSLContext:
    """Raises `ConfigError` for a file of authorities that cannot be used."""
    try:
        return ssl.create_default_context(cafile=hook.ca_file or None)
    except OSError as error:  # ssl.SSLError is one
        raise ConfigError(f"consumer {hook.name!r}: ca_file {hook.ca_file}: {error}") from error


def _cut(connection: http.client.HTTPConnection, expired: Event) -> None:
    """Ends an attempt as a whole: a socket's own timeout starts anew with every byte that trickles in."""
    expired.set()
    if connection.sock is not None:
        with suppress(OSError):
            connection.sock.shutdown(socket.SHUT_RDWR)
