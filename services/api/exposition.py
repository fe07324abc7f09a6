"""The counters of all of a host's services as one page for Prometheus."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable
from typing import Final

from shared.bus.contract import Empty, Scope
from shared.bus.interface import Bus, BusError
from shared.contracts import service as contract

log = logging.getLogger("api.exposition")

PER_HOST: Final = ("vm", "storage", "network", "metrics", "ha", "cli")
PER_POOL: Final = ("db", "alerts", "ha")
TIMEOUT: Final = 2.0
"""Seconds that a service gets to tell its counters; one that does not is left out."""


async def gather(bus: Bus, host: str, own: str, *, pool: bool) -> str:
    """`own`: the API process's page. `pool`: with the services that are there once in the pool."""
    asked = [_ask(bus, name, Scope.HOST, host) for name in PER_HOST]
    if pool:
        asked += [_ask(bus, name, Scope.POOL, None) for name in PER_POOL]
    return merged([own, *await asyncio.gather(*asked)])


async def _ask(bus: Bus, service: str, scope: Scope, host: str | None) -> str:
    try:
        return (await bus.call(contract.metrics(service, scope), Empty(), host=host, timeout=TIMEOUT)).text
    except BusError as error:
        log.debug("no counters of %s: %s", service, error)
        return ""


def merged(pages: Iterable[str]) -> str:
    """One page of several: a family that stands in more than one has its samples together, each once."""
    heads: dict[str, list[str]] = {}
    samples: dict[str, dict[str, None]] = {}
    for page in pages:
        family = ""
        for line in page.splitlines():
            if line.startswith("# "):
                family = line.split(" ", 3)[2]
                head = heads.setdefault(family, [])
                samples.setdefault(family, {})
                if line.split(" ", 2)[1] not in [known.split(" ", 2)[1] for known in head]:
                    head.append(line)
            elif line:
                samples.setdefault(family, {})[line] = None
    return "".join(f"{line}\n" for name, lines in samples.items() for line in [*heads.get(name, []), *lines])
