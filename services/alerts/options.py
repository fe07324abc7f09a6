"""What the alerts service is told.

[options]
role_file = "/etc/xapi/pool.conf"       # a member's process waits until its host becomes coordinator
prefix = "alerts"                       # of its queues' names
[[options.consumers]]
kind = "webhook"
name = "pager"
url = "https://pager.example/hook"
min_priority = 3                        # 1 critical ... 5 informational: 3 delivers 1, 2 and 3
timeout = 10.0                          # seconds for one attempt
attempts = 10                           # then the alert goes to the `dead` queue
retry_first = 1.0                       # seconds before the second attempt; doubled each time
retry_longest = 300.0
ca_file = "/etc/ssl/pager-ca.pem"       # instead of the system's authorities
[options.consumers.headers]
Authorization = "Bearer ..."
"""

from __future__ import annotations

from urllib.parse import urlsplit

import msgspec

from shared.config import Config, ConfigError, options

HEARTBEAT = 60
"""Seconds; of the connections of this service to the broker. One attempt to deliver must take less."""


class Webhook(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="kind", tag="webhook"):
    """An HTTP server that gets each alert as a POST."""

    name: str
    url: str
    min_priority: int = 5
    timeout: float = 10.0
    attempts: int = 10
    retry_first: float = 1.0
    retry_longest: float = 300.0
    ca_file: str = ""
    headers: dict[str, str] = {}


class Options(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`role_file`: says what the host is in its pool (`shared.host_role`); a member delivers nothing."""

    role_file: str = ""
    prefix: str = "alerts"
    consumers: list[Webhook] = []


def load(config: Config) -> Options:
    """Raises `ConfigError`, which names the consumer that cannot work."""
    found = options(config, Options)
    names: set[str] = set()
    for consumer in found.consumers:
        problem = _problem(consumer)
        if consumer.name in names:
            problem = "another consumer has that name"
        if problem:
            raise ConfigError(f"[options] of {config.service}: consumer {consumer.name!r}: {problem}")
        names.add(consumer.name)
    return found


def _problem(hook: Webhook) -> str:
    try:
        url = urlsplit(hook.url)
        port = url.port
    except ValueError as error:
        return f"url: {error}"
    if url.scheme not in ("http", "https") or not url.hostname or port == 0:
        return f"url {hook.url!r} is not http://... or https://..."
    if not hook.name.replace("-", "").replace("_", "").isalnum() or len(hook.name) > 64:
        return "a name has letters, digits, - and _, at most 64"
    if not 0 < hook.timeout < HEARTBEAT:
        return f"timeout must be more than 0 and less than {HEARTBEAT} seconds"
    if not 1 <= hook.min_priority <= 5:
        return "min_priority must be 1 to 5"
    if hook.attempts < 1 or hook.retry_first <= 0 or hook.retry_longest < hook.retry_first:
        return "attempts must be at least 1, and 0 < retry_first <= retry_longest"
    return ""
