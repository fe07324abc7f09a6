"""Spans of a call's path through the processes, in W3C Trace Context terms.

A trace costs nothing unless its caller asked for it (the sampled flag of `traceparent`), the pool samples by ratio, or
an Observer is enabled: then the trace says which hosts and components record it.
Each process appends its spans to a file of its own, one JSON object a line; `python -m pool trace` joins them.
"""

from __future__ import annotations

import os
import random
import re
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import IO, Any, Final, NamedTuple

import msgspec
import orjson

from shared.bus.context import current

_TRACEPARENT = re.compile(r"00-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})")


COMPONENTS: Final = {"vm": "xenopsd", "storage": "smapi"}
"""Services to what observers call them; all others are `xapi`."""


class Scope(NamedTuple):
    """What one observer looks at: hosts (uuids) and components; all, where there are none."""

    hosts: frozenset[str] = frozenset()
    components: frozenset[str] = frozenset()


def scopes(found: Iterable[Scope]) -> str:
    """As `CallContext.observed` carries them: `hosts;components`, separated by `|`."""
    return "|".join(f"{','.join(sorted(scope.hosts))};{','.join(sorted(scope.components))}" for scope in found)


@lru_cache(maxsize=256)
def _scopes(text: str) -> tuple[Scope, ...]:
    parts = (one.partition(";") for one in text.split("|"))
    return tuple(Scope(_names(hosts), _names(components)) for hosts, _, components in parts)


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split(",")) if text else frozenset()


class Exporter:
    """Where this process writes its spans. Without a file nothing is recorded."""

    def __init__(self) -> None:
        self.service = ""
        self.host = ""
        self._hosts: frozenset[str] = frozenset()
        self._file: IO[bytes] | None = None

    def open(self, path: Path, service: str, host: str, hosts: frozenset[str] = frozenset()) -> None:
        """`host`: a name for people. `hosts`: uuids of those that the process works for; none: the whole pool."""
        self.service, self.host, self._hosts = service, host, hosts
        self._file = path.open("ab", buffering=0)

    def records(self, observed: str) -> bool:
        """Whether spans of a trace that is observed so are recorded here."""
        component = COMPONENTS.get(self.service, "xapi")
        return not observed or any(
            (not scope.components or component in scope.components)
            and (not scope.hosts or not self._hosts or not scope.hosts.isdisjoint(self._hosts))
            for scope in _scopes(observed)
        )

    def write(self, span: dict[str, Any]) -> None:
        if self._file is not None:
            self._file.write(orjson.dumps(span) + b"\n")

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None


exporter = Exporter()


def new_traceparent(sampled: bool = True) -> str:
    """A new root: nobody's child yet."""
    return f"00-{os.urandom(16).hex()}-{os.urandom(8).hex()}-{'01' if sampled else '00'}"


def accept(traceparent: str, ratio: float = 0.0) -> str:
    """The client's trace context if it is well-formed, else a new sampled one for `ratio` of the calls, else ""."""
    if traceparent and _TRACEPARENT.fullmatch(traceparent):
        return traceparent
    return new_traceparent() if ratio and random.random() < ratio else ""


def as_sampled(traceparent: str) -> str:
    """The same trace, to be recorded."""
    return f"{traceparent[:-2]}{int(traceparent[-2:], 16) | 1:02x}"


def sampled(traceparent: str) -> bool:
    return len(traceparent) == 55 and bool(int(traceparent[-2:], 16) & 1)


@contextmanager
def span(name: str, kind: str = "internal", **attributes: str | int | float) -> Iterator[None]:
    """Records the time spent inside, as a child of the current span. `kind`: server | client | internal."""
    context = current.get()
    parent = context.traceparent
    if not parent or not sampled(parent) or not exporter.records(context.observed):
        yield
        return
    span_id = os.urandom(8).hex()
    token = current.set(msgspec.structs.replace(context, traceparent=f"{parent[:36]}{span_id}-{parent[-2:]}"))
    begin = time.time_ns()
    error = ""
    try:
        yield
    except BaseException as problem:
        error = f"{type(problem).__name__}: {problem}"
        raise
    finally:
        current.reset(token)
        exporter.write(
            {
                "trace_id": parent[3:35],
                "span_id": span_id,
                "parent_id": parent[36:52],
                "name": name,
                "kind": kind,
                "service": exporter.service,
                "host": exporter.host,
                "start_ns": begin,
                "end_ns": time.time_ns(),
                "attributes": attributes,
                "error": error,
            }
        )
